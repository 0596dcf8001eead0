//! What a request asks: route, flag, selection, key, validators, and what its header fields say of the context.

use std::borrow::Cow;

use crate::http::query::{decode, owned, split_at_byte, split_query, unescape};
use crate::http::{AcceptEncoding, Cors, IfNoneMatch, Method};
use crate::surfaces::{FORWARD_REASON_HEADER, SurfaceRequest};

/// All flags; one flag stands below it.
const FLAGS: &[u8] = b"/ofrep/v1/evaluate/flags";

/// What is to be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluand<'a> {
    /// All flags of the selection.
    Flags,
    /// The flag with this key.
    Flag(Cow<'a, str>),
    /// A path below those of flags that names none: flagd's router knows one segment, percent-decoded before it is routed.
    Nothing,
}

impl<'a> Evaluand<'a> {
    /// What a `:path` names; `None`: it is not one of OFREP's. Letter case counts.
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::ofrep::request::Evaluand;
    /// let flags = "/ofrep/v1/evaluate/flags";
    /// let of = |rest: &str| Evaluand::of(format!("{flags}{rest}").as_bytes()).map(Evaluand::into_owned);
    /// assert_eq!(of("/"), Some(Evaluand::Flags));
    /// assert_eq!(of("/a%20b?x"), Some(Evaluand::Flag("a b".into())));
    /// assert_eq!(of("/a%2Fb"), Some(Evaluand::Nothing), "a key with a slash cannot be asked for");
    /// assert_eq!(of("x"), None);
    /// ```
    pub fn of(path: &'a [u8]) -> Option<Self> {
        let below = split_query(path).0.strip_prefix(FLAGS)?;
        let segment = match below {
            b"" | b"/" => return Some(Self::Flags),
            [b'/', segment @ ..] => segment,
            _ => return None,
        };
        let key = match unescape(segment, b'+') {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
        let key = key.filter(|key| !key.contains('/'));
        Some(key.map_or(Self::Nothing, Self::Flag))
    }

    /// The same, kept beyond its request.
    pub fn into_owned(self) -> Evaluand<'static> {
        match self {
            Self::Flags => Evaluand::Flags,
            Self::Flag(key) => Evaluand::Flag(Cow::Owned(key.into_owned())),
            Self::Nothing => Evaluand::Nothing,
        }
    }

    /// The key of one flag.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Flag(key) => Some(key),
            Self::Flags | Self::Nothing => None,
        }
    }
}

/// A request, borrowed from the header map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfrepRequest<'a> {
    /// What is to be evaluated.
    pub evaluand: Evaluand<'a>,
    /// Its method.
    pub method: Method,
    /// `flagd-selector`; the first one counts.
    pub selector: Option<Cow<'a, [u8]>>,
    /// The token of `authorization: Bearer`, or else `x-api-key`.
    pub key: Option<Cow<'a, [u8]>>,
    /// Values of the header fields that go into the context, each with the place of its field among those that do.
    pub mapped: Vec<(usize, Cow<'a, [u8]>)>,
    /// `content-length`.
    pub content_length: Option<u64>,
    /// What the client holds.
    pub if_none_match: IfNoneMatch<'a>,
    /// `flagConfigEtag` of the query: an answer is 200 when it is not current, whatever the client holds.
    pub config_etag: Option<Cow<'a, [u8]>>,
    /// Whether gzip may be sent.
    pub accepts_gzip: bool,
    /// What CORS mirrors.
    pub cors: Cors<'a>,
    /// Whether a browser asks what it may send to another origin.
    pub is_preflight: bool,
    /// Whether it came through here before.
    pub forwarded_before: bool,
    /// Whether it says that it is gRPC.
    pub claims_grpc: bool,
    /// Whether its header fields could be read.
    pub is_read: bool,
}

impl<'a> OfrepRequest<'a> {
    /// A request for this of which nothing else was read.
    pub fn unread(evaluand: Evaluand<'a>) -> Self {
        Self {
            evaluand,
            method: Method::Other,
            selector: None,
            key: None,
            mapped: Vec::new(),
            content_length: None,
            if_none_match: IfNoneMatch::default(),
            config_etag: None,
            accepts_gzip: false,
            cors: Cors::default(),
            is_preflight: false,
            forwarded_before: false,
            claims_grpc: false,
            is_read: false,
        }
    }

