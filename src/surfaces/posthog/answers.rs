//! Every answer that PostHog's clients can get: one table, a row for each.

use std::rc::Rc;

use super::definitions::Payload;
use crate::http::{Body, Cors, CorsProfile, ETag, Late, Response};
use crate::surfaces::Reason;
use crate::surfaces::table::answers;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const UNAVAILABLE: &str = "A service dependency is temporarily unavailable. This is likely a temporary issue. Please try again later.";
const TIMED_OUT: &str = "The request timed out. This could be due to high load or network issues. Please try again later.";
const INTERNAL: &str = "An internal server error occurred. Please try again later or contact support if the problem persists.";

/// What PostHog's service says of other origins.
const CORS: CorsProfile = CorsProfile {
    methods: Some("GET,POST,OPTIONS,HEAD"),
    allows_credentials: true,
    cache_control: Some("private, must-revalidate"),
    vary: "origin, access-control-request-method, access-control-request-headers",
    vary_by_encoding: "origin, access-control-request-method, access-control-request-headers, accept-encoding",
};

const fn unavailable(reason: Reason) -> Option<(&'static str, &'static str)> {
    Some((
        TEXT,
        match reason {
            Reason::Timeout => TIMED_OUT,
            _ => UNAVAILABLE,
        },
    ))
}

answers! {
    /// What is answered. The labels of `flag_definitions_answers_total`.
    Answer, unavailable: unavailable;

    /// 200 with the payload.
    Definitions: 200 "definitions" None,
    /// 304.
    NotModified: 304 "not_modified" None,
    /// 200 to HEAD; its content type is set when the reply is on its way.
    Head: 200 "head" None,
    /// 200 to OPTIONS.
    Preflight: 200 "preflight" None,
    /// 400: no token, and a bearer that brings none.
    TokenRequired: 400 "token_required" Some((
        TEXT,
        "The 'token' query parameter is required unless authenticating with a phs_-prefixed token.",
    )),
    /// 400: two tokens.
    TokenRepeated: 400 "token_repeated" Some((
        TEXT,
        "Failed to deserialize query string: duplicate field `token`",
    )),
    /// 401: no credential.
    NotAuthenticated: 401 "not_authenticated" Some((
        JSON,
        r#"{"type":"authentication_error","code":"not_authenticated","detail":"Authentication credentials were not provided.","attr":null}"#,
    )),
    /// 401: a secret key that may not read.
    SecretInvalid: 401 "secret_invalid" Some((
        JSON,
        r#"{"type":"authentication_error","code":"authentication_failed","detail":"Secret API token is invalid.","attr":null}"#,
    )),
    /// 401: a personal key that may not read.
    PersonalInvalid: 401 "personal_invalid" Some((
        JSON,
        r#"{"type":"authentication_error","code":"authentication_failed","detail":"Personal API key is invalid.","attr":null}"#,
    )),
    /// 401: a token that no team has.
    TokenInvalid: 401 "token_invalid" Some((
        JSON,
        r#"{"type":"authentication_error","code":"authentication_failed","detail":"The provided API key is invalid or has expired. Please check your API key and try again.","attr":null}"#,
    )),
    /// 403: a personal key without the scope.
    ScopeMissing: 403 "scope_missing" Some((
        JSON,
        r#"{"type":"authentication_error","code":"permission_denied","detail":"Personal API key lacks required scopes (feature_flag:read or feature_flag:write).","attr":null}"#,
    )),
    /// 402: the team's quota is used up.
    QuotaLimited: 402 "quota_limited" Some((
        JSON,
        r#"{"type":"quota_limited","code":"payment_required","detail":"You have exceeded your feature flag request quota","attr":null}"#,
    )),
    /// 405.
    MethodNotAllowed: 405 "method_not_allowed" None,
    /// 429: the team asks too often.
    RateLimited: 429 "rate_limited" Some((
        JSON,
        r#"{"type":"validation_error","code":"rate_limit_exceeded","detail":"Rate limit exceeded","attr":null}"#,
    )),
    /// 429: too many credentials that are not known here.
    LookupLimited: 429 "lookup_limited" Some((
        JSON,
        r#"{"type":"validation_error","code":"rate_limit_exceeded","detail":"Rate limit exceeded","attr":null}"#,
    )),
    /// 500: a payload that cannot be read.
    Undecodable: 500 "payload_undecodable" Some((TEXT, INTERNAL)),
    /// 500: a payload above `definitions.max_bytes`.
    TooBig: 500 "payload_too_big" Some((TEXT, INTERNAL)),
    /// 503: there is no payload.
    PayloadMissing: 503 "payload_missing" Some((TEXT, UNAVAILABLE)),
    /// 415: the request says that it is gRPC; its status is set when the reply is on its way.
    UnsupportedMediaType: 415 "unsupported_media_type" None,
    /// 200 with the payload and without an ETag: a quota period's end lies ahead (`definitions::latch`).
    QuotaEndPending: 200 "quota_end_pending" None,
}

