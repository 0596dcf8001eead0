//! The life of a worker, in which any host function fails at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::worker::{EnvoyVm, Redis, loaded_with, sent, watched_worker, worker};
use crate::wasm::fake::{Sent, host};
use crate::wasm::logger;
use crate::wasm::stream::{Next, Stream};

const FUNCTIONS: [&str; 19] = [
    "proxy_log",
    "proxy_get_log_level",
    "clock_time_get",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_buffer_bytes",
    "proxy_set_buffer_bytes",
    "proxy_get_header_map_value",
    "proxy_get_header_map_pairs",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
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

/// "Not found", "bad argument" and "version differs", which mean something to the filter or to the SDK, and one
/// that means nothing.
const STATUSES: [u32; 4] = [1, 2, 8, u32::MAX];

/// Everything that can be done for a request.
const ALL: &str = r#"{
    "snapshot": {"buckets": 16},
    "read_through": {"enabled": true},
    "definitions": {"object_store": {"cluster": "store", "bucket": "bucket"}},
    "quota": {"interval": "2s"},
    "usage": {"flush_interval": "2s"}
}"#;

const FORWARD: &str = r#"{"upstream":"forward","snapshot":{"buckets":16}}"#;

/// A worker, and the requests that it paused.
struct Life {
    worker: EnvoyVm,
    streams: Vec<Stream>,
    paused: Vec<u32>,
}

impl Life {
    fn ask(&mut self, team: &str, id: u32, if_none_match: Option<&str>) {
        let (stream, next) = self.worker.get_as(team, id, if_none_match);
        if next == Next::Pause {
            self.paused.push(id);
        }
        self.streams.push(stream);
    }

    fn run(&mut self, millis: u64) {
        self.worker.run(Duration::from_millis(millis));
    }

    /// A client goes away.
    fn leave(&mut self, id: u32) {
        let place = self.streams.iter().position(|stream| stream.id == id);
        self.worker.end(self.streams.remove(place.unwrap()));
        self.paused.retain(|stream| *stream != id);
    }
}

type Stage = fn(&mut Life);

/// What happens in a life.
const STAGES: [Stage; 9] = [
    |life| {
        life.worker.configure();
    },
    |life| life.run(2_000),
    |life| {
        life.ask("a", 10, None);
        life.ask("a", 11, Some("W/\"e1\""));
        life.worker.answer_callouts();
        life.ask("a", 12, Some("W/\"e1\""));
        life.run(1_000);
    },
    |life| {
        // Until nothing is confirmed any more.
        life.run(2_000);
        life.ask("a", 13, None);
        life.ask("a", 14, None);
        life.leave(13);
        life.run(100);
        life.ask("a", 15, None);
    },
    |life| {
        life.ask("b", 20, Some("\"old\""));
        life.ask("b", 21, Some("\"older\""));
        life.ask("b", 22, None);
        life.run(100);
    },
    |life| {
        life.ask("c", 30, None);
        life.ask("c", 31, Some("\"old\""));
        life.ask("d", 40, None);
        life.run(1_000);
    },
    |life| {
        life.worker.update();
        life.run(100);
        life.ask("a", 50, None);
        life.ask("b", 51, None);
        life.run(1_000);
    },
    |life| {
        life.worker.drain();
        life.streams.iter_mut().for_each(|stream| {
            stream.on_body(1, false);
            stream.on_response_headers();
        });
        life.run(1_000);
    },
    |life| {
        life.worker.redis = Redis::Down;
        life.ask("a", 60, None);
        life.ask("b", 61, None);
        life.ask("c", 62, None);
        life.run(1_000);
    },
];

/// Lives a whole life; `break_it` is called before each stage.
fn live(config: &str, break_it: impl FnMut(usize)) -> Life {
    live_as(worker(config), break_it)
}

fn live_as(worker: EnvoyVm, mut break_it: impl FnMut(usize)) -> Life {
    let mut life = Life {
        worker,
        streams: Vec::new(),
        paused: Vec::new(),
    };
    for (number, stage) in STAGES.iter().enumerate() {
        break_it(number);
        stage(&mut life);
    }
    life
}

/// The end of a life in which all works again.
fn recover(life: &mut Life) {
    host(|host| host.broken.clear());
    life.worker.redis = Redis::Up;
    life.run(5_000);
}