    /// Reads the header fields, pseudo-headers included, in order. `mapped` has the names of those that go into the context,
    /// in lower case.
    pub fn parse(
        evaluand: Evaluand<'a>,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        mapped: &[&[u8]],
    ) -> Self {
        let mut request = Self::unread(evaluand);
        request.is_read = true;
        let mut accepts = AcceptEncoding::default();
        let (mut bearer, mut api_key) = (None, None);
        for (name, value) in fields {
            match name {
                b":method" => request.method = Method::parse(value),
                b":path" => request.config_etag = config_etag(value),
                b"flagd-selector" => {
                    request.selector.get_or_insert(Cow::Borrowed(value));
                }
                b"authorization" => bearer = bearer_token(value),
                b"x-api-key" => api_key = Some(value),
                b"content-type" => request.claims_grpc = crate::http::is_grpc(value),
                b"content-length" => {
                    let text = std::str::from_utf8(value).ok();
                    request.content_length = text.and_then(|text| text.parse().ok());
                }
                b"if-none-match" => request.if_none_match.add(value),
                b"accept-encoding" => accepts.add(value),
                b"origin" => request.cors.origin = Some(Cow::Borrowed(value)),
                b"access-control-request-method" => {
                    request.cors.request_method = Some(Cow::Borrowed(value));
                }
                b"access-control-request-headers" => {
                    request.cors.request_headers = Some(Cow::Borrowed(value));
                }
                name if name == FORWARD_REASON_HEADER.as_bytes() => {
                    request.forwarded_before = true;
                }
                _ => {}
            }
            // Of fields with one name the first counts, as Go's `Header.Get` has it.
            if let Some(place) = mapped.iter().position(|wanted| *wanted == name)
                && request.mapped.iter().all(|(own, _)| *own != place)
            {
                request.mapped.push((place, Cow::Borrowed(value)));
            }
        }
        // An empty value does not take the place of what the body says.
        request.mapped.retain(|(_, value)| !value.is_empty());
        // Of two that become one member the client's order decides nothing.
        request.mapped.sort_unstable_by_key(|(place, _)| *place);
        request.accepts_gzip = accepts.prefers_gzip();
        let key = bearer.or(api_key).filter(|key| !key.is_empty());
        request.key = key.map(Cow::Borrowed);
        request.is_preflight = request.method == Method::Options
            && request.cors.origin.is_some()
            && request.cors.request_method.is_some();
        request
    }
}

impl SurfaceRequest for OfrepRequest<'_> {
    type Owned = OfrepRequest<'static>;

    fn weight(&self) -> usize {
        let length = |value: &Option<Cow<'_, [u8]>>| value.as_ref().map_or(0, |value| value.len());
        let mapped = self.mapped.iter();
        let mapped = mapped.map(|(_, value)| size_of::<(usize, Cow<'_, [u8]>)>() + value.len());
        self.evaluand.key().map_or(0, str::len)
            + length(&self.selector)
            + length(&self.key)
            + mapped.sum::<usize>()
            + self.if_none_match.len()
            + length(&self.config_etag)
            + length(&self.cors.origin)
            + length(&self.cors.request_headers)
            + length(&self.cors.request_method)
    }

    fn into_owned(self) -> Self::Owned {
        let mapped = self.mapped.into_iter();
        OfrepRequest {
            evaluand: self.evaluand.into_owned(),
            method: self.method,
            selector: self.selector.map(owned),
            key: self.key.map(owned),
            mapped: mapped.map(|(place, value)| (place, owned(value))).collect(),
            content_length: self.content_length,
            if_none_match: self.if_none_match.into_owned(),
            config_etag: self.config_etag.map(owned),
            accepts_gzip: self.accepts_gzip,
            cors: self.cors.into_owned(),
            is_preflight: self.is_preflight,
            forwarded_before: self.forwarded_before,
            claims_grpc: self.claims_grpc,
            is_read: self.is_read,
        }
    }

    fn gets_no_body(&self) -> bool {
        self.method == Method::Head
    }
}

/// The token of `Bearer` (RFC 6750 §2.1); the scheme is read without regard to case (RFC 9110 §11.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = split_at_byte(value, b' ');
    scheme
        .eq_ignore_ascii_case(b"bearer")
        .then(|| token.trim_ascii())
}

