//! Bodies that are kept, and reads that serve a whole team.

use std::io::Read;
use std::time::Duration;

use super::worker::{EnvoyVm, PAYLOAD, READ_THROUGH, sent, statuses, watched_worker};
use super::{Redis, crowd, loaded, loaded_with};
use crate::wasm::fake::{Sent, host};
use crate::wasm::stream::Next;

/// Neither rate limits nor usage cost a call.
const UNCOUNTED: &str = r#"{
    "snapshot": {"buckets": 16}, "rate_limit": {"enabled": false}, "usage": {"enabled": false}
}"#;

/// Longer than a callout confirms anything.
const UNCONFIRMED: Duration = Duration::from_millis(2_100);

fn callouts() -> usize {
    host(|host| host.callouts.len())
}

/// A worker that read the body of team `a` a moment ago.
fn with_body(mut worker: EnvoyVm) -> EnvoyVm {
    let (_first, _) = worker.get(1, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(1, 200)]);
    worker
}

fn payload_of(length: usize) -> String {
    format!(r#"{{"flags":[{{"key":"{}"}}]}}"#, "x".repeat(length))
}

#[track_caller]
fn last() -> Sent {
    sent().pop().unwrap()
}

#[test]
fn a_200_out_of_memory_costs_no_callout_and_few_host_calls() {
    let worker = with_body(loaded_with(UNCOUNTED));
    // Who holds something else may hold something newer: whether a callout brought that is looked up.
    for (if_none_match, looks) in [(None, 0), (Some("\"old\""), 1)] {
        let mut expected = vec![
            ("clock_time_get", 1),
            ("proxy_get_header_map_pairs", 1),
            ("proxy_get_header_map_value", 1),
        ];
        expected.extend((looks > 0).then_some(("proxy_get_shared_data", looks)));
        expected.push(("proxy_send_local_response", 1));
        let mut calls = Vec::new();
        for id in 10..14 {
            host(|host| host.calls.clear());
            let (_stream, _) = worker.get(id, if_none_match);
            calls = host(|host| host.calls.clone()).into_iter().collect();
            let answer = last();
            assert_eq!((answer.stream, answer.status), (id, 200));
            assert_eq!(answer.body, PAYLOAD.as_bytes());
            assert_eq!(answer.header("etag"), Some("W/\"e1\""));
        }
        assert_eq!(calls, expected, "{if_none_match:?}");
    }
}

#[test]
fn who_holds_nothing_where_nothing_is_kept_costs_no_look_at_etags() {
    let worker = loaded_with(UNCOUNTED);
    for id in 10..14 {
        host(|host| host.calls.clear());
        let (_stream, _) = worker.get(id, None);
    }
    // Who asks is remembered, too.
    assert_eq!(
        host(|host| host.calls.get("proxy_get_shared_data").copied()),
        None
    );
}

#[test]
fn a_200_out_of_memory_is_billed_and_counted_like_one_that_was_read() {
    let mut worker = with_body(loaded());
    let (_whole, _) = worker.get(10, None);
    let (_stale, _) = worker.get(11, Some("\"old\""));
    let (_current, _) = worker.get(12, Some("\"e1\""));
    assert_eq!(statuses(), [(10, 200), (11, 200), (12, 304)]);
    worker.run(Duration::from_secs(12));
    assert_eq!(worker.usage.values().sum::<u64>(), 3);
    let metrics = host(|host| host.metrics.clone());
    for (name, expected) in [
        ("etag_total;result=none;", 2),
        ("etag_total;result=miss;", 1),
        ("etag_total;result=hit;", 1),
        ("cache_total;result=hit;", 3),
        ("callouts_total;store=definitions;outcome=ok;", 1),
    ] {
        assert_eq!(
            metrics[&format!("flag_definitions_{name}")],
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_watermark_confirms_a_body_and_a_dead_publisher_does_not() {
    let mut worker = watched_worker(r#"{"snapshot":{"buckets":16}}"#);
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    let mut worker = with_body(worker);
    worker.run(Duration::from_secs(4));
    for id in 10..30 {
        worker.run(Duration::from_millis(370));
        let (_stream, _) = worker.get(id, Some("\"old\""));
        assert_eq!(statuses(), [(id, 200)], "without a callout");
    }
    worker.publisher = false;
    worker.run(Duration::from_millis(2_500));
    let (_stream, _) = worker.get(40, None);
    assert_eq!(statuses(), [], "it asks");
    worker.answer_callouts();
    assert_eq!(statuses(), [(40, 200)]);
}

#[test]
fn a_body_that_is_still_current_is_not_sent_again() {
    let mut worker = with_body(loaded());
    worker.run(UNCONFIRMED);
    // Redis would send another text: who gets it was not served from memory.
    worker.payload = payload_of(10);
    let (_whole, _) = worker.get(10, None);
    let (_stale, _) = worker.get(11, Some("\"old\""));
    let (_current, _) = worker.get(12, Some("\"e1\""));
    assert_eq!(callouts(), 1);
    assert!(host(|host| host.callouts[0].body.contains("/e1/")));
    worker.answer_callouts();
    let answers = sent();
    let of = |id| answers.iter().find(|sent| sent.stream == id).unwrap();
    assert_eq!(
        [of(10).status, of(11).status, of(12).status],
        [200, 200, 304]
    );
    assert_eq!(of(10).body, PAYLOAD.as_bytes());
    assert_eq!(of(11).body, PAYLOAD.as_bytes());
    assert_eq!(callouts(), 0);
}

#[test]
fn a_stampede_after_a_change_costs_one_callout() {
    let mut worker = with_body(loaded_with(UNCOUNTED));
    worker.run(UNCONFIRMED);
    (worker.etag, worker.payload) = ("e2", payload_of(20));
    let mut streams = Vec::new();
    for id in 0..2_000 {
        let tag = format!("\"held-{id}\"");
        let held = match id % 4 {
            0 => None,
            1 => Some("\"e1\""),
            2 => Some("\"e2\""),
            _ => Some(tag.as_str()),
        };
        streams.push(worker.get(100 + id, held).0);
    }
    assert_eq!(callouts(), 1);
    worker.answer_callouts();
    worker.run(Duration::from_secs(1));
    let answers = sent();
    assert_eq!(answers.len(), 2_000);
    for answer in answers {
        assert_eq!(answer.header("etag"), Some("W/\"e2\""));
        let (status, body) = match (answer.stream - 100) % 4 {
            2 => (304, String::new()),
            _ => (200, worker.payload.clone()),
        };
        assert_eq!((answer.status, answer.body), (status, body.into_bytes()));
    }
}

#[test]
fn who_is_not_served_by_what_another_held_shares_a_second_read() {
    let mut worker = loaded();
    let (_current, _) = worker.get(10, Some("\"e1\""));
    let mut streams = Vec::new();
    for id in 11..40 {
        let tag = format!("\"held-{id}\"");
        streams.push(worker.get(id, Some(tag.as_str())).0);
    }
    streams.push(worker.get(40, None).0);
    assert_eq!(callouts(), 1);
    worker.answer_next_callout();
    assert_eq!(statuses(), [(10, 304)]);
    assert_eq!(callouts(), 1, "one for all others");
    // Who comes now joins it.
    streams.push(worker.get(41, Some("\"x\"")).0);
    assert_eq!(callouts(), 1);
    worker.answer_next_callout();
    let served: Vec<_> = (11..42).map(|id| (id, 200)).collect();
    assert_eq!(statuses(), served);
}

#[test]
fn a_second_read_survives_its_leader() {
    let mut worker = loaded();
    // The reply that makes it necessary is for the stream that asked.
    let (leader, _) = worker.get(10, Some("\"e1\""));
    let (_second, _) = worker.get(11, None);
    let (_third, _) = worker.get(12, Some("\"old\""));
    worker.answer_next_callout();
    assert_eq!(statuses(), [(10, 304)]);
    worker.end(leader);
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200), (12, 200)]);
}

#[test]
fn a_refresh_survives_its_leader() {
    let mut worker = with_body(loaded());
    worker.run(UNCONFIRMED);
    let (leader, _) = worker.get(10, None);
    let (_second, _) = worker.get(11, None);
    let (_third, _) = worker.get(12, Some("\"e1\""));
    worker.end(leader);
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200), (12, 304)]);
}

