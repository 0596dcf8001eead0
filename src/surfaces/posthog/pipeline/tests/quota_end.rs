//! Between the last 402 and the ETag that tells of the period's end nobody is told an ETag.

use super::bodies::{ago, body, header, in_a_word, tag};
use super::*;
use crate::surfaces::posthog::definitions::Pending;
use crate::surfaces::posthog::quota::QuotaEnd;
use crate::surfaces::posthog::read_through::Known;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// When the limit of [`QuotaCopy::of_one_who_left`] ended, as an ETag tells it.
const ENDED: &str = "t62t8g";

/// What a callout says while the end lies ahead; with a body, or without one since that was held.
fn pending(etag: &str, with_body: bool) -> Outcome {
    Outcome::Pending(Pending {
        etag: tag(etag),
        end: QuotaEnd::from_millis(1_763_728_000_000),
        payload: with_body.then(|| body(etag)),
    })
}

impl World {
    /// A callout that was sent at `at` said so; the list was read just now.
    fn found_pending(&self, etag: &str, at: Monotonic, now: Monotonic) {
        self.found_end(1_763_728_000_000, etag, Some(now), at, now);
    }

    /// The same of this end, with the list as of `read_at`.
    fn found_end(
        &self,
        end: u64,
        etag: &str,
        read_at: Option<Monotonic>,
        at: Monotonic,
        now: Monotonic,
    ) {
        let pending = Pending {
            etag: tag(etag),
            end: QuotaEnd::from_millis(end),
            payload: None,
        };
        let mut ends = self.pending_ends.borrow_mut();
        ends.found(Tenant(1), &pending, read_at, at, now);
    }

    /// What becomes of a request whose read came to this.
    fn read(&self, if_none_match: &str, outcome: &Outcome) -> String {
        let request = get("?token=phc_one", "phs_one", if_none_match);
        in_a_word(self.resume(&request, outcome).0)
    }
}

#[test]
fn while_redis_says_that_the_end_lies_ahead_nobody_is_told_an_etag() {
    for (held, kept, with_body, expected) in [
        ("", "", true, "200 without"),
        ("e", "", true, "200 without"),
        ("*", "", true, "200 without"),
        ("a", "", true, "200 without"),
        ("e", "e", false, "200 without"),
        ("", "e", false, "200 without"),
        // The client alone had it.
        ("e", "", false, "read"),
        ("*", "f", false, "read"),
    ] {
        let world = world("{}");
        if !kept.is_empty() {
            world.keep_body(kept);
        }
        let case = format!("{held} {kept} {with_body}");
        assert_eq!(
            world.read(held, &pending("e", with_body)),
            expected,
            "{case}"
        );
    }
}

#[test]
fn the_answer_without_an_etag_is_a_200_in_all_else() {
    let validating = r#"{"head_requests":"validate"}"#;
    for (method, if_none_match, accepted, etag) in [
        ("GET", "", "identity", ETagResult::None),
        ("GET", "e", "gzip", ETagResult::Miss),
        ("HEAD", "e", "gzip", ETagResult::Miss),
    ] {
        let world = world(validating);
        let full = world.keep_body("e");
        let mut headers = vec![
            ("authorization", "Bearer phs_one"),
            ("accept-encoding", accepted),
        ];
        if !if_none_match.is_empty() {
            headers.push(("if-none-match", if_none_match));
        }
        let request = request(method, "?token=phc_one", &headers);
        world.found_pending("e", ago(10), NOW);
        let _ = world.step(&request);
        world.kept.borrow_mut().work();
        for read in [None, Some(pending("e", true))] {
            let (step, observed) = match &read {
                None => world.step(&request),
                Some(outcome) => world.resume(&request, outcome),
            };
            let Step::Reply(reply, answer) = step else {
                panic!("not an answer");
            };
            assert_eq!(answer, Answer::QuotaEndPending);
            let gzip = (accepted == "gzip").then_some("gzip");
            assert_eq!(header(&reply, "content-encoding").as_deref(), gzip);
            assert_eq!(reply.body.bytes().len() < full.text.len(), gzip.is_some());
            assert!(header(&reply, "vary").unwrap().ends_with("accept-encoding"));
            assert_eq!(
                (header(&reply, "etag"), header(&reply, "cache-control")),
                (None, None)
            );
            assert_eq!(observed.billed, method == "GET");
            assert_eq!(
                (observed.etag, observed.cache),
                (Some(etag), Some(CacheResult::Hit))
            );
        }
    }
}

