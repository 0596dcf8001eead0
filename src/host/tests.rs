//! The shell against the fake host: what no real Envoy can be made to do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::fake::{Callout, Host, Sent, host};
use super::root::{Root, Shared};
use super::stream::{self, Next, Stream};
use crate::directory::Sha256Hash;
use crate::snapshot::StreamId;
use crate::snapshot::document;
use crate::snapshot::manifest::{FORMAT, Manifest, PageDigest, RecordCounts, page_key};
use crate::snapshot::page;

const ROOT: u32 = 1;
const PAYLOAD: &str = r#"{"flags":[]}"#;
const METADATA: &str = r#"{"id":2,"api_token":"phc_b","organization_id":null}"#;

/// A worker with one root context, and a Redis that it asks through the fake host.
struct Worker {
    root: Shared,
    page: Vec<u8>,
    manifest: Vec<u8>,
    redis: Redis,
}

#[derive(Clone, Copy, PartialEq)]
enum Redis {
    Up,
    /// Replies to somebody else.
    Astray,
    Down,
    Silent,
}

fn worker(config: &str) -> Worker {
    host(|host| *host = Host::default());
    let secret = Sha256Hash::of(b"phs_a").to_hex();
    let json = format!(
        r#"{{"format":1,"teams":[{{"id":1,"api_token":"phc_a","secret_token_sha256":["{secret}"]}}]}}"#
    );
    let records = document::parse(json.as_bytes()).unwrap();
    let by_hash = records.by_hash.iter();
    let page = page::split(by_hash.map(|(hash, record)| (*hash, record.as_slice()))).remove(0);
    let manifest = Manifest {
        format: FORMAT,
        generation: 1,
        stream_id: StreamId {
            millis: 100,
            sequence: 0,
        },
        pages: vec![PageDigest::of(&page)],
        etags_watched: false,
        records: RecordCounts::default(),
    };
    let worker = Worker {
        root: Rc::new(RefCell::new(Root::new(ROOT))),
        page: page.bytes,
        manifest: serde_json::to_vec(&manifest).unwrap(),
        redis: Redis::Up,
    };
    let config = if config.is_empty() {
        r#"{"snapshot":{"buckets":16}}"#
    } else {
        config
    };
    host(|host| {
        host.configuration = config.as_bytes().to_vec();
        host.now = Duration::from_secs(1_000);
        host.context = ROOT;
    });
    worker
}

impl Worker {
    fn configure(&self) -> bool {
        let size = host(|host| host.configuration.len());
        self.root.borrow_mut().configure(size)
    }

    /// Ticks through `time`, at the pace that the filter set.
    fn run(&mut self, time: Duration) {
        let until = host(|host| host.now) + time;
        while host(|host| host.now) < until {
            let pace = host(|host| host.tick.clamp(10, 1_000));
            host(|host| {
                host.now += Duration::from_millis(u64::from(pace));
                host.context = ROOT;
            });
            self.root.borrow_mut().tick();
            self.answer_callouts();
        }
    }

    /// Delivers the replies of all callouts that are under way.
    fn answer_callouts(&mut self) {
        if self.redis == Redis::Silent {
            return;
        }
        for callout in host(|host| std::mem::take(&mut host.callouts)) {
            self.deliver(&callout, callout.context);
        }
    }

    /// Delivers the reply of a callout to a context.
    fn deliver(&self, callout: &Callout, context: u32) {
        let mut value = tagged(&callout.body, self.reply(&callout.body));
        if self.redis == Redis::Astray && callout.body.starts_with("EVAL") {
            value = tagged("EVAL/0123456789abcdef.raw", self.reply(&callout.body));
        }
        let down = self.redis == Redis::Down;
        let size = host(|host| {
            host.context = context;
            host.reply_status = Some(if down { b"503" } else { b"200" }.to_vec());
            host.reply_body = if down { Vec::new() } else { value };
            host.reply_body.len()
        });
        stream::on_callout(&self.root, context, callout.token, size);
    }

