//! What is answered out of the worker's memory, and what is not.

use super::*;
use crate::http::{Body, Response};
use crate::limits::Mode;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

pub(super) fn tag(text: &str) -> ETag {
    ETag::new(text.as_bytes()).unwrap()
}

/// A body of team 1, as large as to be worth compressing.
pub(super) fn body(etag: &str) -> Rc<Payload> {
    Rc::new(Payload {
        etag: tag(etag),
        etag_stored: true,
        text: Rc::new(format!("{{\"flags\":[\"{etag}\"]{}}}", " ".repeat(300)).into_bytes()),
        billable: true,
    })
}

pub(super) fn ago(millis: u64) -> Monotonic {
    Monotonic::from_millis(NOW.as_millis() - millis)
}

impl World {
    pub(super) fn keep_body(&self, etag: &str) -> Rc<Payload> {
        let full = body(etag);
        self.kept.borrow_mut().put(Tenant(1), &full);
        full
    }

    /// What happens to a request of team 1, in a word: `304 e`, `200 e`, `200 without` an ETag, `read`, or `read e` with
    /// that one held.
    pub(super) fn walk(&self, if_none_match: &str) -> String {
        let request = get("?token=phc_one", "phs_one", if_none_match);
        in_a_word(self.step(&request).0)
    }
}

