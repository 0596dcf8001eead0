//! The latch: a suffix of the ETag from the end of a quota period on.

use std::thread::sleep;
use std::time::Duration;

use flag_definitions_filter::http::Candidate;
use flag_definitions_filter::surfaces::posthog::definitions::latch;
use flag_definitions_filter::surfaces::posthog::definitions::pair::etag_key;
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::surfaces::posthog::quota::QuotaEnd;

use crate::real_redis::Redis;
use crate::stored::{PREFIX, Pair, TEAM, X, Y, base36, held, pickled, put_list, with_end};

#[test]
fn the_suffix_appears_at_the_end_of_the_limit_and_goes_with_the_document() {
    let mut redis = Redis::start();
    redis.put_payload(&pickled(4, X));
    let end = redis.now() + 400;
    redis.latch(1_000, end, false);
    while redis.now() < end {
        let public = redis.public();
        // The limit may have ended between the two.
        assert!(public == X || redis.now() >= end, "{public}");
    }
    let latched = with_end(X, end);
    assert_eq!(redis.public(), latched);
    assert_eq!(redis.pair(held(&latched)), Pair::Same(latched.clone()));
    let full = Pair::Full(Some(latched.clone()), Some(base36(end / 1_000)));
    assert_eq!(redis.pair(held(X)), full, "clients without flags get them");
    assert_eq!(redis.pair(Some(Candidate::Any)), Pair::Same(latched));
    redis.put_payload(&pickled(4, Y));
    assert_eq!(redis.public(), Y);
}

#[test]
fn a_latch_lives_seven_days_longer_than_its_limit_and_sixty_at_most() {
    const DAY: i64 = 24 * 3_600;
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    for (days, expected) in [(0, 7), (30, 37), (53, 60), (400, 60)] {
        let end = redis.now() + 1_000 + days * DAY as u64 * 1_000;
        redis.latch(1_000, end, false);
        let ttl: i64 = redis::cmd("TTL")
            .arg(latch::key(PREFIX, TEAM))
            .query(&mut redis.connection)
            .unwrap();
        assert!((ttl - expected * DAY).abs() <= 2, "{days} days: {ttl} s");
    }
    redis.latch(1_000, QuotaEnd::NEVER.as_millis(), false);
    let end = redis.latched().map(|(end, _)| end);
    assert_eq!(end, Some(QuotaEnd::NEVER.as_millis()));
}

#[test]
fn a_document_that_changes_during_the_limit_is_latched_too() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 1_500;
    redis.latch(1_000, end, false);
    redis.put_payload(Y.as_bytes());
    redis.latch(1_000, end, false);
    redis.wait_until(end);
    assert_eq!(redis.public(), with_end(Y, end));
    // And the next one is not, however often a late Envoy tells of the limit.
    redis.put_payload(X.as_bytes());
    redis.latch(1_000, end, true);
    redis.latch(1_000, end, false);
    assert_eq!(redis.public(), X);
}

#[test]
fn without_an_etag_the_suffix_holds_for_the_computed_one() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() - 1;
    redis.latch(1_000, end, true);
    redis.put_payload(b"");
    let suffix = Some(base36(end / 1_000));
    assert_eq!(redis.pair(None), Pair::Full(None, suffix));
    assert_eq!(redis.latched(), Some((end, X.to_owned())));
}

#[test]
fn the_first_envoy_that_sees_a_lifted_limit_sets_its_end() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 3_600_000;
    redis.latch(1_500, end, false);
    let before = redis.now();
    redis.latch(1_500, end, true);
    let after = redis.now();
    let (agreed, _) = redis.latched().unwrap();
    assert!((before + 1_500..=after + 1_500).contains(&agreed));
    sleep(Duration::from_millis(20));
    redis.latch(1_500, end, true);
    assert_eq!(
        redis.latched(),
        Some((agreed, X.to_owned())),
        "the others find it"
    );
    redis.wait_until(agreed);
    assert_eq!(redis.public(), with_end(X, agreed));
}

#[test]
fn who_may_have_answered_402_past_the_agreed_end_sets_a_later_one() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 3_600_000;
    redis.latch(50, end, false);
    redis.latch(50, end, true);
    let (agreed, _) = redis.latched().unwrap();
    redis.wait_until(agreed + 1);
    // Its limit still runs: it kept answering 402 until now.
    redis.latch(50, end, true);
    let (later, _) = redis.latched().unwrap();
    assert!(later > agreed + 50);
    // Its limit has ended by itself meanwhile, after the agreed end.
    redis.wait_until(later + 2);
    redis.latch(50, later + 1, true);
    assert_eq!(redis.latched(), Some((later + 1, X.to_owned())));
}