    /// What Redis replies to a command in webdis' words.
    fn reply(&self, command: &str) -> Vec<u8> {
        let page = page_key("", 1, 0).replace(':', "%3A");
        if command.starts_with("EVAL_RO") && command.contains("quota-limits") {
            resp(&[b"quota", b"1700000000", b"0", b""])
        } else if command.contains("auth_token") {
            let credential = br#"{"type":"secret","team_id":2,"api_token":"phc_b"}"#;
            resp(&[METADATA.as_bytes(), credential])
        } else if command.starts_with("EVAL_RO") {
            let held = command.contains("/e1/") || command.contains("/%2A/");
            if held {
                resp(&[b"same", b"e1", b"", b""])
            } else {
                resp(&[b"full", b"e1", PAYLOAD.as_bytes(), b""])
            }
        } else if command.starts_with("EVAL/") {
            b"-ERR this Redis takes no usage\r\n".to_vec()
        } else if command.contains(&page) {
            bulk(&self.page)
        } else if self.manifest.is_empty() {
            b"$-1\r\n".to_vec()
        } else {
            bulk(&self.manifest)
        }
    }

    fn request(&self, id: u32, headers: &[(&str, &[u8])]) -> (Stream, Next) {
        let mut stream = Stream::new(id, Rc::clone(&self.root));
        host(|host| {
            host.context = id;
            host.requests.insert(
                id,
                headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                    .collect(),
            );
        });
        let next = stream.on_request_headers();
        (stream, next)
    }

    fn get(&self, id: u32, if_none_match: Option<&str>) -> (Stream, Next) {
        let mut headers: Vec<(&str, &[u8])> = vec![
            (":method", b"GET"),
            (":path", b"/flags/definitions?token=phc_a"),
            ("authorization", b"Bearer phs_a"),
        ];
        headers.extend(if_none_match.map(|value| ("if-none-match", value.as_bytes())));
        self.request(id, &headers)
    }
}

/// A script returns its tag behind everything else.
fn tagged(command: &str, reply: Vec<u8>) -> Vec<u8> {
    let tag = command
        .strip_suffix(".raw")
        .and_then(|text| text.rsplit('/').next());
    let text = reply
        .strip_prefix(b"*")
        .filter(|_| command.starts_with("EVAL"));
    let (Some(tag), Some(text)) = (tag, text) else {
        return reply;
    };
    let end = text.iter().position(|byte| *byte == b'\r').unwrap();
    let count: usize = std::str::from_utf8(&text[..end]).unwrap().parse().unwrap();
    let mut reply = format!("*{}", count + 1).into_bytes();
    reply.extend_from_slice(&text[end..]);
    reply.extend(bulk(tag.as_bytes()));
    reply
}

fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

fn resp(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    parts.iter().for_each(|part| bytes.extend(bulk(part)));
    bytes
}

fn sent() -> Vec<Sent> {
    host(|host| std::mem::take(&mut host.sent))
}

fn statuses() -> Vec<(u32, u32)> {
    sent()
        .iter()
        .map(|sent| (sent.stream, sent.status))
        .collect()
}

fn loaded() -> Worker {
    let mut worker = worker("");
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    worker
}

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
fn a_foreign_path_costs_one_header_read() {
    let worker = loaded();
    host(|host| host.calls.clear());
    let (_stream, next) = worker.request(10, &[(":method", b"GET"), (":path", b"/other")]);
    assert_eq!(next, Next::Continue);
    let calls: Vec<_> = host(|host| host.calls.clone()).into_iter().collect();
    assert_eq!(calls, [("proxy_get_header_map_value", 1)]);
}

#[test]
fn the_answer_to_head_has_its_type_and_others_keep_theirs() {
    let worker = loaded();
    for (id, method, expected) in [(10, &b"HEAD"[..], 1), (11, b"GET", 0)] {
        let headers: [(&str, &[u8]); 2] = [(":method", method), (":path", b"/flags/definitions")];
        let (mut stream, _) = worker.request(id, &headers);
        stream.on_response_headers();
        let fields = host(|host| host.responses.remove(&id).unwrap_or_default());
        assert_eq!(fields.len(), expected);
        let json = b"application/json";
        assert!(
            fields
                .iter()
                .all(|(name, value)| name == "content-type" && value == json)
        );
    }
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
    let (mut leader, _) = worker.get(10, None);
    let (mut second, _) = worker.get(11, None);
    let (_third, _) = worker.get(12, None);
    assert_eq!(host(|host| host.callouts.len()), 1);
    assert_eq!(second.on_more(), Next::Pause, "a body does not let it pass");
    // The leader's client goes away: Envoy drops its callout.
    leader.done();
    host(|host| host.callouts.clear());
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200), (12, 200)]);
    assert_eq!(second.on_more(), Next::Continue);
}

