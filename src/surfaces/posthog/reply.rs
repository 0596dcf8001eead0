//! Every answer the filter can give, as data: status, headers, body.

use std::rc::Rc;

use crate::http::{Cors, ETag};
use crate::surfaces::posthog::definitions::Full;

/// Why a request could not be decided or served here. Becomes a 503, or the reason of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No snapshot was loaded yet.
    SnapshotMissing,
    /// The snapshot is too old to decide anything.
    SnapshotExpired,
    /// The snapshot is too old to refuse anybody.
    SnapshotAging,
    /// The snapshot does not know the token or credential.
    UnknownCredential,
    /// Shared data failed, or holds what cannot be read.
    SharedData,
    /// Redis or its gateway is away, or answers nonsense.
    Redis,
    /// Redis did not answer in time.
    Timeout,
    /// The object store is away, or answers nonsense.
    ObjectStore,
    /// Too many requests of this worker wait already.
    Overloaded,
    /// The request was forwarded before and came back.
    Loop,
}

impl Why {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::SnapshotMissing,
        Self::SnapshotExpired,
        Self::SnapshotAging,
        Self::UnknownCredential,
        Self::SharedData,
        Self::Redis,
        Self::Timeout,
        Self::ObjectStore,
        Self::Overloaded,
        Self::Loop,
    ];

    /// Name in metrics, logs and the forward header.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SnapshotMissing => "snapshot_missing",
            Self::SnapshotExpired => "snapshot_expired",
            Self::SnapshotAging => "snapshot_aging",
            Self::UnknownCredential => "unknown_credential",
            Self::SharedData => "shared_data",
            Self::Redis => "redis",
            Self::Timeout => "timeout",
            Self::ObjectStore => "object_store",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
        }
    }
}

/// What is answered. The labels of `flag_definitions_answers_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with the payload.
    Definitions,
    /// 200 with the payload and without an ETag: a quota period's end lies ahead (`definitions::latch`).
    QuotaEndPending,
    /// 304.
    NotModified,
    /// 200 to HEAD; its content type is set when the reply is on its way (`host::stream`).
    Head,
    /// 200 to OPTIONS.
    Preflight,
    /// 400: no token, and a bearer that brings none.
    TokenRequired,
    /// 400: two tokens.
    TokenRepeated,
    /// 401: no credential.
    NotAuthenticated,
    /// 401: a secret key that may not read.
    SecretInvalid,
    /// 401: a personal key that may not read.
    PersonalInvalid,
    /// 401: a token that no team has.
    TokenInvalid,
    /// 403: a personal key without the scope.
    ScopeMissing,
    /// 402: the team's quota is used up.
    QuotaLimited,
    /// 405.
    MethodNotAllowed,
    /// 415: the request says that it is gRPC; its status is set when the reply is on its way (`host::stream`).
    UnsupportedMediaType,
    /// 429: the team asks too often.
    RateLimited,
    /// 429: too many credentials that are not known here.
    LookupLimited,
    /// 500: a payload that cannot be read.
    Undecodable,
    /// 500: a payload above `definitions.max_bytes`.
    TooBig,
    /// 503: there is no payload.
    PayloadMissing,
    /// 503: something that is needed is away.
    Unavailable(Why),
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const UNAVAILABLE: &str = "A service dependency is temporarily unavailable. This is likely a temporary issue. Please try again later.";
const TIMED_OUT: &str = "The request timed out. This could be due to high load or network issues. Please try again later.";
const INTERNAL: &str = "An internal server error occurred. Please try again later or contact support if the problem persists.";

impl Answer {
    /// All answers but [`Answer::Unavailable`], in the order of their numbers.
    const DECIDED: [Self; 20] = [
        Self::Definitions,
        Self::NotModified,
        Self::Head,
        Self::Preflight,
        Self::TokenRequired,
        Self::TokenRepeated,
        Self::NotAuthenticated,
        Self::SecretInvalid,
        Self::PersonalInvalid,
        Self::TokenInvalid,
        Self::ScopeMissing,
        Self::QuotaLimited,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::LookupLimited,
        Self::Undecodable,
        Self::TooBig,
        Self::PayloadMissing,
        Self::UnsupportedMediaType,
        Self::QuotaEndPending,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::DECIDED.len() + Why::ALL.len();

    /// All answers, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        let unavailable = Why::ALL.into_iter().map(Self::Unavailable);
        Self::DECIDED.into_iter().chain(unavailable)
    }