#[test]
fn a_limit_that_is_raised_or_shortened_moves_the_end() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let now = redis.now();
    let end = |redis: &mut Redis| redis.latched().unwrap().0;
    redis.latch(1_000, now + 100_000, false);
    redis.latch(1_000, now + 200_000, false);
    assert_eq!(end(&mut redis), now + 200_000);
    redis.latch(1_000, now + 50_000, false);
    assert_eq!(end(&mut redis), now + 50_000);
    // Not before all Envoys can know.
    redis.latch(20_000, now + 1_000, false);
    let agreed = end(&mut redis);
    assert!((now + 20_000..now + 30_000).contains(&agreed));
    redis.latch(20_000, now + 1_000, false);
    assert_eq!(end(&mut redis), agreed);
}

#[test]
fn who_may_have_answered_402_past_the_end_of_a_shortened_limit_sets_a_later_one() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let (long, short) = (redis.now() + 3_600_000, redis.now() + 200);
    redis.latch(50, short, false);
    redis.wait_until(short + 1);
    assert_eq!(redis.public(), with_end(X, short));
    // It knew the long one until now.
    let before = redis.now();
    redis.latch(5_000, long, true);
    redis.latch(5_000, short, false);
    let (later, _) = redis.latched().unwrap();
    assert!((before + 5_000..before + 10_000).contains(&later));
    // An end that lies further ahead than the grace is everybody's.
    let far = redis.now() + 100_000;
    redis.latch(5_000, long, true);
    redis.latch(5_000, far, false);
    assert_eq!(redis.latched().map(|(end, _)| end), Some(far));
}

#[test]
fn a_next_period_hides_the_suffix_until_its_own_end() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let first = redis.now() - 2_000;
    redis.latch(1_000, first, true);
    assert_eq!(redis.public(), with_end(X, first));
    let second = redis.now() + 1_500;
    redis.latch(1_000, second, false);
    assert_eq!(redis.public(), X);
    redis.wait_until(second);
    assert_eq!(redis.public(), with_end(X, second));
}

#[test]
fn another_type_under_the_etags_key_costs_no_other_team_its_latch() {
    let mut redis = Redis::start();
    put_list(&mut redis, &etag_key(&Definitions::default(), TEAM));
    let end = redis.now() + 60_000;
    redis.latch(1_000, end, false);
    assert_eq!(redis.latched(), Some((end, String::new())));
}

#[test]
fn what_is_no_latch_is_none_and_is_written_over() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let latch = latch::key(PREFIX, TEAM);
    let huge = "9".repeat(400);
    for garbage in [
        "",
        "garbage",
        "not-a-number:t64vbk:",
        "-1:t64vbk:",
        "1:T64VBK:",
        "1:t64-vbk:",
        "1::",
        "1:12345678901234:",
        "1:t64vbk",
        &format!("{huge}:t64vbk:"),
        &format!("{huge}:t64vbk:{X}"),
        "a list",
    ] {
        for gone in [true, false] {
            match garbage {
                "a list" => put_list(&mut redis, &latch),
                garbage => redis.set(&latch, garbage.as_bytes()),
            }
            assert_eq!(redis.public(), X, "{garbage:.40}");
            assert_eq!(redis.pair(held(X)), Pair::Same(X.to_owned()));
            let end = if gone {
                redis.now() - 1
            } else {
                redis.now() + 60_000
            };
            redis.latch(1_000, end, gone);
            assert_eq!(redis.latched(), Some((end, X.to_owned())), "{garbage:.40}");
        }
    }
}

#[test]
fn what_is_no_latch_is_written_over_though_it_names_the_same_end_and_etag() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let latch = latch::key(PREFIX, TEAM);
    for (zeros, suffix) in [("", "12345678901234"), ("000", "t64vbk")] {
        let end = redis.now() + 60_000;
        let garbage = format!("{zeros}{end}:{suffix}:{X}");
        redis.set(&latch, garbage.as_bytes());
        assert_eq!(redis.pending(held(X)), None, "{garbage}");
        redis.latch(1_000, end, false);
        assert_eq!(redis.pending(held(X)), Some(end), "{garbage}");
    }
}

#[test]
fn a_document_that_changes_before_the_end_is_told_to_nobody_and_has_no_suffix_after_it() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 1_000;
    redis.latch(1_000, end, false);
    redis.put_payload(Y.as_bytes());
    for candidate in [None, held(X), held(Y), Some(Candidate::Any)] {
        let pending = redis.pending(candidate);
        assert!(pending == Some(end) || redis.now() >= end);
    }
    redis.wait_until(end);
    assert_eq!((redis.pending(None), redis.public()), (None, Y.to_owned()));
    // No end of ours has that many digits.
    redis.set(&latch::key(PREFIX, TEAM), b"9999999999999999:zz:");
    assert_eq!(redis.pending(None), None);
}