#[test]
fn a_body_that_gave_way_meanwhile_is_read_again() {
    let mut config: serde_json::Value = serde_json::from_str(READ_THROUGH).unwrap();
    config["definitions"] = serde_json::json!({"body_cache_bytes": 65_536});
    let mut worker = loaded_with(&config.to_string());
    worker.payload = payload_of(40_000);
    let mut worker = with_body(worker);
    // Team `b` has to be looked up first.
    let (_other, _) = worker.get_as("b", 2, None);
    worker.answer_callouts();
    let (_waits, _) = worker.get_as("b", 3, None);
    worker.answer_callouts();
    sent();
    let (_again, _) = worker.get(4, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(4, 200)]);
    worker.run(UNCONFIRMED);
    let (_whole, _) = worker.get(10, None);
    let (_current, _) = worker.get(11, Some("\"e1\""));
    let (_other, _) = worker.get_as("b", 12, None);
    assert_eq!(callouts(), 2);
    // That of `b` is read, and takes the room of `a`.
    host(|host| host.callouts.rotate_left(1));
    worker.answer_next_callout();
    assert_eq!(statuses(), [(12, 200)]);
    worker.answer_next_callout();
    assert_eq!(statuses(), [(11, 304)]);
    assert_eq!(callouts(), 1);
    worker.answer_next_callout();
    let answer = last();
    assert_eq!((answer.stream, answer.status), (10, 200));
    assert_eq!(answer.body, worker.payload.as_bytes());
}