pub(super) fn in_a_word(step: PostHogStep<'_>) -> String {
    match step {
        Step::Read(PostHogRead::Definitions(Need { held: None, .. })) => "read".to_owned(),
        Step::Read(PostHogRead::Definitions(Need {
            held: Some(Candidate::Tag(etag)),
            ..
        })) => format!("read {}", String::from_utf8_lossy(etag.as_bytes())),
        Step::Reply(response, answer) => {
            assert_eq!(response.status, answer.status());
            if answer == Answer::QuotaEndPending {
                assert_eq!(header(&response, "etag"), None);
                return format!("{} without", response.status);
            }
            let etag = header(&response, "etag").unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"');
            if let Body::Text(text) = &response.body {
                assert_eq!(*text, body(etag).text, "the body of its own ETag");
            }
            format!("{} {etag}", response.status)
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn header(response: &Response<'_>, name: &str) -> Option<String> {
    let headers = response.headers();
    let found = headers.iter().flatten().find(|(n, _)| *n == name)?;
    Some(String::from_utf8_lossy(&found.1.concat()).into_owned())
}

#[test]
fn a_body_is_answered_while_its_etag_is_known_to_be_current() {
    // What is kept; what a callout confirmed, and how long ago; what the client holds.
    for (kept, confirmed, held, expected) in [
        ("", None, "", "read"),
        ("", None, "a", "read a"),
        ("", Some(("e", 0)), "", "read"),
        ("", Some(("e", 0)), "a", "read a"),
        ("", Some(("e", 0)), "e", "304 e"),
        ("e", Some(("e", 0)), "", "200 e"),
        ("e", Some(("e", 1_999)), "", "200 e"),
        ("e", Some(("e", 0)), "a", "200 e"),
        ("e", Some(("e", 0)), "e", "304 e"),
        ("e", Some(("e", 0)), "*", "304 e"),
        // Nobody knows; or what is known is not what is kept.
        ("e", None, "", "read e"),
        ("e", None, "e", "read e"),
        ("e", None, "a", "read e"),
        ("e", Some(("e", 2_000)), "", "read e"),
        ("e", Some(("e", 60_000)), "a", "read e"),
        ("e", Some(("f", 0)), "", "read e"),
        ("e", Some(("f", 0)), "e", "read e"),
        ("e", Some(("f", 0)), "f", "304 f"),
        // The end of a quota period makes another version.
        ("e", Some(("e-z9", 0)), "", "read e"),
        ("e-z9", Some(("e-z9", 0)), "", "200 e-z9"),
        ("e-z9", Some(("e-z9", 0)), "e", "200 e-z9"),
        ("e-z9", Some(("e-z9", 0)), "e-z9", "304 e-z9"),
        ("e-z9", Some(("e", 0)), "", "read e-z9"),
    ] {
        let world = world("{}");
        if !kept.is_empty() {
            world.keep_body(kept);
        }
        if let Some((etag, age)) = confirmed {
            world.confirm(etag, ago(age));
        }
        assert_eq!(
            world.walk(held),
            expected,
            "{kept:?} {confirmed:?} {held:?}"
        );
    }
}

#[test]
fn the_newer_of_a_watermark_and_a_callout_says_which_body_is_current() {
    // Ages of the published ETag, of the watermark and of the callout; what each says.
    for (published, watermark_age, callout_age, current) in [
        (Some(9_000), 500, None, "published"),
        (Some(9_000), 1_999, None, "published"),
        (Some(9_000), 2_000, None, ""),
        (Some(9_000), 500, Some(600), "published"),
        (Some(9_000), 500, Some(400), "asked"),
        (Some(9_000), 2_500, Some(1_900), "asked"),
        (Some(9_000), 2_500, Some(2_000), ""),
        // It was published after the callout, or while that was under way.
        (Some(700), 1_000, Some(800), "published"),
        (Some(700), 1_000, Some(300), "published"),
        (Some(700), 1_000, Some(100), "asked"),
        (Some(700), 2_500, Some(300), ""),
        (None, 500, Some(600), "asked"),
        (None, 500, Some(2_000), ""),
        (None, 500, None, ""),
    ] {
        for kept in ["published", "asked", "older"] {
            let mut world = world("{}");
            if let Some(age) = published {
                world.publish("published", ago(age).as_millis());
            }
            world.confirmation = watermark(10, watermark_age);
            if let Some(age) = callout_age {
                world.confirm("asked", ago(age));
            }
            world.keep_body(kept);
            let expected = match kept == current {
                true => format!("200 {kept}"),
                false => format!("read {kept}"),
            };
            let case = format!("{published:?} {watermark_age} {callout_age:?} {kept}");
            assert_eq!(world.walk(""), expected, "{case}");
            assert_eq!(world.walk("other"), expected, "{case}");
        }
    }
}

#[test]
fn both_may_say_the_same() {
    let mut world = world("{}");
    world.keep_body("e");
    world.publish("e", ago(9_000).as_millis());
    world.confirmation = watermark(10, 5_000);
    world.confirm("e", ago(100));
    assert_eq!(world.walk(""), "200 e");
    assert_eq!(world.walk("e"), "304 e");
}

#[test]
fn what_was_known_before_a_quota_period_ended_answers_nobody() {
    for (confirmed_ago, expected) in [(900, "read e"), (100, "200 without")] {
        let mut world = world("{}");
        world.keep_body("e");
        world.confirm("e", ago(confirmed_ago));
        world.quota = QuotaCopy::of_one_who_left(b"phc_one", ago(500));
        assert_eq!(world.walk(""), expected);
        assert_eq!(world.walk("old"), expected);
    }
}

#[test]
fn shared_data_that_fails_is_an_outage_for_whoever_has_a_body_too() {
    let mut world = world(r#"{"upstream":"forward"}"#);
    world.keep_body("e");
    let request = get("?token=phc_one", "phs_one", "");
    let (step, _) = world.step_over(&Broken, &request);
    assert_eq!(step, Step::Forward(Reason::SharedData));
    world.settings.upstream = Upstream::None;
    assert_eq!(status_of(&world.step_over(&Broken, &request).0), 503);
}

#[test]
fn a_body_that_was_read_before_counts_as_one_that_is_read_now() {
    let validating = r#"{"head_requests":"validate"}"#;
    for (method, if_none_match, stored, billable) in [
        ("GET", "", true, true),
        ("GET", "", true, false),
        ("GET", "", false, true),
        ("GET", "old", true, true),
        ("GET", "old", false, true),
        ("HEAD", "", true, true),
        ("HEAD", "old", true, true),
    ] {
        let mut headers = vec![
            ("authorization", "Bearer phs_one"),
            ("origin", "https://app"),
        ];
        if !if_none_match.is_empty() {
            headers.push(("if-none-match", if_none_match));
        }
        let request = request(method, "?token=phc_one", &headers);
        let full = Rc::new(Payload {
            etag_stored: stored,
            billable,
            ..Payload::clone(&body("e"))
        });
        let read = world(validating);
        let outcome = Outcome::Payload(Rc::clone(&full));
        let (expected, of_read) = read.resume(&request, &outcome);
        let kept = world(validating);
        kept.confirm("e", NOW);
        kept.kept.borrow_mut().put(Tenant(1), &full);
        let (step, observed) = kept.step(&request);
        assert_eq!(step, expected);
        let case = format!("{method} {if_none_match} {stored} {billable}");
        assert_eq!(observed.etag, of_read.etag, "{case}");
        assert_eq!(observed.cache, Some(CacheResult::Hit), "{case}");
        assert_eq!(observed.billed, of_read.billed, "{case}");
        assert_eq!(observed.billed, method == "GET" && billable, "{case}");
    }
}

#[test]
fn a_stale_etag_costs_the_full_budget_when_its_200_costs_no_read() {
    let world = world(r#"{"rate_limit":{"full":"2/hour","conditional":"9/hour"}}"#);
    world.keep_body("e");
    world.confirm("e", NOW);
    let stale = get("?token=phc_one", "phs_one", "old");
    assert_eq!([world.walk(""), world.walk("old")], ["200 e", "200 e"]);
    let (step, observed) = world.step(&stale);
    assert_eq!(status_of(&step), 429);
    assert_eq!(observed.limits, [(Budget::Full, Mode::Enforced)]);
    assert!(!observed.billed && observed.cache.is_none());
    assert_eq!(world.walk("e"), "304 e");
}

#[test]
fn when_what_was_held_is_current_it_serves_everybody_who_waits() {
    for (kept, held, expected) in [
        ("", "e", "304 e"),
        ("", "*", "304 e"),
        ("", "", "read"),
        ("", "a", "read"),
        ("e", "e", "304 e"),
        ("e", "", "200 e"),
        ("e", "a", "200 e"),
        // Another version was kept meanwhile.
        ("f", "", "read"),
        ("f", "f", "read"),
    ] {
        let world = world("{}");
        if !kept.is_empty() {
            world.keep_body(kept);
        }
        let request = get("?token=phc_one", "phs_one", held);
        let outcome = Outcome::Unchanged(tag("e"));
        let (step, observed) = world.resume(&request, &outcome);
        assert_eq!(in_a_word(step), expected, "{kept:?} {held:?}");
        assert_eq!(observed.billed, expected == "200 e");
        let etag = match expected {
            "304 e" => Some(ETagResult::Hit),
            "200 e" if held.is_empty() => Some(ETagResult::None),
            "200 e" => Some(ETagResult::Miss),
            _ => None,
        };
        assert_eq!(observed.etag, etag);
    }
}

#[test]
fn a_client_that_prefers_it_gets_the_gzip_form_once_it_is_there() {
    let on = "{}";
    let off = r#"{"definitions":{"gzip":false}}"#;
    let plain = "origin, access-control-request-method, access-control-request-headers";
    let by_encoding = format!("{plain}, accept-encoding");
    for (config, accepted, coding, vary) in [
        (on, "gzip", Some("gzip"), by_encoding.as_str()),
        (on, "identity", None, &by_encoding),
        (off, "gzip", None, plain),
    ] {
        let world = world(config);
        let full = world.keep_body("e");
        world.confirm("e", NOW);
        let headers = |etag| {
            [
                ("authorization", "Bearer phs_one"),
                ("accept-encoding", accepted),
                ("if-none-match", etag),
            ]
        };
        let request = |etag| request("GET", "?token=phc_one", &headers(etag));
        let stale = request("old");
        let ask = || {
            let (Step::Reply(reply, _), observed) = world.step(&stale) else {
                panic!("not an answer");
            };
            assert_eq!(header(&reply, "vary").as_deref(), Some(vary));
            assert_eq!(header(&reply, "etag").as_deref(), Some("W/\"e\""));
            assert!(observed.billed);
            reply
        };
        let first = ask();
        assert_eq!(first.body, Body::Text(Rc::clone(&full.text)), "not yet");
        assert_eq!(header(&first, "content-encoding"), None);
        assert_eq!(world.kept.borrow().is_busy(), coding.is_some());
        world.kept.borrow_mut().work();
        let second = ask();
        assert_eq!(header(&second, "content-encoding").as_deref(), coding);
        assert_eq!(matches!(second.body, Body::Gzip(_)), coding.is_some());
        // So does a reply that was under way meanwhile.
        let outcome = Outcome::Payload(Rc::clone(&full));
        let Step::Reply(late, _) = world.resume(&stale, &outcome).0 else {
            panic!("not an answer");
        };
        assert_eq!(late.body, second.body);
        let current = request("e");
        let Step::Reply(not_modified, answer) = world.step(&current).0 else {
            panic!("not an answer");
        };
        assert_eq!(answer, Answer::NotModified);
        assert_eq!(header(&not_modified, "vary").as_deref(), Some(vary));
        assert_eq!(header(&not_modified, "content-encoding"), None);
    }
}
