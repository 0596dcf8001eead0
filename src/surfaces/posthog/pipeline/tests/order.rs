//! In which order a request is checked, and what an outage makes of each check.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn the_method_is_checked_first() {
    let mut world = world("{}");
    world.freshness = Freshness::Missing;
    for (method, answer) in [
        ("HEAD", Answer::Head),
        ("OPTIONS", Answer::Preflight),
        ("POST", Answer::MethodNotAllowed),
        ("DELETE", Answer::MethodNotAllowed),
    ] {
        assert_eq!(
            world.outcome(&request(method, "", &[])),
            Ok(answer),
            "{method}"
        );
    }
}

#[test]
fn what_says_that_it_is_grpc_is_refused_whatever_it_asks_and_costs_nothing() {
    let mut world = world("{}");
    for freshness in [Freshness::Missing, Freshness::Current] {
        world.freshness = freshness;
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            let headers = [
                ("authorization", "Bearer phs_one"),
                ("content-type", "application/grpc"),
            ];
            let request = request(method, "?token=phc_one", &headers);
            let (step, observed) = world.step(&request);
            assert_eq!(status_of(&step), 415, "{method}");
            assert_eq!(observed, Observed::default(), "{method}");
        }
    }
    assert_eq!(Answer::UnsupportedMediaType.body(), "");
}

#[test]
fn authentication() {
    use Answer::{
        Definitions, NotAuthenticated, PersonalInvalid, ScopeMissing, SecretInvalid, TokenInvalid,
        TokenRepeated, TokenRequired,
    };
    let world = world("{}");
    for (query, bearer, answer) in [
        ("?token=phc_one", "phs_one", Definitions),
        ("?token=phc_one", "phx_ok", Definitions),
        ("", "phs_one", Definitions),
        ("", "phs_two", Definitions),
        ("", "", NotAuthenticated),
        ("", "phx_ok", TokenRequired),
        ("", "phc_one", TokenRequired),
        ("", "phs_unknown", SecretInvalid),
        ("", "phs_gone", SecretInvalid),
        ("?token=phc_one", "", NotAuthenticated),
        ("?token=phc_one", "phs_two", SecretInvalid),
        ("?token=phc_one", "phs_unknown", SecretInvalid),
        ("?token=phc_one", "phs_gone", SecretInvalid),
        ("?token=phc_one", "phx_unknown", PersonalInvalid),
        ("?token=phc_one", "phx_no_scope", ScopeMissing),
        ("?token=phc_one", "phc_one", PersonalInvalid),
        ("?token=phs_one", "phs_one", TokenInvalid),
        ("?token=phc_unknown", "phs_one", TokenInvalid),
        ("?token=phc_gone", "phs_one", TokenInvalid),
        ("?token=", "phs_one", TokenInvalid),
        // The team is looked up before the credential.
        ("?token=phc_unknown", "", TokenInvalid),
        ("?token=phc_one&token=phc_one", "phs_one", TokenRepeated),
    ] {
        assert_eq!(
            world.outcome(&get(query, bearer, "")),
            Ok(answer),
            "{query} {bearer}"
        );
    }
}

#[test]
fn refusing_needs_fresher_knowledge_than_accepting() {
    let mut world = world("{}");
    let good = get("?token=phc_one", "phs_one", "");
    let bad = [
        get("?token=phc_unknown", "phs_one", ""),
        get("?token=phc_one", "phs_unknown", ""),
        get("?token=phc_one", "phs_two", ""),
        get("?token=phc_one", "phx_no_scope", ""),
        get("?token=phc_gone", "phs_one", ""),
        get(&format!("?token={}", "a".repeat(300)), "phs_one", ""),
    ];
    for (freshness, why) in [
        (Freshness::Aging, Reason::SnapshotAging),
        (Freshness::Expired, Reason::SnapshotExpired),
        (Freshness::Missing, Reason::SnapshotMissing),
    ] {
        world.freshness = freshness;
        let accepted = match freshness {
            Freshness::Aging => Ok(Answer::Definitions),
            _ => Ok(Answer::Unavailable(why)),
        };
        assert_eq!(world.outcome(&good), accepted);
        for request in &bad {
            assert_eq!(
                world.outcome(request),
                Ok(Answer::Unavailable(why)),
                "{request:?}"
            );
        }
    }
}

#[test]
fn with_an_upstream_the_undecided_is_forwarded_and_the_known_is_decided() {
    let mut world = world(r#"{"upstream":"forward"}"#);
    let unknown = get("?token=phc_unknown", "phs_one", "");
    let known_bad = get("?token=phc_one", "phx_no_scope", "");
    assert_eq!(world.outcome(&unknown), Err(Reason::UnknownCredential));
    assert_eq!(world.outcome(&known_bad), Ok(Answer::ScopeMissing));
    world.freshness = Freshness::Aging;
    assert_eq!(world.outcome(&known_bad), Err(Reason::SnapshotAging));
    world.freshness = Freshness::Missing;
    assert_eq!(world.outcome(&unknown), Err(Reason::SnapshotMissing));
}

#[test]
fn unknown_credentials_can_be_rejected_despite_an_upstream() {
    let world = world(r#"{"upstream":"forward","unknown_credential":"reject"}"#);
    let unknown = get("?token=phc_unknown", "phs_one", "");
    assert_eq!(world.outcome(&unknown), Ok(Answer::TokenInvalid));
}

#[test]
fn a_request_that_comes_back_is_not_forwarded_again() {
    let world = world(r#"{"upstream":"forward"}"#);
    let header = (crate::surfaces::FORWARD_REASON_HEADER, "redis");
    let request = request("GET", "?token=phc_unknown", &[header]);
    assert_eq!(
        world.outcome(&request),
        Ok(Answer::Unavailable(Reason::Loop))
    );
}

#[test]
fn authentication_comes_before_the_etag() {
    let world = world("{}");
    world.confirm("abc", NOW);
    for (query, bearer) in [("?token=phc_one", ""), ("?token=phc_unknown", "phs_one")] {
        let (step, _) = world.step_owned(query, bearer, r#"W/"abc""#);
        assert_eq!(step, Ok(401));
    }
}