fn config_etag(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let pairs = split_query(path).1.split(|byte| *byte == b'&');
    let mut pairs = pairs.map(|pair| split_at_byte(pair, b'='));
    let (_, value) = pairs.find(|(name, _)| *decode(name) == *b"flagConfigEtag")?;
    Some(decode(value)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PATH: &str = "/ofrep/v1/evaluate/flags";

    fn read<'a>(path: &'a str, fields: &[(&'a str, &'a str)]) -> OfrepRequest<'a> {
        let path = (&b":path"[..], path.as_bytes());
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let evaluand = Evaluand::of(path.1).unwrap();
        let mapped: [&[u8]; 2] = [b"x-os", b"x-plan"];
        OfrepRequest::parse(evaluand, [path].into_iter().chain(fields), &mapped)
    }

    #[test]
    fn a_path_names_all_flags_one_or_none() {
        for (rest, expected) in [
            ("", Some(Evaluand::Flags)),
            ("/", Some(Evaluand::Flags)),
            ("?a=/b", Some(Evaluand::Flags)),
            ("/a+b", Some(Evaluand::Flag("a+b".into()))),
            ("/%C3%A9%3f", Some(Evaluand::Flag("é?".into()))),
            ("/a%2", Some(Evaluand::Flag("a%2".into()))),
            ("/a/b", Some(Evaluand::Nothing)),
            ("/a/", Some(Evaluand::Nothing)),
            ("//", Some(Evaluand::Nothing)),
            ("/%ff", Some(Evaluand::Nothing)),
            ("x", None),
        ] {
            let path = format!("{PATH}{rest}");
            assert_eq!(Evaluand::of(path.as_bytes()), expected, "{path}");
        }
        for path in [
            "",
            "/",
            "/ofrep/v1/evaluate",
            "/OFREP/v1/evaluate/flags",
            "//ofrep/v1/evaluate/flags",
        ] {
            assert_eq!(Evaluand::of(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn a_key_is_a_bearer_token_or_else_an_api_key() {
        let key = |fields: &[(&str, &str)]| {
            let key = read(PATH, fields).key?;
            Some(String::from_utf8(key.into_owned()).unwrap())
        };
        for (fields, expected) in [
            (&[][..], None),
            (&[("authorization", "Bearer a")], Some("a")),
            (&[("authorization", "bEARER  a ")], Some("a")),
            (&[("authorization", "Basic a")], None),
            (&[("authorization", "Bearer")], None),
            (&[("x-api-key", "b")], Some("b")),
            (&[("x-api-key", "")], None),
            (
                &[("x-api-key", "b"), ("authorization", "Bearer a")],
                Some("a"),
            ),
            (
                &[("x-api-key", "b"), ("authorization", "Basic a")],
                Some("b"),
            ),
        ] {
            assert_eq!(key(fields).as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn fields_that_go_into_the_context_come_with_their_place_and_empty_ones_do_not() {
        let fields = [("x-plan", "pro"), ("x-os", ""), ("x-other", "a")];
        let request = read(PATH, &fields);
        assert_eq!(request.mapped, [(1, Cow::Borrowed(&b"pro"[..]))]);
        let os = (0, Cow::Borrowed(&b"web"[..]));
        for fields in [[fields[0], ("x-os", "web")], [("x-os", "web"), fields[0]]] {
            let request = read(PATH, &fields);
            assert_eq!(request.mapped, [os.clone(), (1, Cow::Borrowed(b"pro"))]);
        }
    }

    #[test]
    fn of_fields_with_one_name_the_first_counts() {
        let fields = [
            ("flagd-selector", "a"),
            ("x-os", "web"),
            ("flagd-selector", "b"),
            ("x-os", "tv"),
        ];
        let request = read(PATH, &fields);
        assert_eq!(request.selector.as_deref(), Some(&b"a"[..]));
        assert_eq!(request.mapped, [(0, Cow::Borrowed(&b"web"[..]))]);
        // An empty one as well.
        let request = read(
            PATH,
            &[("x-os", ""), ("x-os", "tv"), ("flagd-selector", "")],
        );
        assert_eq!(
            (request.mapped, request.selector.as_deref()),
            (vec![], Some(&b""[..]))
        );
    }

    #[test]
    fn a_configuration_tag_is_decoded() {
        let tag = |query: &str| {
            read(&format!("{PATH}{query}"), &[])
                .config_etag
                .map(Cow::into_owned)
        };
        assert_eq!(
            tag("?flagConfigEtag=%22a%22&x").as_deref(),
            Some(&b"\"a\""[..])
        );
        assert_eq!(tag("?x&flagConfigEtag="), None);
        assert_eq!(tag(""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_that_can_be_kept(
            path in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..40),
            name in 0usize..11,
        ) {
            let names: [&[u8]; 11] = [
                b":method", b":path", b"flagd-selector", b"authorization", b"x-api-key", b"content-length",
                b"if-none-match", b"accept-encoding", b"origin", b"access-control-request-headers", b"x-os",
            ];
            let path = [FLAGS, b"/", &path].concat();
            let fields = [(&b":path"[..], &path[..]), (names[name], &value[..])];
            let evaluand = Evaluand::of(&path).unwrap();
            let request = OfrepRequest::parse(evaluand, fields.into_iter(), &[b"x-os"]);
            let weight = request.weight();
            let kept = request.clone().into_owned();
            prop_assert_eq!(kept.weight(), weight);
            prop_assert_eq!(&kept, &request);
        }
    }
}