#[test]
fn no_status_of_any_host_function_makes_the_filter_panic_or_refuse() {
    for config in [FORWARD, ALL] {
        for function in FUNCTIONS {
            for status in STATUSES {
                for from in 0..STAGES.len() {
                    let life = live(config, |stage| {
                        if stage == from {
                            host(|host| host.broken.extend([(function, status)]));
                        }
                    });
                    life.worker.root.borrow_mut().done();
                    // Every request of this life carries good credentials, and of one team the quota is used up.
                    for Sent { stream, status, .. } in sent() {
                        let known = match stream {
                            40 => matches!(status, 200 | 402 | 503),
                            _ => matches!(status, 200 | 304 | 503),
                        };
                        assert!(
                            known,
                            "{function} {status} from stage {from}: {stream} got {status}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn no_status_of_any_host_function_stops_what_follows_a_publisher() {
    for function in FUNCTIONS {
        for status in [1, u32::MAX] {
            for from in 1..STAGES.len() {
                let case = format!("{function} {status} from stage {from}");
                let mut life = live_as(watched_worker(FORWARD), |stage| {
                    if stage == from {
                        host(|host| host.broken.extend([(function, status)]));
                    }
                });
                // Team `c` had its secret revoked: whoever asks with it may be refused, or not be decided.
                for Sent { stream, status, .. } in sent() {
                    let known = matches!(status, 200 | 304 | 401 | 402 | 503);
                    assert!(known, "{case}: {stream} got {status}");
                }
                recover(&mut life);
                life.worker.root.borrow_mut().tick();
                host(|host| host.sent.clear());
                life.ask("a", 900, Some("W/\"e1\""));
                let last = sent().into_iter().rfind(|sent| sent.stream == 900);
                assert_eq!(last.map(|sent| sent.status), Some(304), "{case}");
            }
        }
    }
}

#[test]
fn after_a_failure_of_any_host_function_all_are_answered_once_and_every_count_arrives() {
    for function in FUNCTIONS {
        for status in STATUSES {
            // A configuration that cannot be read is refused.
            for broken in 1..STAGES.len() {
                let case = format!("{function} {status} in stage {broken}");
                let mut life = live(ALL, |stage| {
                    host(|host| host.broken.clear());
                    if stage == broken {
                        host(|host| host.broken.extend([(function, status)]));
                    }
                });
                recover(&mut life);
                check(&mut life, function, &case);
            }
        }
    }
}

fn check(life: &mut Life, function: &str, case: &str) {
    let answers = sent();
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for Sent { stream, .. } in &answers {
        *times.entry(*stream).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "{case}: {times:?}");
    // Without these a stream cannot be reached.
    if !["proxy_send_local_response", "proxy_set_effective_context"].contains(&function) {
        for stream in &life.paused {
            assert!(
                times.contains_key(stream),
                "{case}: {stream} waits for ever"
            );
        }
    }
    let ticks = life.worker.ticks;
    life.run(5_000);
    let ticks = life.worker.ticks - ticks;
    assert!(ticks < 100, "{case}: {ticks} ticks with nothing to do");
    let full = answers.iter().filter(|sent| sent.status == 200).count();
    let billed: u64 = life.worker.usage.values().sum();
    assert_eq!(billed, full as u64, "{case}");
}

#[test]
fn a_life_without_failures_serves_everybody() {
    let mut life = live(ALL, |_| ());
    recover(&mut life);
    let statuses: BTreeMap<u32, u32> = sent()
        .iter()
        .map(|sent| (sent.stream, sent.status))
        .collect();
    let expected = [
        (10, 200),
        (11, 304),
        (12, 304),
        (14, 200),
        (15, 200),
        (20, 200),
        (21, 200),
        (22, 200),
        (30, 200),
        (31, 200),
        (40, 402),
        (50, 200),
        (51, 200),
        (60, 503),
        (61, 503),
        (62, 503),
    ];
    assert_eq!(statuses, BTreeMap::from(expected));
    assert_eq!(life.worker.rebuilds, 1);
    assert_eq!(life.worker.usage.values().sum::<u64>(), 10);
}

#[test]
fn every_host_function_is_among_those_that_fail_in_tests() {
    for config in [FORWARD, ALL] {
        live(config, |_| ());
    }
    logger::install();
    log::warn!("one line");
    let called: Vec<_> = host(|host| host.calls.keys().copied().collect());
    for function in called {
        assert!(FUNCTIONS.contains(&function), "{function}");
    }
}

#[test]
fn ticks_are_no_further_apart_than_the_flush_interval_also_where_nothing_is_counted() {
    for (interval, expected) in [("100ms", 100), ("10s", 1_000)] {
        let mut worker = loaded_with(&format!(
            r#"{{"snapshot":{{"buckets":16}},"usage":{{"enabled":false,"flush_interval":"{interval}"}}}}"#
        ));
        worker.run(Duration::from_secs(3));
        assert_eq!(host(|host| host.tick), expected, "{interval}");
    }
}

#[test]
fn while_nothing_can_be_stored_it_does_not_tick_fast_for_ever() {
    let mut worker = super::loaded();
    let (_stream, _) = worker.get(10, None);
    host(|host| host.broken.extend([("proxy_set_shared_data", 10)]));
    worker.answer_callouts();
    assert_eq!(super::statuses(), [(10, 200)]);
    let ticks = worker.ticks;
    worker.run(Duration::from_secs(10));
    assert!(worker.ticks - ticks < 30, "{}", worker.ticks - ticks);
    host(|host| host.broken.clear());
    worker.run(Duration::from_secs(10));
    assert_eq!(worker.usage.values().sum::<u64>(), 1);
}