    /// A number below [`Answer::COUNT`].
    pub const fn number(self) -> usize {
        match self {
            Self::Definitions => 0,
            Self::NotModified => 1,
            Self::Head => 2,
            Self::Preflight => 3,
            Self::TokenRequired => 4,
            Self::TokenRepeated => 5,
            Self::NotAuthenticated => 6,
            Self::SecretInvalid => 7,
            Self::PersonalInvalid => 8,
            Self::TokenInvalid => 9,
            Self::ScopeMissing => 10,
            Self::QuotaLimited => 11,
            Self::MethodNotAllowed => 12,
            Self::RateLimited => 13,
            Self::LookupLimited => 14,
            Self::Undecodable => 15,
            Self::TooBig => 16,
            Self::PayloadMissing => 17,
            Self::UnsupportedMediaType => 18,
            Self::QuotaEndPending => 19,
            Self::Unavailable(why) => Self::DECIDED.len() + why as usize,
        }
    }

    /// HTTP status code.
    pub const fn status(self) -> u16 {
        match self {
            Self::Definitions | Self::QuotaEndPending | Self::Head | Self::Preflight => 200,
            Self::NotModified => 304,
            Self::TokenRequired | Self::TokenRepeated => 400,
            Self::NotAuthenticated
            | Self::SecretInvalid
            | Self::PersonalInvalid
            | Self::TokenInvalid => 401,
            Self::QuotaLimited => 402,
            Self::ScopeMissing => 403,
            Self::MethodNotAllowed => 405,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited | Self::LookupLimited => 429,
            Self::Undecodable | Self::TooBig => 500,
            Self::PayloadMissing | Self::Unavailable(_) => 503,
        }
    }

    /// Whether this refusal follows from what the snapshot says.
    pub const fn rests_on_snapshot(self) -> bool {
        matches!(
            self,
            Self::SecretInvalid | Self::PersonalInvalid | Self::TokenInvalid | Self::ScopeMissing
        )
    }

    /// Name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Definitions => "definitions",
            Self::QuotaEndPending => "quota_end_pending",
            Self::NotModified => "not_modified",
            Self::Head => "head",
            Self::Preflight => "preflight",
            Self::TokenRequired => "token_required",
            Self::TokenRepeated => "token_repeated",
            Self::NotAuthenticated => "not_authenticated",
            Self::SecretInvalid => "secret_invalid",
            Self::PersonalInvalid => "personal_invalid",
            Self::TokenInvalid => "token_invalid",
            Self::ScopeMissing => "scope_missing",
            Self::QuotaLimited => "quota_limited",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::LookupLimited => "lookup_limited",
            Self::Undecodable => "payload_undecodable",
            Self::TooBig => "payload_too_big",
            Self::PayloadMissing => "payload_missing",
            Self::Unavailable(why) => why.label(),
        }
    }

    /// Body, maybe empty, but for the payload of a 200.
    pub const fn body(self) -> &'static str {
        match self.content() {
            Some((_, body)) => body,
            None => "",
        }
    }

    /// `content-type` and body, but for the payload of a 200.
    const fn content(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Definitions
            | Self::QuotaEndPending
            | Self::NotModified
            | Self::Head
            | Self::Preflight
            | Self::MethodNotAllowed
            | Self::UnsupportedMediaType => return None,
            Self::TokenRequired => (
                TEXT,
                "The 'token' query parameter is required unless authenticating with a phs_-prefixed token.",
            ),
            Self::TokenRepeated => (
                TEXT,
                "Failed to deserialize query string: duplicate field `token`",
            ),
            Self::NotAuthenticated => (
                JSON,
                r#"{"type":"authentication_error","code":"not_authenticated","detail":"Authentication credentials were not provided.","attr":null}"#,
            ),
            Self::SecretInvalid => (
                JSON,
                r#"{"type":"authentication_error","code":"authentication_failed","detail":"Secret API token is invalid.","attr":null}"#,
            ),
            Self::PersonalInvalid => (
                JSON,
                r#"{"type":"authentication_error","code":"authentication_failed","detail":"Personal API key is invalid.","attr":null}"#,
            ),
            Self::TokenInvalid => (
                JSON,
                r#"{"type":"authentication_error","code":"authentication_failed","detail":"The provided API key is invalid or has expired. Please check your API key and try again.","attr":null}"#,
            ),
            Self::ScopeMissing => (
                JSON,
                r#"{"type":"authentication_error","code":"permission_denied","detail":"Personal API key lacks required scopes (feature_flag:read or feature_flag:write).","attr":null}"#,
            ),
            Self::QuotaLimited => (
                JSON,
                r#"{"type":"quota_limited","code":"payment_required","detail":"You have exceeded your feature flag request quota","attr":null}"#,
            ),
            Self::RateLimited | Self::LookupLimited => (
                JSON,
                r#"{"type":"validation_error","code":"rate_limit_exceeded","detail":"Rate limit exceeded","attr":null}"#,
            ),
            Self::Undecodable | Self::TooBig => (TEXT, INTERNAL),
            Self::PayloadMissing => (TEXT, UNAVAILABLE),
            Self::Unavailable(Why::Timeout) => (TEXT, TIMED_OUT),
            Self::Unavailable(_) => (TEXT, UNAVAILABLE),
        })
    }
}

