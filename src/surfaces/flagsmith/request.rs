//! What a request asks: route, method, key, validators.

use std::borrow::Cow;

use crate::http::query::{decode, owned, split_at_byte, split_query};
use crate::http::{AcceptEncoding, Cors, IfNoneMatch, Method};
use crate::surfaces::{FORWARD_REASON_HEADER, SurfaceRequest};

/// A route, with what its query says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api/v1/flags`.
    Flags,
    /// `/api/v1/identities`.
    Identities,
    /// `/api/v1/environment-document`.
    Document,
}

impl Route {
    /// The route of a `:path`, slashes at both of its ends aside. The match is exact, and nothing is percent-decoded.
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::flagsmith::request::Route;
    /// assert_eq!(Route::of(b"//api/v1/flags//?feature=x"), Some(Route::Flags));
    /// assert_eq!(Route::of(b"/api/v1//flags"), None);
    /// assert_eq!(Route::of(b"/api/v1/fl%61gs"), None);
    /// ```
    pub fn of(path: &[u8]) -> Option<Self> {
        match trim_slashes(split_query(path).0) {
            b"api/v1/flags" => Some(Self::Flags),
            b"api/v1/identities" => Some(Self::Identities),
            b"api/v1/environment-document" => Some(Self::Document),
            _ => None,
        }
    }
}

/// A path without the slashes at both of its ends: these do not matter to the Edge Proxy.
pub(super) const fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] = path {
        path = rest;
    }
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

/// A member of the query that may stand there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// It does not stand there.
    #[default]
    Absent,
    /// Its value, decoded; bytes that are no UTF-8 are replaced.
    Value(Cow<'a, str>),
    /// It stands there more than once.
    Repeated,
}

impl Parameter<'_> {
    fn into_owned(self) -> Parameter<'static> {
        match self {
            Self::Absent => Parameter::Absent,
            Self::Value(value) => Parameter::Value(Cow::Owned(value.into_owned())),
            Self::Repeated => Parameter::Repeated,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            _ => 0,
        }
    }
}

/// A request, borrowed from the header map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsmithRequest<'a> {
    /// What is asked for.
    pub route: Route,
    /// Its method.
    pub method: Method,
    /// The first `x-environment-key`, if it is not empty and visible ASCII.
    pub key: Option<Cow<'a, [u8]>>,
    /// `feature` of flags, `identifier` of identities.
    pub parameter: Parameter<'a>,
    /// Whether the body is said to be JSON.
    pub is_json: bool,
    /// `content-length`.
    pub content_length: Option<u64>,
    /// What the client holds.
    pub if_none_match: IfNoneMatch<'a>,
    /// As of when it holds it.
    pub if_modified_since: Option<Cow<'a, [u8]>>,
    /// Whether gzip may be sent.
    pub accepts_gzip: bool,
    /// What CORS mirrors.
    pub cors: Cors<'a>,
    /// Whether it came through here before.
    pub forwarded_before: bool,
    /// Whether it says that it is gRPC.
    pub claims_grpc: bool,
    /// Whether its header fields could be read.
    pub is_read: bool,
}

impl<'a> FlagsmithRequest<'a> {
    /// A request to this route of which nothing was read.
    pub fn unread(route: Route) -> Self {
        Self {
            route,
            method: Method::Other,
            key: None,
            parameter: Parameter::Absent,
            is_json: false,
            content_length: None,
            if_none_match: IfNoneMatch::default(),
            if_modified_since: None,
            accepts_gzip: false,
            cors: Cors::default(),
            forwarded_before: false,
            claims_grpc: false,
            is_read: false,
        }
    }

    /// Reads the header fields, pseudo-headers included, in order.
    pub fn parse(route: Route, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut request = Self::unread(route);
        request.is_read = true;
        let mut accepts = AcceptEncoding::default();
        let mut asks = false;
        let mut key = None;
        let (mut method, mut headers) = (None, None);
        for (name, value) in fields {
            match name {
                b":method" => request.method = Method::parse(value),
                b":path" => request.parameter = parameter(route, value),
                b"x-environment-key" if key.is_none() => key = Some(value),
                b"content-type" => {
                    request.is_json = is_json(value);
                    request.claims_grpc = crate::http::is_grpc(value);
                }
                b"content-length" => request.content_length = number(value),
                b"if-none-match" => request.if_none_match.add(value),
                b"if-modified-since" => request.if_modified_since = Some(Cow::Borrowed(value)),
                b"accept-encoding" => {
                    accepts.add(value);
                    asks = true;
                }
                b"origin" => request.cors.origin = Some(Cow::Borrowed(value)),
                b"access-control-request-method" => method = Some(Cow::Borrowed(value)),
                b"access-control-request-headers" => headers = Some(Cow::Borrowed(value)),
                name if name == FORWARD_REASON_HEADER.as_bytes() => {
                    request.forwarded_before = true;
                }
                _ => {}
            }
        }
        // A star does not count here: gzip has to be named.
        request.accepts_gzip = asks && accepts.names_gzip();
        if request.method == Method::Options {
            request.cors.request_method = method;
            request.cors.request_headers = headers;
        }
        let is_plain = |key: &&[u8]| !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
        request.key = key.filter(is_plain).map(Cow::Borrowed);
        request
    }
}

