//! What a request asks: route, method, token, credential, validators, coding, and which client asks.
//!
//! Header values are bytes of any kind. Secrets are hashed here and their text goes no further; the public
//! project token alone is kept, because PostHog's own cache is keyed by it. All else is borrowed from the header map:
//! most requests are answered at once, and only one that has to wait is copied ([`Request::into_owned`]).

mod token;

pub use token::{ProjectToken, Token};

use std::borrow::Cow;

use crate::hash::{Hashed, Sha256Hash};
use crate::http::query::{owned, split_query};
use crate::http::{AcceptEncoding, Cors, IfNoneMatch, Method};
use crate::surfaces::{FORWARD_REASON_HEADER, SurfaceRequest};

/// The project token of a client that does not put it into the query, such as PostHog's Rust SDK.
const TOKEN_HEADER: &[u8] = b"x-posthog-project-api-key";

/// How much of a `user-agent` is kept, in bytes: an SDK names itself at the start.
const MAX_USER_AGENT: usize = 256;

/// The paths that the filter answers, without query.
pub const PATHS: [&[u8]; 4] = [
    b"/flags/definitions",
    b"/flags/definitions/",
    b"/api/feature_flag/local_evaluation",
    b"/api/feature_flag/local_evaluation/",
];

/// Whether the filter answers this `:path`. The match is exact: no decoding, no case folding.
///
/// ```
/// use flag_definitions_filter::surfaces::posthog::request::is_ours;
/// assert!(is_ours(b"/flags/definitions?token=phc_a"));
/// assert!(!is_ours(b"/flags/definitions/more?token=phc_a"));
/// ```
pub fn is_ours(path: &[u8]) -> bool {
    let (path, _) = split_query(path);
    PATHS.contains(&path)
}

/// What the prefix of a bearer credential says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerKind {
    /// `phs_…`: a team secret token or project secret key.
    Secret,
    /// Anything else: a personal API key.
    Personal,
}

/// A bearer credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// What it claims to be.
    pub kind: BearerKind,
    /// What it is found by.
    pub hash: Sha256Hash,
    /// Whether it may be looked up outside the snapshot, see [`Hashed`].
    pub plausible: bool,
}

/// What tells which SDK asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHeaders<'a> {
    /// The first `user-agent`, cut off after 256 bytes.
    pub user_agent: Option<Cow<'a, [u8]>>,
    /// Whether there was a `sec-fetch-mode` or `sec-fetch-site`: a browser.
    pub sec_fetch: bool,
}

/// A parsed request to one of [`PATHS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its method.
    pub method: Method,
    /// Its project token.
    pub token: Token<'a>,
    /// Its credential.
    pub bearer: Option<Bearer>,
    /// What the client already holds.
    pub if_none_match: IfNoneMatch<'a>,
    /// What CORS answers mirror.
    pub cors: Cors<'a>,
    /// Which client asks.
    pub client: ClientHeaders<'a>,
    /// Whether it takes an answer in gzip form.
    pub accepts_gzip: bool,
    /// Whether it was forwarded by this filter before.
    pub forwarded_before: bool,
    /// Whether its `content-type` is one of gRPC's ([`crate::http::is_grpc`]).
    pub claims_grpc: bool,
}

impl<'a> Request<'a> {
    /// A request of which nothing is known.
    pub fn unread() -> Self {
        Self {
            method: Method::Other,
            token: Token::Absent,
            bearer: None,
            if_none_match: IfNoneMatch::default(),
            cors: Cors::default(),
            client: ClientHeaders::default(),
            accepts_gzip: false,
            forwarded_before: false,
            claims_grpc: false,
        }
    }

    /// Reads a request from its headers, pseudo-headers included, in order.
    pub fn parse(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        Self::parse_with(headers, &mut Hashed::of)
    }

    /// The same, with a function that knows what a token or credential is known by.
    pub fn parse_with(
        headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        hash: &mut impl FnMut(&[u8]) -> Hashed,
    ) -> Self {
        let mut request = Self::unread();
        let mut accepted = AcceptEncoding::default();
        let mut authorization = None;
        let mut token_header = None;
        for (name, value) in headers {
            match name {
                b":method" => request.method = Method::parse(value),
                b":path" => request.token = Token::of_query(split_query(value).1, hash),
                // Of repeated fields PostHog's service reads the first.
                b"authorization" => authorization = authorization.or(Some(value)),
                TOKEN_HEADER => token_header = token_header.or(Some(value)),
                b"if-none-match" => request.if_none_match.add(value),
                b"accept-encoding" => accepted.add(value),
                b"origin" => keep_first(&mut request.cors.origin, value),
                b"access-control-request-headers" => {
                    keep_first(&mut request.cors.request_headers, value);
                }
                b"user-agent" => {
                    let kept = value.get(..MAX_USER_AGENT).unwrap_or(value);
                    keep_first(&mut request.client.user_agent, kept);
                }
                b"sec-fetch-mode" | b"sec-fetch-site" => request.client.sec_fetch = true,
                b"content-type" => request.claims_grpc |= crate::http::is_grpc(value),
                name if name == FORWARD_REASON_HEADER.as_bytes() => request.forwarded_before = true,
                _ => {}
            }
        }
        request.accepts_gzip = accepted.prefers_gzip();
        request.bearer = authorization.and_then(|value| Bearer::parse(value, hash));
        if request.token == Token::Absent {
            request.token =
                token_header.map_or(Token::Absent, |value| Token::of_header(value, hash));
        }
        request
    }
}

