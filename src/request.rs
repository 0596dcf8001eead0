//! What a request asks: route, method, token, credential, validators.
//!
//! Header values are bytes of any kind. Secrets are hashed here and their text goes no further.

use crate::definitions::IfNoneMatch;
use crate::directory::Sha256Hash;

/// Set on a request that goes to the upstream; says why. A request that carries it already came through
/// here, so it is not forwarded again.
pub const FORWARD_REASON_HEADER: &str = "x-flag-definitions-forward-reason";

/// Longest token that is looked up, in bytes; PostHog's have about 50.
const MAX_SECRET: usize = 200;

/// The paths that the filter answers, without query.
pub const PATHS: [&[u8]; 4] = [
    b"/flags/definitions",
    b"/flags/definitions/",
    b"/api/feature_flag/local_evaluation",
    b"/api/feature_flag/local_evaluation/",
];

/// Whether the filter answers this `:path`. The match is exact: no decoding, no case folding.
pub fn is_ours(path: &[u8]) -> bool {
    let (path, _) = split_query(path);
    PATHS.contains(&path)
}

/// Request methods that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

/// The project token of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// No `token` parameter.
    Absent,
    /// A `token` that can be known.
    Hash(Sha256Hash),
    /// A `token` that is longer than any: unknown without looking.
    Oversized,
    /// Two `token` parameters: whose definitions are asked for cannot be told.
    Repeated,
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
}

/// What CORS answers mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `origin`.
    pub origin: Option<Vec<u8>>,
    /// `access-control-request-headers`.
    pub request_headers: Option<Vec<u8>>,
}

/// A parsed request to one of [`PATHS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its project token.
    pub token: Token,
    /// Its credential.
    pub bearer: Option<Bearer>,
    /// What the client already holds.
    pub if_none_match: IfNoneMatch,
    /// What CORS answers mirror.
    pub cors: Cors,
    /// Whether it was forwarded by this filter before.
    pub forwarded_before: bool,
}

impl Request {
    /// Reads a request from its headers, pseudo-headers included, in order.
    pub fn parse<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut request = Self {
            method: Method::Other,
            token: Token::Absent,
            bearer: None,
            if_none_match: IfNoneMatch::default(),
            cors: Cors::default(),
            forwarded_before: false,
        };
        let mut authorization = None;
        for (name, value) in headers {
            match name {
                b":method" => request.method = Method::parse(value),
                b":path" => request.token = Token::parse(split_query(value).1),
                // Of repeated fields PostHog's service reads the first.
                b"authorization" => authorization = authorization.or(Some(value)),
                b"if-none-match" => request.if_none_match.add(value),
                b"origin" => keep_first(&mut request.cors.origin, value),
                b"access-control-request-headers" => {
                    keep_first(&mut request.cors.request_headers, value);
                }
                name if name == FORWARD_REASON_HEADER.as_bytes() => request.forwarded_before = true,
                _ => {}
            }
        }
        request.bearer = authorization.and_then(Bearer::parse);
        request
    }

    /// Bytes that keeping it costs, beyond its own size.
    pub fn weight(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        self.if_none_match.len() + length(&self.cors.origin) + length(&self.cors.request_headers)
    }
}

