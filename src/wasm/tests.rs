//! The shell against the fake host: what no real Envoy can be made to do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::fake::host;
use super::root::{Root, Shared};
use super::stream::{Next, Stream};
use worker::{
    EnvoyVm, PAYLOAD, READ_THROUGH, ROOT, Redis, loaded, loaded_with, sent, statuses,
    watched_worker, worker,
};

mod bodies;
mod calls;
mod life;
mod replies;
mod unknown_clusters;
mod worker;

/// Each 200 is read.
const NOTHING_KEPT: &str = r#"{"snapshot":{"buckets":16},"definitions":{"body_cache_bytes":0}}"#;

#[test]
fn the_thin_path_end_to_end() {
    let mut worker = loaded();
    let (_stream, next) = worker.get(10, None);
    assert_eq!(next, Next::Pause);
    assert_eq!(statuses(), [], "it waits for its payload");
    worker.answer_callouts();
    let answer = sent().remove(0);
    assert_eq!((answer.stream, answer.status), (10, 200));
    assert_eq!(answer.body, PAYLOAD.as_bytes());
    assert_eq!(answer.header("etag"), Some("W/\"e1\""));

    let (_stream, _) = worker.get(11, Some("W/\"e1\""));
    assert_eq!(
        statuses(),
        [(11, 304)],
        "its ETag was confirmed by the first read"
    );
    assert!(host(|host| host.callouts.is_empty()));
    worker.run(Duration::from_secs(1));
    let metrics = host(|host| host.metrics.clone());
    let answers = "flag_definitions_answers_total";
    assert_eq!(
        metrics[&format!("{answers};status=200;reason=definitions;")],
        1
    );
    assert_eq!(
        metrics[&format!("{answers};status=304;reason=not_modified;")],
        1
    );
    assert_eq!(
        metrics["flag_definitions_auth_total;method=secret_api_key;"],
        2
    );
}

#[test]
fn a_bad_configuration_is_rejected_and_says_why() {
    let worker = worker(r#"{"redis":{"default":{"cluster":""}}}"#);
    super::logger::install();
    assert!(!worker.configure());
    let logs = host(|host| host.logs.join("\n"));
    assert!(
        logs.contains("redis.default.cluster: must not be empty"),
        "{logs}"
    );
    let (_stream, next) = worker.get(10, None);
    assert_eq!(next, Next::Continue);
}

#[test]
fn requests_that_need_the_same_share_a_callout_and_survive_their_leader() {
    let mut worker = loaded();
    let (leader, _) = worker.get(10, None);
    let (mut second, _) = worker.get(11, None);
    let (_third, _) = worker.get(12, None);
    assert_eq!(host(|host| host.callouts.len()), 1);
    assert_eq!(
        second.on_body(1, true),
        Next::Pause,
        "a body does not let it pass"
    );
    assert_eq!(second.on_trailers(), Next::Pause);
    worker.end(leader);
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200), (12, 200)]);
    assert_eq!(second.on_body(1, true), Next::Continue);
}

#[test]
fn a_second_read_survives_the_stream_whose_reply_made_it_necessary() {
    let mut worker = loaded_with(READ_THROUGH);
    let (leader, _) = worker.get_as("b", 10, Some("\"old\""));
    let (_second, _) = worker.get_as("b", 11, Some("\"older\""));
    let (_third, _) = worker.get_as("b", 12, Some("\"older\""));
    assert_eq!(host(|host| host.callouts.len()), 1, "one look-up");
    worker.answer_next_callout();
    assert_eq!(host(|host| host.callouts.len()), 1, "one read");
    assert_eq!(statuses(), []);
    worker.end(leader);
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200), (12, 200)]);
}

#[test]
fn a_newer_listener_without_quota_does_not_end_reading_it_for_another() {
    let mut worker = worker("");
    assert!(worker.configure());
    let other = Rc::new(RefCell::new(Root::new(ROOT + 1)));
    host(|host| {
        host.configuration = br#"{"quota":{"enabled":false},"snapshot":{"buckets":16}}"#.to_vec();
    });
    let size = host(|host| host.configuration.len());
    assert!(other.borrow_mut().configure(size));
    worker.run(Duration::from_secs(3));
    let read = "flag_definitions_callouts_total;store=quota;outcome=ok;";
    assert_ne!(host(|host| host.metrics[read]), 0);
    other.borrow_mut().done();
}