impl SurfaceRequest for Request<'_> {
    type Owned = Request<'static>;

    fn gets_no_body(&self) -> bool {
        self.method == Method::Head
    }

    fn weight(&self) -> usize {
        let length = |bytes: &Option<Cow<'_, [u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        self.if_none_match.len()
            + self.token.weight()
            + length(&self.cors.origin)
            + length(&self.cors.request_headers)
            + length(&self.client.user_agent)
    }

    fn into_owned(self) -> Request<'static> {
        Request {
            method: self.method,
            token: self.token.into_owned(),
            bearer: self.bearer,
            if_none_match: self.if_none_match.into_owned(),
            cors: self.cors.into_owned(),
            client: ClientHeaders {
                user_agent: self.client.user_agent.map(owned),
                sec_fetch: self.client.sec_fetch,
            },
            accepts_gzip: self.accepts_gzip,
            forwarded_before: self.forwarded_before,
            claims_grpc: self.claims_grpc,
        }
    }
}

impl Bearer {
    /// Reads an `Authorization` field: exactly `Bearer ` and a credential. Everything else, bytes outside
    /// visible ASCII included, is no credential rather than a wrong one, as in PostHog's service.
    fn parse(value: &[u8], hash: &mut impl FnMut(&[u8]) -> Hashed) -> Option<Self> {
        let secret = value.strip_prefix(b"Bearer ")?;
        let trimmed = secret.trim_ascii();
        if trimmed.is_empty() {
            return None;
        }
        let hashed = hash(trimmed);
        // What is plausible, and all there is, is visible.
        let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
        let is_text =
            (hashed.plausible && trimmed.len() == secret.len()) || secret.iter().all(visible);
        if !is_text {
            return None;
        }
        let kind = if trimmed.starts_with(b"phs_") {
            BearerKind::Secret
        } else {
            BearerKind::Personal
        };
        Some(Self {
            kind,
            hash: hashed.hash,
            plausible: hashed.plausible,
        })
    }
}