impl Method {
    fn parse(value: &[u8]) -> Self {
        match value {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

impl Bearer {
    /// Reads an `Authorization` field: exactly `Bearer ` and a credential. Everything else, bytes outside
    /// visible ASCII included, is no credential rather than a wrong one, as in PostHog's service.
    fn parse(value: &[u8]) -> Option<Self> {
        if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            return None;
        }
        let secret = value.strip_prefix(b"Bearer ")?.trim_ascii();
        if secret.is_empty() {
            return None;
        }
        let kind = if secret.starts_with(b"phs_") {
            BearerKind::Secret
        } else {
            BearerKind::Personal
        };
        Some(Self {
            kind,
            hash: Sha256Hash::of(secret),
        })
    }
}

impl Token {
    /// Reads the `token` parameter of a query (WHATWG URL §5.1, `application/x-www-form-urlencoded`).
    fn parse(query: &[u8]) -> Self {
        let mut token = Self::Absent;
        for pair in query.split(|byte| *byte == b'&') {
            let (name, value) = split_at_byte(pair, b'=');
            // Few names have an escape in them, and none needs one.
            let named = name == b"token" || (name.contains(&b'%') && decode(name) == b"token");
            if !named {
                continue;
            }
            if token != Self::Absent {
                return Self::Repeated;
            }
            // An escape takes three bytes, so what is longer than this is oversized once decoded, too.
            token = if value.len() > 3 * MAX_SECRET {
                Self::Oversized
            } else {
                let value = decode(value);
                if value.len() > MAX_SECRET {
                    Self::Oversized
                } else {
                    Self::Hash(Sha256Hash::of(&value))
                }
            };
        }
        token
    }
}

fn keep_first(slot: &mut Option<Vec<u8>>, value: &[u8]) {
    if slot.is_none() {
        *slot = Some(value.to_vec());
    }
}

fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    split_at_byte(path, b'?')
}

fn split_at_byte(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == separator) {
        None => (bytes, &[]),
        Some(at) => (
            bytes.get(..at).unwrap_or_default(),
            bytes.get(at + 1..).unwrap_or_default(),
        ),
    }
}

/// Percent-decodes; `+` is a blank, and an incomplete escape stands for itself.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return out,
            [b'+', tail @ ..] => {
                out.push(b' ');
                tail
            }
            [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn get(path: &str, headers: &[(&str, &str)]) -> Request {
        let pseudo = [(":method", "GET"), (":path", path)];
        Request::parse(
            pseudo
                .iter()
                .chain(headers)
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
    }

    fn token(query: &str) -> Token {
        get(&format!("/flags/definitions{query}"), &[]).token
    }

    fn hash(text: &str) -> Token {
        Token::Hash(Sha256Hash::of(text.as_bytes()))
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
    fn tokens() {
        for (query, expected) in [
            ("", Token::Absent),
            ("?", Token::Absent),
            ("?send_cohorts", Token::Absent),
            ("?Token=x", Token::Absent),
            ("?token=phc_a&send_cohorts", hash("phc_a")),
            ("?send_cohorts=true&token=phc_a", hash("phc_a")),
            ("?token=", hash("")),
            ("?token", hash("")),
            ("?token=a%62c", hash("abc")),
            ("?tok%65n=abc", hash("abc")),
            ("?token=a+b", hash("a b")),
            ("?token=%", hash("%")),
            ("?token=%zz", hash("%zz")),
            ("?token=%e", hash("%e")),
            ("?token=a=b", hash("a=b")),
            ("?token=a?b", hash("a?b")),
            ("?token=a&token=a", Token::Repeated),
            ("?token=a&x&token=b", Token::Repeated),
        ] {
            assert_eq!(token(query), expected, "{query}");
        }
        assert_eq!(
            token(&format!("?token={}", "a".repeat(50_000))),
            Token::Oversized
        );
        assert_eq!(
            token(&format!("?token={}", "a".repeat(201))),
            Token::Oversized
        );
        assert_eq!(
            token(&format!("?token={}", "%61".repeat(200))),
            hash(&"a".repeat(200))
        );
    }

    #[test]
    fn credentials() {
        let bearer = |value: &str| get("/", &[("authorization", value)]).bearer;
        let some = |kind, text: &str| {
            Some(Bearer {
                kind,
                hash: Sha256Hash::of(text.as_bytes()),
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
    fn methods_are_case_sensitive() {
        for (name, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("OPTIONS", Method::Options),
            ("POST", Method::Other),
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
                ]), prop::collection::vec(any::<u8>(), 0..60)),
                0..8)
        ) {
            let _ = Request::parse(headers.iter().map(|(name, value)| (name.as_bytes(), &value[..])));
        }

        #[test]
        fn any_token_is_found_however_it_is_escaped(text in "[ -~]{1,40}", escape in any::<u64>()) {
            let query: String = text
                .bytes()
                .enumerate()
                .map(|(index, byte)| {
                    let plain = byte.is_ascii_alphanumeric() && escape >> (index % 64) & 1 == 0;
                    if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
                })
                .collect();
            prop_assert_eq!(token(&format!("?token={query}")), hash(&text));
        }
    }
}