#[test]
fn without_redis_a_body_is_answered_while_it_is_confirmed_and_no_longer() {
    let mut worker = with_body(loaded());
    worker.redis = Redis::Down;
    let (_known, _) = worker.get(10, None);
    assert_eq!(statuses(), [(10, 200)]);
    worker.run(UNCONFIRMED);
    let (_late, _) = worker.get(11, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(11, 503)]);
    let (_later, _) = worker.get(12, Some("\"old\""));
    assert_eq!(statuses(), [(12, 503)]);
    worker.redis = Redis::Up;
    worker.run(UNCONFIRMED);
    let (_again, _) = worker.get(13, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(13, 200)]);
}

#[test]
fn the_gzip_form_is_made_on_the_tick_and_then_answered() {
    let mut worker = loaded();
    worker.payload = payload_of(1_500_000);
    let mut worker = with_body(worker);
    let before = worker.ticks;
    let (_early, _) = worker.get_accepting("gzip, br", "a", 10, None);
    let early = last();
    assert_eq!(early.header("content-encoding"), None);
    assert_eq!(early.body, worker.payload.as_bytes());
    let vary = early.header("vary").unwrap();
    assert!(vary.ends_with(", accept-encoding"));
    worker.run(Duration::from_millis(100));
    assert!(worker.ticks - before > 3, "in slices, at a fast pace");
    for (id, codings, coding) in [
        (11, "gzip", Some("gzip")),
        (12, "identity", None),
        (13, "gzip;q=0, *", None),
        (14, "", None),
    ] {
        let (_stream, _) = worker.get_accepting(codings, "a", id, None);
        let answer = last();
        assert_eq!(answer.header("content-encoding"), coding, "{codings}");
        assert_eq!(answer.header("etag"), Some("W/\"e1\""));
        let mut text = Vec::new();
        match coding {
            Some(_) => {
                assert!(answer.body.len() < 100_000);
                let mut decoder = flate2::read::GzDecoder::new(answer.body.as_slice());
                decoder.read_to_end(&mut text).unwrap();
            }
            None => text = answer.body,
        }
        assert!(text == worker.payload.as_bytes(), "{codings}");
    }
    let (_current, _) = worker.get_accepting("gzip", "a", 15, Some("W/\"e1\""));
    assert_eq!(last().status, 304);
    worker.run(Duration::from_secs(10));
    let ticks = worker.ticks;
    worker.run(Duration::from_secs(10));
    assert!(worker.ticks - ticks < 30, "idle again");
}