fn keep_first<'a>(slot: &mut Option<Cow<'a, [u8]>>, value: &'a [u8]) {
    slot.get_or_insert(Cow::Borrowed(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn get<'a>(path: &'a str, headers: &[(&'a str, &'a str)]) -> Request<'a> {
        let pseudo = [(":method", "GET"), (":path", path)];
        Request::parse(
            pseudo
                .iter()
                .chain(headers)
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    #[test]
    fn only_the_four_paths_are_ours() {
        for path in PATHS {
            assert!(is_ours(path));
            assert!(is_ours(&[path, b"?token=x"].concat()));
        }
        for path in [
            "",
            "/",
            "*",
            "/flags",
            "/flags/definitions//",
            "/flags/definitionsx",
            "/FLAGS/definitions",
            "/flags%2Fdefinitions",
            "/x/flags/definitions",
            "/api/feature_flag/local_evaluation/x",
        ] {
            assert!(!is_ours(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn credentials() {
        let bearer = |value: &str| get("/", &[("authorization", value)]).bearer;
        let some = |kind, text: &str| {
            Some(Bearer {
                kind,
                hash: Sha256Hash::of(text.as_bytes()),
                plausible: !text.contains(' '),
            })
        };
        for (value, expected) in [
            ("Bearer phs_a", some(BearerKind::Secret, "phs_a")),
            ("Bearer phx_a", some(BearerKind::Personal, "phx_a")),
            ("Bearer phc_a", some(BearerKind::Personal, "phc_a")),
            ("Bearer   phs_a \t", some(BearerKind::Secret, "phs_a")),
            ("Bearer a b", some(BearerKind::Personal, "a b")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Bearer    ", None),
            ("bearer phs_a", None),
            ("Bearer\tphs_a", None),
            ("BEARER phs_a", None),
            ("Basic phs_a", None),
            ("phs_a", None),
            (" Bearer phs_a", None),
            ("Bearer phs_é", None),
            ("Bearer phs_a\n", None),
            ("Bearer phs_a\r", None),
            ("Bearer \x0cphs_a", None),
            ("", None),
        ] {
            assert_eq!(bearer(value), expected, "{value:?}");
        }
    }

    #[test]
    fn of_repeated_authorization_fields_the_first_counts() {
        let request = get(
            "/",
            &[
                ("authorization", "Bearer phx_a"),
                ("authorization", "Bearer phx_b"),
            ],
        );
        assert_eq!(request.bearer.unwrap().hash, Sha256Hash::of(b"phx_a"));
    }

    #[test]
    fn a_token_header_counts_only_where_the_query_names_none() {
        fn token<'a>(path: &'a str, headers: &[(&'a str, &'a str)]) -> Token<'a> {
            get(path, headers).token
        }
        let named = |text| Token::Named(ProjectToken::of(str::as_bytes(text)));
        let header = |value| [("x-posthog-project-api-key", value)];
        let long = "a".repeat(201);
        for (path, value, expected) in [
            ("/", "phc_h", named("phc_h")),
            ("/?send_cohorts", " phc_h ", named("phc_h")),
            ("/?token=phc_q", "phc_h", named("phc_q")),
            ("/?token=a?b", "phc_h", named("a?b")),
            ("/?token=", "phc_h", named("")),
            ("/?token=a&token=b", "phc_h", Token::Repeated),
            ("/", "", Token::Absent),
            ("/", "a b", named("a b")),
            ("/", long.as_str(), Token::Oversized),
        ] {
            assert_eq!(
                token(path, &header(value)),
                expected,
                "{path} with {value:?}"
            );
        }
        let twice = [header("phc_a"), header("phc_b")].concat();
        assert_eq!(token("/", &twice), named("phc_a"));
    }

    #[test]
    fn what_tells_the_sdk_is_kept_and_weighed() {
        let empty = get("/", &[]);
        assert_eq!(empty.client, ClientHeaders::default());
        assert_eq!(empty.weight(), 0);
        let request = get("/", &[("user-agent", "a/1"), ("user-agent", "b/2")]);
        assert_eq!(request.client.user_agent.as_deref(), Some(&b"a/1"[..]));
        assert!(!request.client.sec_fetch);
        for name in ["sec-fetch-mode", "sec-fetch-site"] {
            assert!(get("/", &[(name, "")]).client.sec_fetch, "{name}");
        }
        let long = "x".repeat(5_000);
        let request = get("/?token=phc_a", &[("user-agent", &long)]);
        assert_eq!(request.client.user_agent.as_ref().unwrap().len(), 256);
        assert_eq!(request.weight(), 256 + "phc_a".len());
    }

    #[test]
    fn grpc_is_told_by_the_start_of_the_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web-text", true),
            ("Application/gRPC", true),
            ("application/json", false),
            ("application/grp", false),
            ("application/connect+proto", false),
            ("text/plain, application/grpc", false),
            ("", false),
        ] {
            let request = get("/", &[("content-type", content_type)]);
            assert_eq!(request.claims_grpc, expected, "{content_type}");
        }
        let twice = [
            ("content-type", "text/plain"),
            ("content-type", "application/grpc"),
        ];
        assert!(get("/", &twice).claims_grpc);
        assert!(!get("/", &[]).claims_grpc);
    }

    #[test]
    fn methods_are_case_sensitive() {
        for (name, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("OPTIONS", Method::Options),
            ("POST", Method::Post),
            ("get", Method::Other),
            ("", Method::Other),
        ] {
            let headers = [(&b":method"[..], name.as_bytes())];
            assert_eq!(Request::parse(headers).method, method, "{name}");
        }
    }

    #[test]
    fn a_secret_is_not_kept_in_clear() {
        let request = get(
            "/flags/definitions?token=phc_secret",
            &[("authorization", "Bearer phs_secret")],
        );
        let shown = format!("{request:?}");
        assert!(!shown.contains("secret\""), "{shown}");
        assert!(
            !shown.contains("phs_secret") && !shown.contains("phc_secret"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(
            headers in prop::collection::vec(
                (prop::sample::select(vec![
                    ":method", ":path", "authorization", "if-none-match", "origin",
                    "access-control-request-headers", FORWARD_REASON_HEADER, "x",
                    "x-posthog-project-api-key", "user-agent", "sec-fetch-mode", "accept-encoding",
                    "content-type",
                ]), prop::collection::vec(any::<u8>(), 0..60)),
                0..8)
        ) {
            let _ = Request::parse(headers.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
        }
    }
}
