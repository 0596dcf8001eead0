use super::*;
use crate::http::{Candidate, IfNoneMatch};
use proptest::prelude::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NO_CORS: &Cors<'_> = &Cors {
    origin: None,
    request_headers: None,
    request_method: None,
};

fn version() -> Payload {
    Payload {
        etag: ETag::new(b"abc").unwrap(),
        etag_stored: true,
        text: Rc::new(b"{}".to_vec()),
        billable: true,
    }
}

fn value(response: &Response<'_>, name: &str) -> Option<String> {
    let headers = response.headers();
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
    for reason in Reason::ALL {
        assert_eq!(Answer::Unavailable(reason).status(), 503);
    }
}

#[test]
fn error_bodies_are_json_with_their_keys_in_posthogs_order() {
    for answer in Answer::all().filter(|answer| matches!(answer.status(), 401..=403 | 429)) {
        let response = answer.response(NO_CORS);
        let text = std::str::from_utf8(response.body.bytes()).unwrap();
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
            value(&response, "content-type").as_deref(),
            Some("application/json")
        );
        assert_eq!(value(&response, "www-authenticate").as_deref(), None);
    }
}

#[test]
fn a_304_has_validators_and_no_content_type() {
    let etag = ETag::new(b"abc").unwrap();
    let response = not_modified(etag, NO_CORS);
    assert_eq!(value(&response, "etag").as_deref(), Some("W/\"abc\""));
    assert_eq!(
        value(&response, "cache-control").as_deref(),
        Some("private, must-revalidate")
    );
    assert_eq!(value(&response, "content-type").as_deref(), None);
    assert!(response.body.bytes().is_empty());
}

#[test]
fn a_429_says_when_to_try_again() {
    let response = limited(Answer::RateLimited, 3, NO_CORS);
    assert_eq!(value(&response, "retry-after").as_deref(), Some("3"));
    assert_eq!(response.status, 429);
}

#[test]
fn a_405_names_the_methods() {
    let response = Answer::MethodNotAllowed.response(NO_CORS);
    assert_eq!(
        value(&response, "allow").as_deref(),
        Some("GET, OPTIONS, HEAD")
    );
    assert!(response.body.bytes().is_empty());
}

#[test]
fn cors_mirrors_the_request() {
    let cors = Cors {
        origin: Some(b"https://app".into()),
        request_headers: Some(b"authorization".into()),
        request_method: None,
    };
    let response = Answer::Preflight.response(&cors);
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
        assert_eq!(value(&response, name).as_deref(), Some(expected), "{name}");
    }
    let plain = Answer::NotAuthenticated.response(NO_CORS);
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
    let version = version();
    let gzip = Rc::new(b"\x1f\x8b".to_vec());
    for (gzip, coding, body) in [
        (None, None, &b"{}"[..]),
        (Some(gzip), Some("gzip"), b"\x1f\x8b"),
    ] {
        let (mut response, _) = payload(&version, gzip, ETagTold::Yes, NO_CORS);
        response.varies_by_encoding = true;
        assert_eq!(value(&response, "etag").as_deref(), Some("W/\"abc\""));
        assert_eq!(
            value(&response, "content-type").as_deref(),
            Some("application/json")
        );
        assert_eq!(value(&response, "content-encoding").as_deref(), coding);
        assert_eq!(
            value(&response, "vary").as_deref(),
            Some(CORS.vary_by_encoding)
        );
        assert_eq!(response.body.bytes(), body);
    }
    let (plain, _) = payload(&version, None, ETagTold::Yes, NO_CORS);
    assert_eq!(value(&plain, "vary").as_deref(), Some(CORS.vary));
}

#[test]
fn a_payload_without_an_etag_has_nothing_that_a_client_could_send_back() {
    let version = version();
    for gzip in [None, Some(Rc::new(b"\x1f\x8b".to_vec()))] {
        let (with, _) = payload(&version, gzip.clone(), ETagTold::Yes, NO_CORS);
        let (without, answer) = payload(&version, gzip, ETagTold::No, NO_CORS);
        assert_eq!((without.status, &without.body), (200, &with.body));
        assert_eq!(without.reason, "quota_end_pending");
        assert_eq!(answer, Answer::QuotaEndPending);
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
    let version = version();
    let browser = Cors {
        origin: Some(b"https://app".into()),
        request_headers: Some(b"authorization".into()),
        request_method: None,
    };
    let gzip = Some(Rc::new(Vec::new()));
    for (response, expected) in [
        (
            Answer::MethodNotAllowed.response(NO_CORS),
            "allow, credentials, methods, vary",
        ),
        (
            limited(Answer::RateLimited, 1, NO_CORS),
            "content-type, retry-after, credentials, methods, vary",
        ),
        (
            not_modified(version.etag.clone(), NO_CORS),
            "etag, cache-control, credentials, methods, vary",
        ),
        (
            payload(&version, gzip, ETagTold::Yes, &browser).0,
            "content-type, content-encoding, etag, cache-control, \
             origin, credentials, methods, headers, vary",
        ),
    ] {
        let headers = response.headers();
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
        let sent = value(&not_modified(tag.clone(), NO_CORS), "etag").unwrap();
        let mut list = IfNoneMatch::default();
        list.add(if weak { sent.as_bytes() } else { &sent.as_bytes()[2..] });
        prop_assert!(list.matches(&tag));
        prop_assert_eq!(list.candidate(), Some(Candidate::Tag(tag)));
    }
}