#[test]
fn a_team_that_only_its_secret_names_gets_402_a_latch_and_no_304_after_it() {
    let ask = |worker: &mut EnvoyVm, id| {
        let headers: [(&str, &[u8]); 4] = [
            (":method", b"GET"),
            (":path", b"/flags/definitions"),
            ("authorization", b"Bearer phs_e"),
            ("if-none-match", b"W/\"e1\""),
        ];
        let _stream = worker.request(id, &headers);
        for _ in 0..3 {
            worker.answer_callouts();
        }
        statuses().last().map(|(_, status)| *status)
    };
    for asks_while_limited in [true, false] {
        let mut worker = worker::worker(READ_THROUGH);
        worker.limited = "5:phc_e1800000000\n";
        assert!(worker.configure());
        worker.run(Duration::from_secs(3));
        if asks_while_limited {
            assert_eq!(ask(&mut worker, 10), Some(402));
        }
        worker.run(Duration::from_secs(4));
        let latched = |body: &String| body.contains("quota_end%3A5/");
        assert_eq!(worker.latches.iter().any(latched), asks_while_limited);
        worker.limited = "";
        worker.run(Duration::from_secs(12));
        assert_eq!(ask(&mut worker, 11), Some(200), "{asks_while_limited}");
        worker.run(Duration::from_secs(31));
        assert_eq!(ask(&mut worker, 12), Some(304), "{asks_while_limited}");
    }
}

#[test]
fn whoever_waits_too_long_gets_503() {
    let mut worker = loaded();
    worker.redis = Redis::Silent;
    let (_stream, _) = worker.get(10, None);
    worker.run(Duration::from_millis(1_590));
    assert_eq!(statuses(), []);
    worker.run(Duration::from_millis(30));
    let answer = sent().remove(0);
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with(b"The request timed out."));
}

#[test]
fn a_reply_to_another_command_is_not_served() {
    let mut worker = loaded();
    worker.redis = Redis::Astray;
    let (_full, _) = worker.get(10, None);
    let (_held, _) = worker.get(11, Some("\"e1\""));
    worker.answer_callouts();
    assert_eq!(statuses(), [(10, 503), (11, 503)]);
    worker.redis = Redis::Up;
    worker.run(Duration::from_secs(2));
    let (_full, _) = worker.get(12, None);
    worker.answer_callouts();
    assert_eq!(statuses(), [(12, 200)]);
}

#[test]
fn redis_away_is_503_and_known_state_is_served() {
    let mut worker = loaded();
    let (_first, _) = worker.get(10, None);
    worker.answer_callouts();
    sent();
    worker.redis = Redis::Down;
    let (_known, _) = worker.get(11, Some("\"e1\""));
    assert_eq!(statuses(), [(11, 304)]);
    worker.run(Duration::from_secs(7));
    let (_stale, _) = worker.get(12, Some("\"e1\""));
    worker.answer_callouts();
    assert_eq!(statuses(), [(12, 503)]);
    let unknown: [(&str, &[u8]); 3] = [
        (":method", b"GET"),
        (":path", b"/flags/definitions?token=phc_unknown"),
        ("authorization", b"Bearer phs_a"),
    ];
    let (_unknown, _) = worker.request(13, &unknown);
    assert_eq!(statuses(), [(13, 503)], "never 401 while Redis is away");
}

