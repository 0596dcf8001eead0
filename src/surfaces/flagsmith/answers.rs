//! Every answer that Flagsmith's clients can get: one table, a row for each. Texts are the Edge Proxy's, but for the key of a
//! 401, which is not echoed.

use std::borrow::Cow;
use std::rc::Rc;

use super::request::{FlagsmithRequest, Route};
use crate::http::{Body, CorsProfile, ETag, Late, Response};
use crate::surfaces::Reason;
use crate::surfaces::evaluated::kept_answers::{gzip, is_zipped};
use crate::surfaces::table::answers;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const NOT_LOADED: &str = r#"{"message":"Environment not loaded","status":"service_unavailable"}"#;

/// What the Edge Proxy says of other origins. An answer without content does not vary by encoding.
static CORS: CorsProfile = CorsProfile {
    methods: None,
    allows_credentials: true,
    cache_control: None,
    vary: "origin, access-control-request-method, access-control-request-headers",
    vary_by_encoding: "accept-encoding, origin, access-control-request-method, access-control-request-headers",
};

const fn unavailable(_: Reason) -> Option<(&'static str, &'static str)> {
    Some((JSON, NOT_LOADED))
}

answers! {
    /// What is answered. The labels of `flag_definitions_surface_answers_total`.
    FlagsmithAnswer, unavailable: unavailable;

    /// 200 with all flags, or one.
    Flags: 200 "flags" None,
    /// 200 with the flags of an identity.
    Identity: 200 "identity" None,
    /// 200 with the document.
    Document: 200 "environment_document" None,
    /// 304.
    NotModified: 304 "not_modified" None,
    /// 200 to OPTIONS.
    Preflight: 200 "preflight" None,
    /// 400: `feature` twice.
    FeatureRepeated: 400 "query_repeated" Some((
        TEXT,
        "Failed to deserialize query string: duplicate field `feature`",
    )),
    /// 400: `identifier` twice.
    IdentifierRepeated: 400 "query_repeated_identifier" Some((
        TEXT,
        "Failed to deserialize query string: duplicate field `identifier`",
    )),
    /// 400: no `identifier`.
    IdentifierMissing: 400 "identifier_missing" Some((
        TEXT,
        "Failed to deserialize query string: missing field `identifier`",
    )),
    /// 400: a body that is no JSON. The text is the parser's.
    BodyUnparsed: 400 "body_unparsed" None,
    /// 422: JSON of another shape. The text is the parser's.
    BodyShape: 422 "body_shape" None,
    /// 401: no key, or one that no environment has.
    UnknownKey: 401 "unknown_key" Some((
        JSON,
        r#"{"message":"unknown key","status":"unauthorized"}"#,
    )),
    /// 404: no such feature, or one for server-side keys alone.
    FeatureNotFound: 404 "feature_not_found" None,
    /// 405.
    MethodNotAllowed: 405 "method_not_allowed" None,
    /// 413.
    BodyTooLong: 413 "body_too_long" Some((
        TEXT,
        "Failed to buffer the request body: length limit exceeded",
    )),
    /// 415: a body of another type.
    BodyType: 415 "body_type" Some((
        TEXT,
        "Expected request with `Content-Type: application/json`",
    )),
    /// 415: the request says that it is gRPC; its status is set when the reply is on its way.
    UnsupportedMediaType: 415 "unsupported_media_type" None,
    /// 429: the environment is asked too often.
    RateLimited: 429 "rate_limited" Some((
        JSON,
        r#"{"message":"Too many requests","status":"too_many_requests"}"#,
    )),
    /// 503: no document of the environment was ever read, or none that fits.
    NotLoaded: 503 "environment_not_loaded" Some((JSON, NOT_LOADED)),
}

impl FlagsmithAnswer {
    /// Whether this refusal follows from what the snapshot says.
    pub const fn rests_on_snapshot(self) -> bool {
        matches!(self, Self::UnknownKey)
    }

    /// Whether the client has what it asked for: a 200 with content, or the 304 in its place.
    pub const fn is_served(self) -> bool {
        matches!(
            self,
            Self::Flags | Self::Identity | Self::Document | Self::NotModified
        )
    }

    /// The answer to a request, whose content is fixed.
    pub fn response<'r>(self, request: &'r FlagsmithRequest<'_>) -> Response<'r> {
        let (content_type, text) = match self.content() {
            Some((content_type, text)) => (Some(content_type), text),
            None => (None, ""),
        };
        self.with_text(request, content_type, Cow::Borrowed(text))
    }

    /// The answer with this text.
    pub fn with_text<'r>(
        self,
        request: &'r FlagsmithRequest<'_>,
        content_type: Option<&'static str>,
        text: Cow<'static, str>,
    ) -> Response<'r> {
        // Envoy says the same where a body is too long for it, and then the words are its own.
        let is_plain = matches!(self, Self::BodyTooLong);
        let zipped = (request.accepts_gzip && is_zipped(text.len()) && !is_plain)
            .then(|| gzip(text.as_bytes()))
            .flatten();
        let varies = !text.is_empty();
        let body = match (zipped, text) {
            (Some(bytes), _) => Body::Gzip(Rc::new(bytes)),
            (None, Cow::Borrowed(text)) => Body::Fixed(text),
            (None, Cow::Owned(text)) => Body::Text(Rc::new(text.into_bytes())),
        };
        let status = self.status();
        let is_preflight = matches!(self, Self::Preflight);
        let allow = match (self, &request.route) {
            (Self::MethodNotAllowed | Self::Preflight, Route::Identities) => Some("GET,HEAD,POST"),
            (Self::MethodNotAllowed | Self::Preflight, _) => Some("GET,HEAD"),
            _ => None,
        };
        Response {
            status,
            reason: self.label(),
            body,
            content_type,
            allow,
            etag: None,
            retry_after: None,
            varies_by_encoding: varies,
            late: match self {
                Self::UnsupportedMediaType => Late::Status(status),
                _ => Late::Nothing,
            },
            extra: match is_preflight {
                true => vec![("access-control-max-age", Cow::Borrowed(b"600"))],
                false => Vec::new(),
            },
            cors: &request.cors,
            profile: &CORS,
        }
    }

    /// 404: there is no feature of this name, for who asks.
    pub fn feature_not_found<'r>(request: &'r FlagsmithRequest<'_>, name: &str) -> Response<'r> {
        let message = serde_json::Value::from(format!("feature '{name}' not found"));
        let text = format!(r#"{{"message":{message},"status":"not_found"}}"#);
        Self::FeatureNotFound.with_text(request, Some(JSON), Cow::Owned(text))
    }

    /// 400 or 422: what the parser says of a body.
    pub fn bad_body<'r>(self, request: &'r FlagsmithRequest<'_>, text: &str) -> Response<'r> {
        self.with_text(request, Some(TEXT), Cow::Owned(text.to_owned()))
    }

    /// 304: what the client holds is current.
    pub fn not_modified<'r>(request: &'r FlagsmithRequest<'_>, etag: ETag) -> Response<'r> {
        Response {
            etag: Some(etag),
            varies_by_encoding: true,
            ..Self::NotModified.response(request)
        }
    }

    /// 200 with this content.
    pub fn with_body<'r>(
        self,
        request: &'r FlagsmithRequest<'_>,
        body: Body,
        etag: ETag,
        extra: Vec<(&'static str, Cow<'static, [u8]>)>,
    ) -> Response<'r> {
        Response {
            body,
            content_type: Some(JSON),
            etag: Some(etag),
            varies_by_encoding: true,
            extra,
            ..self.response(request)
        }
    }
}