/// What every answer depends on.
const VARY: &str = "origin, access-control-request-method, access-control-request-headers";

/// The same, where payloads may be in gzip form.
const VARY_BY_ENCODING: &str =
    "origin, access-control-request-method, access-control-request-headers, accept-encoding";

/// What an answer consists of. A payload is shared with whoever keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A fixed text, maybe empty.
    Fixed(&'static str),
    /// A payload's text.
    Text(Rc<Full>),
    /// Its gzip form.
    Gzip(Rc<Vec<u8>>),
}

impl Body {
    /// Its bytes, as they are sent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(text) => text.as_bytes(),
            Self::Text(full) => &full.text,
            Self::Gzip(gzip) => gzip,
        }
    }
}

/// One answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it is.
    pub answer: Answer,
    /// Body, maybe empty.
    pub body: Body,
    etag: Option<ETag>,
    retry_after: Option<String>,
    varies_by_encoding: bool,
    cors: &'a Cors<'a>,
}

/// A header field's value, in up to three pieces, so that nothing has to be put together before it is sent.
pub type Value<'a> = [&'a [u8]; 3];

/// A value of one piece.
pub const fn whole(value: &[u8]) -> Value<'_> {
    [value, b"", b""]
}

/// Name and value of a header field.
pub type Field<'a> = (&'a str, Value<'a>);

/// How many fields there are. No answer has all of them.
const FIELDS: usize = 11;

impl<'a> Reply<'a> {
    /// An answer whose content is fixed, to a request with these CORS fields.
    pub fn fixed(answer: Answer, cors: &'a Cors<'a>) -> Self {
        Self {
            answer,
            body: Body::Fixed(answer.body()),
            etag: None,
            retry_after: None,
            varies_by_encoding: false,
            cors,
        }
    }

    /// 429, with the whole seconds after which trying again may help (RFC 9110 §10.2.3). PostHog's service
    /// sends no such field; it harms nobody.
    pub fn limited(answer: Answer, retry_after: u32, cors: &'a Cors<'a>) -> Self {
        Self {
            retry_after: Some(retry_after.to_string()),
            ..Self::fixed(answer, cors)
        }
    }

    /// 304: the client's version is current.
    pub fn not_modified(etag: ETag, cors: &'a Cors<'a>) -> Self {
        Self {
            etag: Some(etag),
            ..Self::fixed(Answer::NotModified, cors)
        }
    }

    /// 200 with a payload: its gzip form, or its text. The ETag is weak, so it is the same for both.
    pub fn definitions(full: &Rc<Full>, gzip: Option<Rc<Vec<u8>>>, cors: &'a Cors<'a>) -> Self {
        Self {
            body: gzip.map_or_else(|| Body::Text(Rc::clone(full)), Body::Gzip),
            etag: Some(full.etag.clone()),
            ..Self::fixed(Answer::Definitions, cors)
        }
    }

    /// The same 200 without an ETag: every SDK then forgets the one that it holds.
    pub fn without_etag(mut self) -> Self {
        self.answer = Answer::QuotaEndPending;
        self.etag = None;
        self
    }

    /// Notes that the payload may be in gzip form, now or another time. A 304 says so as well (RFC 9110 §15.4.5).
    pub fn varying_by_encoding(mut self) -> Self {
        self.varies_by_encoding = true;
        self
    }

    /// Whether the payload may be in gzip form.
    pub fn varies_by_encoding(&self) -> bool {
        self.varies_by_encoding
    }

    /// The entity tag of a 304, or of a 200 with a payload, to a client that is no browser: nothing else distinguishes
    /// its header fields from those of the last such answer. `None` for any other answer.
    pub fn frequent(&self) -> Option<&ETag> {
        let no_cors = self.cors.origin.is_none() && self.cors.request_headers.is_none();
        self.etag.as_ref().filter(|_| no_cors)
    }

