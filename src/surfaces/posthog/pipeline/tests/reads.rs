//! What reads bring, what answers cost, and what is billed.

use super::*;
use crate::limits::Mode;
use crate::surfaces::posthog::definitions::encoding::{DecodeError, Malformed};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn what_a_read_brings() {
    let world = world("{}");
    let tag = |text: &str| ETag::new(text.as_bytes()).unwrap();
    let full = |etag: Option<&str>| full(etag, false);
    for (if_none_match, outcome, status, etag, cache) in [
        (
            "",
            full(Some("e")),
            200,
            ETagResult::None,
            Some(CacheResult::Hit),
        ),
        (
            "",
            full(None),
            200,
            ETagResult::RedisMissing,
            Some(CacheResult::Hit),
        ),
        (
            r#"W/"x""#,
            full(Some("e")),
            200,
            ETagResult::Miss,
            Some(CacheResult::Hit),
        ),
        (r#""x","e""#, full(Some("e")), 304, ETagResult::Hit, None),
        (
            "*",
            Outcome::Unchanged(tag("e")),
            304,
            ETagResult::Hit,
            None,
        ),
        (
            r#""e""#,
            Outcome::Unchanged(tag("e")),
            304,
            ETagResult::Hit,
            None,
        ),
    ] {
        let request = get("?token=phc_one", "phs_one", if_none_match);
        let (step, observed) = world.resume(&request, &outcome);
        assert_eq!(status_of(&step), status, "{if_none_match} {outcome:?}");
        assert_eq!(observed.etag, Some(etag), "{if_none_match} {outcome:?}");
        assert_eq!(observed.cache, cache, "{if_none_match} {outcome:?}");
    }
}

#[test]
fn reads_that_fail() {
    let request = get("?token=phc_one", "phs_one", r#""e""#);
    let none = world("{}");
    let forward = world(r#"{"upstream":"forward"}"#);
    for (outcome, status, why) in [
        (Absent::Missing, 503, None),
        (
            Absent::Undecodable(DecodeError::Malformed(Malformed::Pickle)),
            500,
            None,
        ),
        (Absent::TooBig, 500, None),
        (Absent::ObjectStore, 503, Some(Reason::ObjectStore)),
        (Absent::Failed(Failure::Timeout), 503, Some(Reason::Timeout)),
        (
            Absent::Failed(Failure::Unavailable),
            503,
            Some(Reason::Redis),
        ),
        (Absent::Failed(Failure::Refused), 503, Some(Reason::Redis)),
        (Absent::Failed(Failure::Malformed), 503, Some(Reason::Redis)),
        (Absent::Failed(Failure::NotSent), 503, Some(Reason::Redis)),
    ] {
        let outcome = Outcome::Absent(outcome);
        let (step, observed) = none.resume(&request, &outcome);
        assert_eq!(status_of(&step), status, "{outcome:?}");
        assert_eq!(
            observed.rebuild,
            outcome == Outcome::Absent(Absent::Missing)
        );
        let (step, _) = forward.resume(&request, &outcome);
        match why {
            Some(why) => assert_eq!(step, Step::Forward(why), "{outcome:?}"),
            None => assert_eq!(status_of(&step), status, "{outcome:?}"),
        }
    }
}

#[test]
fn a_200_is_billed_when_its_payload_is_and_it_has_a_body() {
    let validating = world(r#"{"head_requests":"validate"}"#);
    for (method, if_none_match, billable, billed) in [
        ("GET", "", true, true),
        ("GET", "", false, false),
        ("GET", r#""x""#, true, true),
        ("GET", r#""e""#, true, false),
        ("HEAD", "", true, false),
    ] {
        let mut headers = vec![("authorization", "Bearer phs_one")];
        if !if_none_match.is_empty() {
            headers.push(("if-none-match", if_none_match));
        }
        let request = request(method, "?token=phc_one", &headers);
        let outcome = full(Some("e"), billable);
        let (_, observed) = validating.resume(&request, &outcome);
        assert_eq!(
            observed.billed, billed,
            "{method} {if_none_match} {billable}"
        );
    }
    let limited = world(r#"{"rate_limit":{"full":"1/hour"}}"#);
    let request = get("?token=phc_one", "phs_one", r#""x""#);
    let outcome = full(Some("e"), true);
    assert!(limited.resume(&request, &outcome).1.billed);
    let (step, observed) = limited.resume(&request, &outcome);
    assert_eq!((status_of(&step), observed.billed), (429, false));
}

#[test]
fn a_304_costs_the_conditional_budget_and_nothing_of_the_full_one() {
    let mut world = world(r#"{"rate_limit":{"conditional":"2/hour","full":"1/hour"}}"#);
    world.confirm("abc", NOW);
    let conditional = || world.step_owned("?token=phc_one", "phs_one", r#""abc""#).0;
    assert_eq!([conditional(), conditional()], [Ok(304), Ok(304)]);
    let request = get("?token=phc_one", "phs_one", r#""abc""#);
    let (step, observed) = world.step(&request);
    assert_eq!(observed.limits, [(Budget::Conditional, Mode::Enforced)]);
    let Step::Reply(reply, _) = step else {
        panic!("not an answer");
    };
    let headers = reply.headers();
    let mut fields = headers.iter().flatten();
    let retry_after = fields.find(|(name, _)| *name == "retry-after");
    assert_eq!(retry_after.unwrap().1.concat(), b"1800");
    // What is limited is one budget, and neither is touched by those who may not read.
    for _ in 0..5 {
        assert_eq!(world.step_owned("?token=phc_one", "phs_two", "").0, Ok(401));
    }
    let unconditional = get("?token=phc_one", "phs_one", "");
    assert!(matches!(world.step(&unconditional).0, Step::Read(_)));
    assert_eq!(status_of(&world.step(&unconditional).0), 429);
    world.settings.rate_limit.enabled = false;
    assert!(matches!(world.step(&unconditional).0, Step::Read(_)));
}

#[test]
fn what_was_absent_a_moment_ago_is_not_read_again() {
    let mut world = world("{}");
    let request = get("?token=phc_one", "phs_one", "");
    for (absent, status) in [
        (Absent::Missing, 503),
        (Absent::TooBig, 500),
        (Absent::Failed(Failure::Timeout), 503),
    ] {
        world.absent.note(Tenant(1), absent, NOW);
        let (step, observed) = world.step(&request);
        assert_eq!(status_of(&step), status);
        assert!(!observed.rebuild, "that was signalled with the read");
    }
    let long_ago = Monotonic::from_millis(NOW.as_millis() - 1_000);
    world.absent.note(Tenant(1), Absent::Missing, long_ago);
    assert!(matches!(world.step(&request).0, Step::Read(_)));
}