#[test]
fn undecided_requests_go_on_to_the_upstream_with_the_reason() {
    let mut worker = worker(r#"{"upstream":"forward","snapshot":{"buckets":16}}"#);
    assert!(worker.configure());
    let (_early, next) = worker.get(10, None);
    assert_eq!(next, Next::Continue);
    let reason = |stream: u32| {
        host(|host| {
            host.requests[&stream]
                .iter()
                .filter(|(name, _)| name == crate::surfaces::FORWARD_REASON_HEADER)
                .map(|(_, value)| String::from_utf8(value.clone()).unwrap())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(reason(10), ["snapshot_missing"]);
    worker.run(Duration::from_secs(3));
    worker.redis = Redis::Down;
    let (_late, next) = worker.get(11, None);
    assert_eq!(next, Next::Pause);
    worker.answer_callouts();
    assert_eq!(host(|host| host.continued.clone()), [11]);
    assert_eq!(reason(11), ["redis"]);
    assert_eq!(statuses(), []);
}

#[test]
fn with_read_through_no_snapshot_is_needed_where_none_is_published() {
    let config = |read_through: bool, role: &str| {
        let buckets = r#""snapshot":{"buckets":16}"#;
        format!(r#"{{{buckets},"read_through":{{"enabled":{read_through}}},"role":"{role}"}}"#)
    };
    for (read_through, before, after) in [(true, 503, 200), (false, 503, 503)] {
        let mut worker = worker(&config(read_through, "filter"));
        worker.published.manifest.clear();
        assert!(worker.configure());
        let health = Root::new(2);
        let health: Shared = Rc::new(RefCell::new(health));
        host(|host| host.configuration = config(read_through, "health").into_bytes());
        let size = host(|host| host.configuration.len());
        assert!(health.borrow_mut().configure(size));
        let ready = |id: u32| {
            host(|host| {
                host.context = id;
                let path = (":path".to_owned(), b"/ready".to_vec());
                host.requests.insert(id, vec![path]);
            });
            Stream::new(id, Rc::clone(&health)).on_request_headers(true);
            statuses()
        };
        assert_eq!(ready(30), [(30, before)]);
        worker.run(Duration::from_secs(3));
        assert_eq!(ready(31), [(31, after)], "{read_through}");
    }
}

#[test]
fn health_shows_no_secret_and_turns_ready_with_the_first_snapshot() {
    let mut filter = worker("");
    assert!(filter.configure());
    let health = Rc::new(RefCell::new(Root::new(2)));
    host(|host| {
        host.configuration = br#"{"role":"health","snapshot":{"buckets":16}}"#.to_vec();
    });
    let size = host(|host| host.configuration.len());
    assert!(health.borrow_mut().configure(size));
    let ask = |path: &str| {
        let mut stream = Stream::new(20, Rc::clone(&health));
        host(|host| {
            host.context = 20;
            let path = path.as_bytes().to_vec();
            host.requests.insert(20, vec![(":path".to_owned(), path)]);
        });
        (stream.on_request_headers(true), sent())
    };
    assert_eq!(ask("/ready").1[0].status, 503);
    assert_eq!(ask("/other"), (Next::Continue, vec![]));
    filter.run(Duration::from_secs(3));
    assert_eq!(ask("/ready").1[0].status, 200);
    let body = ask("/health").1.remove(0).body;
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["generation"], 1);
    assert_eq!(json["stream_id"], "100-0");
    assert_eq!(json["stale"], false);
    assert_eq!(json["loader"]["state"], "idle");
    let text = String::from_utf8(body).unwrap();
    assert!(!text.contains("phc_") && !text.contains("phs_"));
}

/// Setting the period begins it anew, and requests may come more often than it ends.
#[test]
fn a_request_does_not_put_off_the_load_of_a_snapshot() {
    let mut worker = loaded();
    worker.publish_again();
    let tick = || host(|host| host.tick);
    for _ in 0..200 {
        if tick() == 5 {
            break;
        }
        worker.run(Duration::from_millis(5));
    }
    assert_eq!(tick(), 5, "it applies what was published");
    host(|host| host.calls.clear());
    let (_stream, next) = worker.get(10, None);
    assert_eq!(next, Next::Pause);
    assert_eq!(
        host(|host| host.callouts.len()),
        1,
        "it waits for its payload"
    );
    let calls = host(|host| host.calls.clone());
    assert_eq!(calls.get("proxy_set_tick_period_milliseconds"), None);
    worker.run(Duration::from_secs(2));
    assert_eq!(statuses(), [(10, 200)]);
    assert!(tick() > 5, "all is applied");
}

#[test]
fn while_a_publisher_watches_a_304_costs_no_callout_and_a_dead_one_confirms_nothing() {
    let mut worker = watched_worker(NOTHING_KEPT);
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    let mut ids = 100..;
    let mut asks = |worker: &EnvoyVm, team: &str, etag: Option<&str>| {
        let id = ids.next().unwrap();
        let (_stream, next) = worker.get_as(team, id, etag);
        let last = sent().into_iter().rfind(|sent| sent.stream == id);
        (next, last.map(|sent| sent.status))
    };
    // Once it serves requests, it lets others have the lease first.
    asks(&worker, "a", None);
    worker.run(Duration::from_secs(4));
    for _ in 0..20 {
        worker.run(Duration::from_millis(370));
        let answer = asks(&worker, "a", Some("W/\"e1\""));
        assert_eq!(answer, (Next::Pause, Some(304)), "without a callout");
    }
    assert_eq!(
        asks(&worker, "a", Some("W/\"e0\"")).1,
        None,
        "a stale one asks"
    );
    worker.answer_callouts();
    assert_eq!(asks(&worker, "c", None).1, Some(401), "revoked");
    worker.publisher = false;
    worker.run(Duration::from_millis(2_500));
    assert_eq!(
        asks(&worker, "a", Some("W/\"e1\"")).1,
        None,
        "it asks again"
    );
    worker.answer_callouts();
    worker.run(Duration::from_secs(4));
    assert_eq!(asks(&worker, "c", None).1, Some(503), "nobody is refused");
}

/// As many requests of team `a` as wait for one callout.
fn crowd(worker: &worker::EnvoyVm, size: u32) -> Vec<Stream> {
    (0..size).map(|id| worker.get(100 + id, None).0).collect()
}

#[test]
fn one_callback_gives_a_bounded_number_of_answers_and_of_bytes() {
    let cases = [(100, 70, 64), (1_500_000, 30, 10), (17_000_000, 3, 1)];
    for (payload, waiting, at_once) in cases {
        let mut worker =
            loaded_with(r#"{"snapshot":{"buckets":16},"definitions":{"max_bytes":20000000}}"#);
        worker.payload = format!(r#"{{"flags":[{{"key":"{}"}}]}}"#, "x".repeat(payload));
        let _crowd = crowd(&worker, waiting);
        worker.answer_callouts();
        assert_eq!(statuses().len(), at_once, "{payload}");
        worker.run(Duration::from_secs(1));
        assert_eq!(statuses().len(), waiting as usize - at_once, "{payload}");
    }
}

#[test]
fn who_comes_after_a_crowd_does_not_wait_for_it() {
    let mut worker = loaded_with(NOTHING_KEPT);
    worker.payload = format!(r#"{{"flags":[{{"key":"{}"}}]}}"#, "x".repeat(1_500_000));
    let _crowd = crowd(&worker, 100);
    worker.answer_next_callout();
    sent();
    let (_later, _) = worker.get(10, Some("\"old\""));
    worker.answer_next_callout();
    assert_eq!(statuses()[0], (10, 200));
}

#[test]
fn a_store_that_takes_nothing_does_not_hold_up_another() {
    let mut worker = loaded_with(
        r#"{"snapshot":{"buckets":16},"read_through":{"enabled":true},"redis":{"identity":{"cluster":"other"}}}"#,
    );
    // Several, since the order in which reads are sent again is any.
    let teams = ["e", "f", "g", "h", "i", "j", "a"];
    let mut leaders = Vec::new();
    let mut followers = Vec::new();
    for (id, team) in (10..).zip(teams) {
        leaders.push(worker.get_as(team, id, None).0);
        followers.push(worker.get_as(team, id + 10, None).0);
    }
    leaders.into_iter().for_each(|leader| worker.end(leader));
    host(|host| host.closed_cluster = "other".to_owned());
    worker.run(Duration::from_millis(30));
    assert_eq!(statuses(), [(26, 200)]);
}