    /// Header fields, in order; of those that some answers have only, `None`. `content-length` is Envoy's to add. The
    /// origin is mirrored, as PostHog does.
    pub fn headers(&self) -> [Option<Field<'_>>; FIELDS] {
        let content_type = match &self.body {
            Body::Fixed(_) => self.answer.content().map(|(content_type, _)| content_type),
            Body::Text(_) | Body::Gzip(_) => Some(JSON),
        };
        let allow = (self.answer == Answer::MethodNotAllowed).then_some("GET, OPTIONS, HEAD");
        let coding = matches!(self.body, Body::Gzip(_)).then_some("gzip");
        let etag = self.etag.as_ref().map(ETag::as_bytes);
        let caching = etag.map(|_| "private, must-revalidate");
        let vary = match self.varies_by_encoding {
            true => VARY_BY_ENCODING,
            false => VARY,
        };
        let text = |name, value: Option<&'static str>| field(name, value.map(str::as_bytes));
        [
            text("content-type", content_type),
            text("allow", allow),
            field(
                "retry-after",
                self.retry_after.as_deref().map(str::as_bytes),
            ),
            text("content-encoding", coding),
            etag.map(|etag| ("etag", [b"W/\"".as_slice(), etag, b"\""])),
            text("cache-control", caching),
            field("access-control-allow-origin", self.cors.origin.as_deref()),
            text("access-control-allow-credentials", Some("true")),
            text(
                "access-control-allow-methods",
                Some("GET,POST,OPTIONS,HEAD"),
            ),
            field(
                "access-control-allow-headers",
                self.cors.request_headers.as_deref(),
            ),
            text("vary", Some(vary)),
        ]
    }
}