#[test]
fn a_body_is_answered_without_a_read_for_a_second_after_a_callout_said_so() {
    for (age, expected) in [(0, "200 without"), (999, "200 without"), (1_000, "read e")] {
        let world = world("{}");
        world.keep_body("e");
        world.found_pending("e", ago(age), NOW);
        assert_eq!(
            [world.walk(""), world.walk("e")],
            [expected, expected],
            "{age}"
        );
    }
    // Where none is kept, what the client holds need not be compared.
    let nothing_kept = world("{}");
    nothing_kept.found_pending("e", ago(0), NOW);
    assert_eq!(
        [nothing_kept.walk(""), nothing_kept.walk("e")],
        ["read", "read"]
    );
    // Whatever was confirmed before.
    let world = world("{}");
    world.keep_body("e");
    world.confirm("e", ago(100));
    assert_eq!(world.walk("e"), "304 e");
    world.found_pending("e", ago(10), NOW);
    assert_eq!(world.walk("e"), "200 without");
    world.pending_ends.borrow_mut().settled(Tenant(1));
    assert_eq!(world.walk("e"), "304 e");
}

#[test]
fn who_saw_the_limit_end_tells_no_etag_before_one_that_tells_of_that_end() {
    let later = "t62t8h";
    let earlier = "t62t8f";
    for (current, held, expected) in [
        ("e".to_owned(), "e", "200 without"),
        ("e".to_owned(), "", "200 without"),
        (format!("e-{earlier}"), "e", "200 without"),
        (format!("e-{ENDED}"), "e", "200 e-t62t8g"),
        (format!("e-{ENDED}"), "e-t62t8g", "304 e-t62t8g"),
        (format!("e-{later}"), "e-t62t8h", "304 e-t62t8h"),
    ] {
        let mut world = world("{}");
        world.quota = QuotaCopy::of_one_who_left(b"phc_one", ago(500));
        world.keep_body(&current);
        let read = Outcome::Payload(body(&current));
        assert_eq!(world.read(held, &read), expected, "{current} {held}");
        world.confirm(&current, ago(100));
        assert_eq!(world.walk(held), expected, "{current} {held}");
        world.publish(&current, ago(9_000).as_millis());
        world.confirmation = watermark(10, 100);
        assert_eq!(world.walk(held), expected, "{current} {held}");
    }
}

#[test]
fn after_three_intervals_the_etag_is_told_whatever_redis_says() {
    for (seconds, expected) in [(29, "200 without"), (30, "304 e")] {
        let mut world = world("{}");
        world.keep_body("e");
        // It was said in between, too.
        let first = ago(seconds * 1_000);
        world.found_pending("e", first, first);
        world.found_pending("e", ago(500), ago(400));
        assert_eq!(world.walk("e"), expected);
        assert_eq!(world.read("e", &pending("e", true)), expected);
        // So it is with what this worker saw.
        world.pending_ends.borrow_mut().settled(Tenant(1));
        world.quota = QuotaCopy::of_one_who_left(b"phc_one", first);
        world.confirm("e", ago(100));
        assert_eq!(world.walk("e"), expected);
    }
}

#[test]
fn the_next_period_has_three_intervals_of_its_own() {
    for (next, expected) in [(2, "200 without"), (1, "304 e")] {
        let world = world("{}");
        world.keep_body("e");
        world.found_end(1, "e", Some(ago(40_000)), ago(40_000), ago(40_000));
        world.found_end(next, "e", Some(NOW), ago(10), NOW);
        assert_eq!(world.walk("e"), expected, "{next}");
        assert_eq!(world.read("e", &pending("e", true)), expected, "{next}");
    }
}