impl Answer {
    /// Content, maybe empty, but for the payload of a 200.
    pub const fn body(self) -> &'static str {
        match self.content() {
            Some((_, text)) => text,
            None => "",
        }
    }

    /// Whether this refusal follows from what the snapshot says.
    pub const fn rests_on_snapshot(self) -> bool {
        matches!(
            self,
            Self::SecretInvalid | Self::PersonalInvalid | Self::TokenInvalid | Self::ScopeMissing
        )
    }

    /// The answer, whose content is fixed, to a request with these CORS fields.
    pub fn response<'a>(self, cors: &'a Cors<'a>) -> Response<'a> {
        let status = self.status();
        let (content_type, text) = self.content().unzip();
        Response {
            status,
            reason: self.label(),
            body: Body::Fixed(text.unwrap_or_default()),
            content_type,
            allow: match self {
                Self::MethodNotAllowed => Some("GET, OPTIONS, HEAD"),
                _ => None,
            },
            etag: None,
            retry_after: None,
            varies_by_encoding: false,
            late: match self {
                Self::Head => Late::ContentType(JSON),
                Self::UnsupportedMediaType => Late::Status(status),
                _ => Late::Nothing,
            },
            extra: Vec::new(),
            cors,
            profile: &CORS,
        }
    }
}

/// An answer with the whole seconds after which another try may help. PostHog's service sends no such field; it harms
/// nobody.
pub fn limited<'a>(answer: Answer, retry_after: u32, cors: &'a Cors<'a>) -> Response<'a> {
    Response {
        retry_after: Some(retry_after.to_string()),
        ..answer.response(cors)
    }
}

/// 304: the client's version is current.
pub fn not_modified<'a>(etag: ETag, cors: &'a Cors<'a>) -> Response<'a> {
    Response {
        etag: Some(etag),
        ..Answer::NotModified.response(cors)
    }
}

/// Whether the client may be told the ETag of the current version ([`super::pipeline`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ETagTold {
    /// It may.
    Yes,
    /// It may not: a quota period's end lies ahead. Every SDK then forgets the tag that it holds.
    No,
}

/// 200 with a payload: its gzip form, or its text.
pub fn payload<'a>(
    payload: &Payload,
    gzip: Option<Rc<Vec<u8>>>,
    told: ETagTold,
    cors: &'a Cors<'a>,
) -> (Response<'a>, Answer) {
    let (answer, etag) = match told {
        ETagTold::Yes => (Answer::Definitions, Some(payload.etag.clone())),
        ETagTold::No => (Answer::QuotaEndPending, None),
    };
    let response = Response {
        body: gzip.map_or_else(|| Body::Text(Rc::clone(&payload.text)), Body::Gzip),
        content_type: Some(JSON),
        etag,
        ..answer.response(cors)
    };
    (response, answer)
}

#[cfg(test)]
mod tests;
