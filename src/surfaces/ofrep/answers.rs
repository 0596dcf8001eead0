//! Every answer that OFREP's clients can get: one table, a row for each. Each error is JSON with `errorCode` and `errorDetails`:
//! clients take anything else for a fault of the protocol.

use std::borrow::Cow;
use std::rc::Rc;

use super::request::OfrepRequest;
use crate::http::{Body, CorsProfile, ETag, Late, Response};
use crate::surfaces::Reason;
use crate::surfaces::table::answers;

const JSON: &str = "application/json";

/// No credentials are for browsers: who may ask is said by a key.
static CORS: CorsProfile = CorsProfile {
    methods: None,
    allows_credentials: false,
    cache_control: Some("private, no-cache"),
    vary: "origin",
    vary_by_encoding: "accept-encoding, origin",
};

/// What a browser of another origin may read beside the content.
const EXPOSED: &[u8] = b"ETag, Retry-After";

macro_rules! general {
    ($details:literal) => {
        Some((
            JSON,
            concat!(
                r#"{"errorCode":"GENERAL","errorDetails":""#,
                $details,
                r#""}"#
            ),
        ))
    };
}

const fn unavailable(_: Reason) -> Option<(&'static str, &'static str)> {
    general!("flag definitions are not available")
}

answers! {
    /// What is answered. The labels of `flag_definitions_surface_answers_total`.
    OfrepAnswer, unavailable: unavailable;

    /// 200 with all flags of a selection.
    Bulk: 200 "bulk" None,
    /// 200 with one flag.
    Flag: 200 "flag" None,
    /// 304.
    NotModified: 304 "not_modified" None,
    /// 204 to a browser that asks what it may send.
    Preflight: 204 "preflight" None,
    /// 400: a body that is no JSON, or no object.
    InvalidContext: 400 "invalid_context" None,
    /// 400: a selector that flagd does not know.
    InvalidSelector: 400 "invalid_selector" None,
    /// 400: one flag that cannot be evaluated.
    FlagFailed: 400 "flag_failed" None,
    /// 401: no key, or one that nobody has.
    Unauthorized: 401 "unauthorized" general!("a valid key is required"),
    /// 403: a key that is bound to another selection.
    Forbidden: 403 "forbidden" general!("the key is for another selector"),
    /// 404: no such flag.
    FlagNotFound: 404 "flag_not_found" None,
    /// 404: a path that names no flag.
    NoFlagNamed: 404 "no_flag_named" Some((
        JSON,
        r#"{"errorCode":"FLAG_NOT_FOUND","errorDetails":"the path names no flag: a key is one segment of it"}"#,
    )),
    /// 405.
    MethodNotAllowed: 405 "method_not_allowed" general!("flags are evaluated by POST"),
    /// 413. The text is flagd's, and Envoy says the same.
    BodyTooLong: 413 "body_too_long" Some((JSON, r#"{"errorDetails":"request body too large"}"#)),
    /// 415: the request says that it is gRPC; its status is set when the reply is on its way.
    UnsupportedMediaType: 415 "unsupported_media_type" None,
    /// 429: the selection is asked for too often.
    RateLimited: 429 "rate_limited" general!("too many requests"),
}

impl OfrepAnswer {
    /// The answer to a request, whose content is fixed.
    pub fn response<'r>(self, request: &'r OfrepRequest<'_>) -> Response<'r> {
        let (content_type, text) = match self.content() {
            Some((content_type, text)) => (Some(content_type), text),
            None => (None, ""),
        };
        let status = self.status();
        let exposes = request.cors.origin.is_some() && !matches!(self, Self::Preflight);
        Response {
            status,
            reason: self.label(),
            body: Body::Fixed(text),
            content_type,
            allow: matches!(self, Self::MethodNotAllowed).then_some("POST"),
            etag: None,
            retry_after: None,
            varies_by_encoding: false,
            late: match self {
                Self::UnsupportedMediaType => Late::Status(status),
                _ => Late::Nothing,
            },
            extra: match exposes {
                true => vec![("access-control-expose-headers", Cow::Borrowed(EXPOSED))],
                false => Vec::new(),
            },
            cors: &request.cors,
            profile: &CORS,
        }
    }

    /// The answer with this text, which is JSON.
    pub fn with_text<'r>(self, request: &'r OfrepRequest<'_>, text: Vec<u8>) -> Response<'r> {
        self.with_body(request, Body::Text(Rc::new(text)), None)
    }

    /// The answer with this content, which is JSON, and the tag of a bulk answer.
    pub fn with_body<'r>(
        self,
        request: &'r OfrepRequest<'_>,
        body: Body,
        etag: Option<ETag>,
    ) -> Response<'r> {
        Response {
            body,
            content_type: Some(JSON),
            varies_by_encoding: true,
            etag,
            ..self.response(request)
        }
    }

    /// 304: what the client holds is current.
    pub fn not_modified<'r>(request: &'r OfrepRequest<'_>, etag: ETag) -> Response<'r> {
        Response {
            etag: Some(etag),
            varies_by_encoding: true,
            ..Self::NotModified.response(request)
        }
    }

    /// 429, with the whole seconds after which another try may help: at least one, or clients do not pause at all.
    pub fn rate_limited<'r>(request: &'r OfrepRequest<'_>, seconds: u32) -> Response<'r> {
        Response {
            retry_after: Some(seconds.max(1).to_string()),
            ..Self::RateLimited.response(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surfaces::ofrep::request::Evaluand;
    use serde_json::Value;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_error_with_a_fixed_text_is_json_that_says_what_is_wrong() {
        let request = OfrepRequest::unread(Evaluand::Flags);
        for answer in OfrepAnswer::all() {
            let response = answer.response(&request);
            assert_eq!(response.status, answer.status());
            let Ok(json) = serde_json::from_slice::<Value>(response.body.bytes()) else {
                assert!(answer.content().is_none(), "{answer:?}");
                continue;
            };
            assert!(
                json["errorDetails"].is_string() && answer.status() >= 400,
                "{answer:?}"
            );
            let has_code = json["errorCode"].is_string();
            // flagd's own words.
            assert_eq!(has_code, answer != OfrepAnswer::BodyTooLong, "{answer:?}");
        }
    }

    #[test]
    fn numbers_are_places_in_the_order_of_the_table() {
        let numbers: Vec<_> = OfrepAnswer::all().map(OfrepAnswer::number).collect();
        assert_eq!(numbers, (0..OfrepAnswer::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_browser_of_another_origin_may_read_the_tag() {
        let mut request = OfrepRequest::unread(Evaluand::Flags);
        request.cors.origin = Some(Cow::Borrowed(b"*"));
        let etag = ETag::new(b"v").unwrap();
        let response = OfrepAnswer::not_modified(&request, etag);
        let names: Vec<_> = response
            .headers()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        for name in [
            "etag",
            "vary",
            "access-control-allow-origin",
            "access-control-expose-headers",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        for name in ["content-type", "access-control-allow-credentials"] {
            assert!(!names.contains(&name), "{names:?}");
        }
    }
}