impl SurfaceRequest for FlagsmithRequest<'_> {
    type Owned = FlagsmithRequest<'static>;

    fn weight(&self) -> usize {
        let length = |value: &Option<Cow<'_, [u8]>>| value.as_ref().map_or(0, |value| value.len());
        length(&self.key)
            + self.parameter.weight()
            + self.if_none_match.len()
            + length(&self.if_modified_since)
            + length(&self.cors.origin)
            + length(&self.cors.request_headers)
            + length(&self.cors.request_method)
    }

    fn into_owned(self) -> Self::Owned {
        FlagsmithRequest {
            route: self.route,
            method: self.method,
            key: self.key.map(owned),
            parameter: self.parameter.into_owned(),
            is_json: self.is_json,
            content_length: self.content_length,
            if_none_match: self.if_none_match.into_owned(),
            if_modified_since: self.if_modified_since.map(owned),
            accepts_gzip: self.accepts_gzip,
            cors: self.cors.into_owned(),
            forwarded_before: self.forwarded_before,
            claims_grpc: self.claims_grpc,
            is_read: self.is_read,
        }
    }

    fn gets_no_body(&self) -> bool {
        self.method == Method::Head
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The one parameter of the route's query that counts.
fn parameter(route: Route, path: &[u8]) -> Parameter<'_> {
    let wanted: &[u8] = match route {
        Route::Flags => b"feature",
        Route::Identities => b"identifier",
        Route::Document => return Parameter::Absent,
    };
    let mut found = Parameter::Absent;
    for pair in split_query(path).1.split(|byte| *byte == b'&') {
        let (name, value) = split_at_byte(pair, b'=');
        if *decode(name) != *wanted || pair.is_empty() {
            continue;
        }
        if found != Parameter::Absent {
            return Parameter::Repeated;
        }
        found = Parameter::Value(match decode(value) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        });
    }
    found
}

/// `application/json` or `application/*+json`, with or without parameters.
fn is_json(value: &[u8]) -> bool {
    let essence = split_at_byte(value, b';').0.trim_ascii();
    let essence = essence.to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix(b"application/") else {
        return false;
    };
    subtype == b"json" || (subtype.len() > 5 && subtype.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read<'a>(path: &'a str, fields: &'a [(&'a str, &'a str)]) -> FlagsmithRequest<'a> {
        let route = Route::of(path.as_bytes()).unwrap();
        let path = [(":method", "GET"), (":path", path)];
        let fields = path.into_iter().chain(fields.iter().copied());
        let fields: Vec<_> = fields
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        FlagsmithRequest::parse(route, fields.into_iter())
    }

    #[test]
    fn slashes_at_the_ends_of_a_path_do_not_matter_and_all_else_does() {
        for (path, route) in [
            ("/api/v1/flags", Some(Route::Flags)),
            ("/api/v1/flags/", Some(Route::Flags)),
            ("//api/v1/flags//", Some(Route::Flags)),
            ("/api/v1/identities/?identifier=a/", Some(Route::Identities)),
            ("/api/v1/environment-document", Some(Route::Document)),
            ("/api/v1/Flags", None),
            ("/api/v1//flags", None),
            ("/api/v1/flags/x", None),
            ("/api/v1/segments/", None),
            ("/", None),
            ("", None),
            ("/flags/definitions", None),
        ] {
            assert_eq!(Route::of(path.as_bytes()), route, "{path}");
        }
    }

    #[test]
    fn a_key_is_the_first_one_and_visible_ascii() {
        let key = |fields: &[(&str, &str)]| {
            let request = read("/api/v1/flags", fields);
            request
                .key
                .map(|key| String::from_utf8(key.into_owned()).unwrap())
        };
        let name = "x-environment-key";
        assert_eq!(key(&[]), None);
        assert_eq!(key(&[(name, "")]), None);
        assert_eq!(key(&[(name, "a b")]), None);
        assert_eq!(key(&[(name, "kéy")]), None);
        assert_eq!(key(&[(name, "a"), (name, "b")]).as_deref(), Some("a"));
        assert_eq!(
            key(&[(name, ""), (name, "b")]),
            None,
            "the first one counts"
        );
    }

    #[test]
    fn a_parameter_is_decoded_and_stands_there_once() {
        let value = |text: &'static str| Parameter::Value(Cow::Borrowed(text));
        for (query, expected) in [
            ("", Parameter::Absent),
            ("?", Parameter::Absent),
            ("?feature", value("")),
            ("?feature=", value("")),
            ("?feature=a+b%20c", value("a b c")),
            ("?x=1&feature=%ff", value("\u{fffd}")),
            ("?f%65ature=x", value("x")),
            ("?feature=a&feature=a", Parameter::Repeated),
            ("?Feature=a", Parameter::Absent),
        ] {
            let path = format!("/api/v1/flags{query}");
            assert_eq!(read(&path, &[]).parameter, expected, "{query}");
        }
    }

    #[test]
    fn content_types_that_are_json() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("application/+json", false),
            ("application/jsonx", false),
            ("text/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn gzip_has_to_be_named() {
        for (value, expected) in [
            ("gzip, deflate, br", true),
            ("gzip;q=0", false),
            ("*", false),
            ("br", false),
            ("deflate, GZIP;q=0.1", true),
        ] {
            let fields = [("accept-encoding", value)];
            let request = read("/api/v1/flags", &fields);
            assert_eq!(request.accepts_gzip, expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_that_can_be_kept(
            path in proptest::collection::vec(any::<u8>(), 0..60),
            value in proptest::collection::vec(any::<u8>(), 0..60),
            name in 0usize..10,
        ) {
            let names: [&[u8]; 10] = [
                b":method", b":path", b"x-environment-key", b"content-type", b"content-length",
                b"if-none-match", b"accept-encoding", b"origin",
                b"access-control-request-headers", b"if-modified-since",
            ];
            let fields = [(&b":path"[..], &path[..]), (names[name], &value[..])];
            for route in [Route::Flags, Route::Identities, Route::Document] {
                let request = FlagsmithRequest::parse(route, fields.into_iter());
                let weight = request.weight();
                let kept = request.clone().into_owned();
                prop_assert_eq!(kept.weight(), weight);
                prop_assert_eq!(&kept, &request);
            }
        }
    }
}