fn field<'a>(name: &'static str, value: Option<&'a [u8]>) -> Option<Field<'a>> {
    Some((name, whole(value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Candidate, IfNoneMatch};
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NO_CORS: &Cors<'_> = &Cors {
        origin: None,
        request_headers: None,
    };

    fn full() -> Rc<Full> {
        Rc::new(Full {
            etag: ETag::new(b"abc").unwrap(),
            etag_stored: true,
            text: b"{}".to_vec(),
            billable: true,
        })
    }

    fn value(reply: &Reply<'_>, name: &str) -> Option<String> {
        let headers = reply.headers();
        let found: Vec<_> = headers
            .iter()
            .flatten()
            .filter(|(n, _)| *n == name)
            .collect();
        assert!(found.len() <= 1, "{name} twice");
        let pieces = found.first().map(|(_, value)| value.concat());
        pieces.map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn an_outage_is_never_401_or_402() {
        for why in Why::ALL {
            assert_eq!(Answer::Unavailable(why).status(), 503);
        }
    }

    #[test]
    fn error_bodies_are_json_with_their_keys_in_posthogs_order() {
        for answer in Answer::all().filter(|answer| matches!(answer.status(), 401..=403 | 429)) {
            let reply = Reply::fixed(answer, NO_CORS);
            let text = std::str::from_utf8(reply.body.bytes()).unwrap();
            let places: Vec<_> = [
                r#"{"type":"#,
                r#","code":"#,
                r#","detail":"#,
                r#","attr":null}"#,
            ]
            .iter()
            .map(|key| text.find(key).unwrap())
            .collect();
            assert!(places.is_sorted());
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
            assert_eq!(
                value(&reply, "content-type").as_deref(),
                Some("application/json")
            );
            assert_eq!(value(&reply, "www-authenticate").as_deref(), None);
        }
    }

    #[test]
    fn a_304_has_validators_and_no_content_type() {
        let etag = ETag::new(b"abc").unwrap();
        let reply = Reply::not_modified(etag, NO_CORS);
        assert_eq!(value(&reply, "etag").as_deref(), Some("W/\"abc\""));
        assert_eq!(
            value(&reply, "cache-control").as_deref(),
            Some("private, must-revalidate")
        );
        assert_eq!(value(&reply, "content-type").as_deref(), None);
        assert!(reply.body.bytes().is_empty());
    }

    #[test]
    fn a_429_says_when_to_try_again() {
        let reply = Reply::limited(Answer::RateLimited, 3, NO_CORS);
        assert_eq!(value(&reply, "retry-after").as_deref(), Some("3"));
        assert_eq!(reply.answer.status(), 429);
    }

    #[test]
    fn a_405_names_the_methods() {
        let reply = Reply::fixed(Answer::MethodNotAllowed, NO_CORS);
        assert_eq!(
            value(&reply, "allow").as_deref(),
            Some("GET, OPTIONS, HEAD")
        );
        assert!(reply.body.bytes().is_empty());
    }

    #[test]
    fn cors_mirrors_the_request() {
        let cors = Cors {
            origin: Some(b"https://app".into()),
            request_headers: Some(b"authorization".into()),
        };
        let reply = Reply::fixed(Answer::Preflight, &cors);
        for (name, expected) in [
            ("access-control-allow-origin", "https://app"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET,POST,OPTIONS,HEAD"),
            ("access-control-allow-headers", "authorization"),
            (
                "vary",
                "origin, access-control-request-method, access-control-request-headers",
            ),
        ] {
            assert_eq!(value(&reply, name).as_deref(), Some(expected), "{name}");
        }
        let plain = Reply::fixed(Answer::NotAuthenticated, NO_CORS);
        assert_eq!(
            value(&plain, "access-control-allow-origin").as_deref(),
            None
        );
        assert_eq!(
            value(&plain, "access-control-allow-credentials").as_deref(),
            Some("true")
        );
    }

    #[test]
    fn a_payload_has_one_etag_whatever_its_coding() {
        let full = full();
        let gzip = Rc::new(b"\x1f\x8b".to_vec());
        for (gzip, coding, body) in [
            (None, None, &b"{}"[..]),
            (Some(gzip), Some("gzip"), b"\x1f\x8b"),
        ] {
            let reply = Reply::definitions(&full, gzip, NO_CORS).varying_by_encoding();
            assert_eq!(value(&reply, "etag").as_deref(), Some("W/\"abc\""));
            assert_eq!(
                value(&reply, "content-type").as_deref(),
                Some("application/json")
            );
            assert_eq!(value(&reply, "content-encoding").as_deref(), coding);
            assert_eq!(value(&reply, "vary").as_deref(), Some(VARY_BY_ENCODING));
            assert_eq!(reply.body.bytes(), body);
        }
        let plain = Reply::definitions(&full, None, NO_CORS);
        assert_eq!(value(&plain, "vary").as_deref(), Some(VARY));
    }

    #[test]
    fn a_payload_without_an_etag_has_nothing_that_a_client_could_send_back() {
        let full = full();
        for gzip in [None, Some(Rc::new(b"\x1f\x8b".to_vec()))] {
            let with = Reply::definitions(&full, gzip.clone(), NO_CORS).varying_by_encoding();
            let without = with.clone().without_etag();
            assert_eq!((without.answer.status(), &without.body), (200, &with.body));
            assert_eq!(without.answer.label(), "quota_end_pending");
            assert!(without.frequent().is_none());
            for name in ["etag", "cache-control"] {
                assert!(value(&with, name).is_some());
                assert_eq!(value(&without, name), None);
            }
            for name in ["content-type", "content-encoding", "vary"] {
                assert_eq!(value(&without, name), value(&with, name));
            }
        }
    }

    #[test]
    fn fields_have_an_order() {
        let full = full();
        let browser = Cors {
            origin: Some(b"https://app".into()),
            request_headers: Some(b"authorization".into()),
        };
        let gzip = Some(Rc::new(Vec::new()));
        for (reply, expected) in [
            (
                Reply::fixed(Answer::MethodNotAllowed, NO_CORS),
                "allow, credentials, methods, vary",
            ),
            (
                Reply::limited(Answer::RateLimited, 1, NO_CORS),
                "content-type, retry-after, credentials, methods, vary",
            ),
            (
                Reply::not_modified(full.etag.clone(), NO_CORS),
                "etag, cache-control, credentials, methods, vary",
            ),
            (
                Reply::definitions(&full, gzip, &browser),
                "content-type, content-encoding, etag, cache-control, \
                 origin, credentials, methods, headers, vary",
            ),
        ] {
            let headers = reply.headers();
            let names = headers.iter().flatten().map(|(name, _)| *name);
            let names = names.map(|name| name.trim_start_matches("access-control-allow-"));
            assert_eq!(names.collect::<Vec<_>>().join(", "), expected);
        }
    }

    #[test]
    fn labels_are_unique() {
        let mut labels: Vec<_> = Answer::all().map(Answer::label).collect();
        labels.sort_unstable();
        let count = labels.len();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }

    proptest! {
        #[test]
        fn what_we_send_comes_back_as_a_match(text in "[A-Za-z0-9._-]{1,64}", weak in any::<bool>()) {
            let tag = ETag::new(text.as_bytes()).unwrap();
            let sent = value(&Reply::not_modified(tag.clone(), NO_CORS), "etag").unwrap();
            let mut list = IfNoneMatch::default();
            list.add(if weak { sent.as_bytes() } else { &sent.as_bytes()[2..] });
            prop_assert!(list.matches(&tag));
            prop_assert_eq!(list.candidate(), Some(Candidate::Tag(tag)));
        }
    }
}