#[test]
fn a_second_read_survives_the_stream_whose_reply_made_it_necessary() {
    let mut worker = worker(r#"{"read_through":{"enabled":true},"snapshot":{"buckets":16}}"#);
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    let ask = |id: u32, tag: &[u8]| {
        worker.request(
            id,
            &[
                (":method", b"GET"),
                (":path", b"/flags/definitions?token=phc_b"),
                ("authorization", b"Bearer phs_b"),
                ("if-none-match", tag),
            ],
        )
    };
    let (mut leader, _) = ask(10, b"\"old\"");
    let (_other, _) = ask(11, b"\"older\"");
    let callouts = || host(|host| std::mem::take(&mut host.callouts));
    let identity = callouts();
    assert_eq!(identity.len(), 1);
    worker.deliver(&identity[0], 10);
    // The SDK delivers both replies to stream 10, and those of a stream that is gone to nobody.
    let definitions = callouts();
    assert_eq!(definitions.len(), 2);
    worker.deliver(&definitions[0], 10);
    assert_eq!(statuses(), [(10, 200)]);
    leader.done();
    worker.run(Duration::from_millis(20));
    assert_eq!(statuses(), [(11, 200)]);
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
fn whoever_waits_too_long_gets_503() {
    let mut worker = loaded();
    worker.redis = Redis::Silent;
    let (_stream, _) = worker.get(10, None);
    worker.run(Duration::from_millis(590));
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
                .filter(|(name, _)| name == crate::request::FORWARD_REASON_HEADER)
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
        worker.manifest.clear();
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
            Stream::new(id, Rc::clone(&health)).on_request_headers();
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
        (stream.on_request_headers(), sent())
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

const FUNCTIONS: [&str; 18] = [
    "proxy_log",
    "proxy_get_log_level",
    "clock_time_get",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_buffer_bytes",
    "proxy_get_header_map_value",
    "proxy_get_header_map_pairs",
    "proxy_remove_header_map_value",
    "proxy_add_header_map_value",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_send_local_response",
    "proxy_continue_stream",
    "proxy_set_effective_context",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_http_call",
];

/// Everything that a worker does in its life, with `break_it` called before each stage.
fn live(config: &str, mut break_it: impl FnMut(usize)) -> Vec<Sent> {
    let mut worker = worker(config);
    let mut stage = 0;
    let mut next = || {
        break_it(stage);
        stage += 1;
    };
    next();
    worker.configure();
    next();
    worker.run(Duration::from_secs(2));
    next();
    let (mut first, _) = worker.get(10, None);
    let (mut second, _) = worker.get(11, Some("W/\"e1\""));
    next();
    worker.answer_callouts();
    let (mut third, _) = worker.get(12, Some("W/\"e1\""));
    next();
    let (mut leader, _) = worker.get(13, None);
    let (_left, _) = worker.get(14, None);
    leader.done();
    host(|host| host.callouts.clear());
    next();
    worker.run(Duration::from_secs(2));
    for stream in [&mut first, &mut second, &mut third] {
        stream.on_more();
        stream.on_response_headers();
        stream.done();
    }
    worker.redis = Redis::Down;
    next();
    let (_late, _) = worker.get(15, None);
    worker.answer_callouts();
    worker.run(Duration::from_secs(1));
    worker.root.borrow_mut().done();
    sent()
}

#[test]
fn no_status_of_any_host_function_makes_the_filter_panic_or_refuse() {
    for config in ["", r#"{"upstream":"forward","snapshot":{"buckets":16}}"#] {
        for function in FUNCTIONS {
            for status in (1..=12).chain([99, u32::MAX]) {
                for from in 0..7 {
                    let answers = live(config, |stage| {
                        if stage == from {
                            host(|host| host.broken.extend([(function, status)]));
                        }
                    });
                    // Every request of this life carries good credentials.
                    for answer in &answers {
                        assert!(
                            matches!(answer.status, 200 | 304 | 503),
                            "{function} {status} from stage {from}: {answer:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_host_function_is_among_those_that_fail_in_tests() {
    live(
        r#"{"upstream":"forward","snapshot":{"buckets":16}}"#,
        |_| (),
    );
    super::logger::install();
    log::warn!("one line");
    let called: Vec<_> = host(|host| host.calls.keys().copied().collect());
    for function in called {
        assert!(FUNCTIONS.contains(&function), "{function}");
    }
}