#[test]
fn an_envoy_that_cannot_read_the_list_tells_no_etag_for_as_long_as_redis_says_so() {
    // As of when the list is known when that is said first, in between and now, in seconds ago.
    for (reads, expected) in [
        ([None, None, None], "200 without"),
        ([Some(100), Some(100), Some(100)], "200 without"),
        ([None, None, Some(1)], "200 without"),
        ([None, Some(29), Some(1)], "200 without"),
        ([None, Some(30), Some(1)], "304 e"),
        ([Some(100), Some(50), None], "304 e"),
    ] {
        let world = world("{}");
        world.keep_body("e");
        for (read, said) in reads.into_iter().zip([60_000, 20_000, 10]) {
            let read_at = read.map(|seconds: u64| ago(seconds * 1_000));
            world.found_end(1, "e", read_at, ago(said), ago(said));
        }
        assert_eq!(world.walk("e"), expected, "{reads:?}");
        assert_eq!(world.read("e", &pending("e", true)), expected, "{reads:?}");
    }
}

#[test]
fn without_the_latch_a_304_is_posthogs() {
    for config in [
        r#"{"quota":{"free_latch":false}}"#,
        r#"{"quota":{"enabled":false}}"#,
    ] {
        let mut world = world(config);
        world.keep_body("e");
        world.found_pending("e", ago(10), NOW);
        assert_eq!(world.walk("e"), "304 e");
        assert_eq!(world.read("e", &pending("e", false)), "304 e");
        world.pending_ends.borrow_mut().settled(Tenant(1));
        world.confirm("e", ago(100));
        world.quota = QuotaCopy::of_one_who_left(b"phc_one", ago(500));
        assert_eq!(world.walk("e"), "304 e");
    }
}

/// A credential that was looked up, of team 1, whose token is beside it there; the request names none.
fn looked_up(world: &mut World) -> Request<'static> {
    let known = Known {
        record: Record::TeamSecret(Tenant(1)),
        api_token: Some(Sha256Hash::of(b"phc_own")),
        looked_up_at: NOW,
    };
    world.freshness = Freshness::Missing;
    world.found = Some(Found {
        records: vec![(Sha256Hash::of(b"phs_new"), known)],
        ..Found::default()
    });
    get("", "phs_new", "e")
}

#[test]
fn a_token_that_the_credentials_record_names_counts_after_a_read_as_well() {
    let mut world = world(READ_THROUGH);
    let request = looked_up(&mut world);
    world.quota = QuotaCopy::of_one_who_left(b"phc_own", ago(500));
    world.keep_body("e");
    let (step, observed) = world.step(&request);
    assert_eq!(in_a_word(step), "read e");
    let token = observed.token;
    for outcome in [Outcome::Payload(body("e")), Outcome::Unchanged(tag("e"))] {
        let (step, _) = world.resume_of(&request, token.as_ref(), &outcome);
        assert_eq!(in_a_word(step), "200 without");
    }
}

#[test]
fn whoever_reads_the_list_is_told_whose_a_limited_token_is() {
    for (team, limited, unowned) in [
        (None, "phc_own", true),
        (Some(Tenant(1)), "phc_own", false),
        (None, "phc_another", false),
    ] {
        let mut world = world(READ_THROUGH);
        let request = looked_up(&mut world);
        world.quota = QuotaCopy::of_one_limited(limited.as_bytes(), team, NOW);
        let (step, observed) = world.step(&request);
        let own = limited == "phc_own";
        assert_eq!(matches!(&step, Step::Reply(_, Answer::QuotaLimited)), own);
        assert_eq!(
            observed.team.zip(observed.token),
            Some((Tenant(1), Sha256Hash::of(b"phc_own")))
        );
        assert_eq!(observed.unowned, unowned, "{team:?} {limited}");
    }
}