#[test]
fn answers_of_what_is_kept_are_bounded_in_bytes_too() {
    let mut worker = loaded();
    worker.payload = payload_of(1_500_000);
    let mut worker = with_body(worker);
    worker.run(UNCONFIRMED);
    // Still current: all get what is kept.
    let _crowd = crowd(&worker, 30);
    worker.answer_callouts();
    assert_eq!(statuses().len(), 10);
    worker.run(Duration::from_secs(1));
    assert_eq!(statuses().len(), 20);
    // In gzip form they are short.
    worker.run(UNCONFIRMED);
    let (_asks, _) = worker.get_accepting("gzip", "a", 10, None);
    worker.answer_callouts();
    worker.run(UNCONFIRMED);
    sent();
    let _crowd: Vec<_> = (200..270)
        .map(|id| worker.get_accepting("gzip", "a", id, None).0)
        .collect();
    worker.answer_callouts();
    assert_eq!(statuses().len(), 64);
}

#[test]
fn answers_after_a_look_up_are_bounded_in_bytes_too() {
    let mut worker = loaded_with(
        r#"{
            "snapshot": {"buckets": 16, "etag_max_age": "10s"},
            "read_through": {"enabled": true, "ttl": "1s"}
        }"#,
    );
    worker.payload = payload_of(1_500_000);
    let (_first, _) = worker.get_as("b", 1, None);
    worker.answer_next_callout();
    worker.answer_next_callout();
    assert_eq!(statuses(), [(1, 200)]);
    // Until it has to be looked up again, while its body is still known to be current.
    worker.run(UNCONFIRMED);
    let _crowd: Vec<_> = (100..130)
        .map(|id| worker.get_as("b", id, None).0)
        .collect();
    assert_eq!(callouts(), 1);
    worker.answer_next_callout();
    assert_eq!(
        statuses().len(),
        11,
        "the last one was begun before it was known to be large"
    );
    worker.run(Duration::from_secs(1));
    assert_eq!(statuses().len(), 19);
    assert_eq!(callouts(), 0);
}

#[test]
fn a_payload_that_is_cut_short_is_not_kept_and_not_billed_and_confirms_no_etag() {
    let mut worker = loaded();
    worker.payload.pop();
    let (_stream, _) = worker.get(10, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(10, 500)]);
    worker.run(Duration::from_millis(1_100));
    // Its ETag was not confirmed: whoever holds it has to ask.
    let (_stream, next) = worker.get(11, Some("W/\"e1\""));
    assert_eq!((next, statuses()), (Next::Pause, vec![]));
    worker.answer_callouts();
    assert_eq!(statuses(), [(11, 304)]);
    // Now it is, and there is nothing to answer with but what is read.
    let (_stream, _) = worker.get(12, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(12, 500)]);
    worker.payload = PAYLOAD.to_owned();
    worker.run(Duration::from_secs(10));
    assert_eq!(worker.usage.values().sum::<u64>(), 0);
    let (_stream, _) = worker.get(13, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(13, 200)]);
}

#[test]
fn more_large_bodies_in_a_second_than_may_leave_are_503_and_not_billed() {
    const BOUND: &str = r#"{
        "snapshot": {"buckets": 16}, "rate_limit": {"enabled": false},
        "definitions": {"large_bytes_per_second": 1048576}
    }"#;
    let mut worker = loaded_with(BOUND);
    worker.payload = payload_of(500_000);
    let mut worker = with_body(worker);
    let (_second, _) = worker.get(10, None);
    let (_third, _) = worker.get(11, None);
    let (_current, _) = worker.get(12, Some("\"e1\""));
    assert_eq!(statuses(), [(10, 200), (11, 503), (12, 304)]);
    worker.run(Duration::from_millis(600));
    let (_fourth, _) = worker.get(13, None);
    assert_eq!(statuses(), [(13, 200)]);
    worker.run(Duration::from_secs(12));
    assert_eq!(worker.usage.values().sum::<u64>(), 3, "200s");
    let metrics = host(|host| host.metrics.clone());
    let overloaded = "flag_definitions_answers_total;status=503;reason=overloaded;";
    assert_eq!(metrics[overloaded], 1);
}
