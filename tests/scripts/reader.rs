//! The reader of the quota's list, as more than one Envoy has it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::redis::{Command, Failure, Reply, Script};
use flag_definitions_filter::shared::MemoryStore;
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::surfaces::posthog::quota::reader::{QuotaEvent, QuotaReader, Target};
use flag_definitions_filter::surfaces::posthog::quota::{QuotaCopy, QuotaEnd};
use flag_definitions_filter::time::Monotonic;

use crate::real_redis::Redis;
use crate::stored::{PREFIX, TEAM, X, held, with_end};

const LIST: &str = "@posthog/quota-limits/feature_flag_requests";
const TOKEN: &str = "phc_seven";

/// An Envoy that reads the list.
struct Envoy {
    store: MemoryStore,
    reader: QuotaReader,
    copy: QuotaCopy,
    started: Instant,
    events: Vec<QuotaEvent>,
}

impl Envoy {
    fn new() -> Self {
        let interval = Duration::from_millis(100);
        Self {
            store: MemoryStore::default(),
            reader: QuotaReader::new(
                "q".to_owned(),
                PREFIX.to_owned(),
                Definitions::default(),
                interval,
                true,
            ),
            copy: QuotaCopy::default(),
            started: Instant::now(),
            events: Vec::new(),
        }
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_millis(self.started.elapsed().as_millis() as u64)
    }

    /// Ticks until nothing is left to do.
    fn read(&mut self, redis: &mut Redis) {
        self.read_slowly(redis, Duration::ZERO);
    }

    /// The same, where each question takes so long to get to Redis.
    fn read_slowly(&mut self, redis: &mut Redis, takes: Duration) {
        self.reader.read_soon();
        loop {
            let now = self.now();
            let known = Sha256Hash::of(TOKEN.as_bytes());
            let team_of = |hash: &Sha256Hash| (*hash == known).then_some(TEAM);
            let command = self
                .reader
                .tick(&self.store, now, team_of, &mut self.events);
            if let Some((_, command)) = command {
                sleep(takes);
                let parts = redis.send(&command);
                let reply = match &parts {
                    Ok(parts) => Ok(Reply::array(parts.iter().map(Vec::as_slice))),
                    Err(_) => Err(Failure::Refused),
                };
                self.reader.reply(&self.store, reply, &mut self.events);
            }
            if !self.reader.is_busy() {
                break;
            }
        }
    }

    fn limited(&mut self) -> bool {
        self.copy.refresh(&self.store, "q", self.now()).unwrap();
        self.copy.set().ends(TEAM, None, self.now()).is_some()
    }
}

fn limit(redis: &mut Redis, token: &[u8], score: &str) {
    redis::cmd("ZADD")
        .arg(LIST)
        .arg(score)
        .arg(token)
        .exec(&mut redis.connection)
        .unwrap();
}

#[test]
fn the_list_is_read_whatever_is_in_it() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let now = redis.now();
    let mut envoy = Envoy::new();
    envoy.read(&mut redis);
    assert!(envoy.copy.set().is_empty() && !envoy.limited());
    let soon = format!("{}.5", now / 1_000 + 60);
    limit(&mut redis, TOKEN.as_bytes(), &soon);
    limit(&mut redis, b"over", &(now / 1_000 - 1).to_string());
    limit(&mut redis, b"never ends", "inf");
    limit(&mut redis, b"far", "1e+300");
    limit(&mut redis, b"\x00\r\n:binary\xff", "99999999999.25");
    limit(&mut redis, &[b'x'; 201], "inf");
    envoy.read(&mut redis);
    assert!(envoy.limited());
    assert_eq!(envoy.copy.set().len(), 4);
    let expected = (now / 1_000 + 60) * 1_000 + 500;
    assert_eq!(redis.latched(), Some((expected, X.to_owned())));
    redis.set(LIST, b"not a sorted set");
    envoy.read(&mut redis);
    assert!(envoy.limited(), "the last set stays");
    assert_eq!(
        envoy.events,
        [QuotaEvent::Read, QuotaEvent::Read, QuotaEvent::ReadFailed]
    );
}

#[test]
fn ten_thousand_members_are_read_and_no_more() {
    let mut redis = Redis::start();
    let mut add = redis::cmd("ZADD");
    add.arg(LIST);
    for n in 0..10_500 {
        add.arg(4_000_000_000_u64 + n).arg(format!("phc_{n}"));
    }
    add.exec(&mut redis.connection).unwrap();
    let mut envoy = Envoy::new();
    envoy.read(&mut redis);
    envoy.limited();
    assert_eq!(envoy.copy.set().len(), 10_000);
    assert_eq!(envoy.events, [QuotaEvent::Truncated, QuotaEvent::Read]);
    let ends = |n: u32| {
        let hash = Sha256Hash::of(format!("phc_{n}").as_bytes());
        envoy.copy.set().ends(TEAM, Some(&hash), envoy.now())
    };
    assert!(ends(0).is_some() && ends(9_999).is_some() && ends(10_000).is_none());
}

#[test]
fn no_402_follows_a_suffix_of_the_same_limit() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 2_000;
    let score = format!("{}.{:03}", end / 1_000, end % 1_000);
    limit(&mut redis, TOKEN.as_bytes(), &score);
    let mut envoys = [Envoy::new(), Envoy::new()];
    for envoy in &mut envoys {
        envoy.read(&mut redis);
    }
    let mut refused = 0;
    let mut given = None;
    while given.is_none() || redis.now() < end + 200 {
        let public = redis.public();
        given = given.or((public != X).then_some(public));
        for envoy in &mut envoys {
            let limited = envoy.limited();
            refused += u32::from(limited);
            assert!(!(limited && given.is_some()));
        }
    }
    assert!(refused > 0);
    assert_eq!(given, Some(with_end(X, end)));
}

/// A limit ends at an Envoy before Redis' clock shows its end, by as much as the question for the time was under way.
#[test]
fn from_the_last_402_to_the_suffix_redis_says_that_the_end_lies_ahead() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let end = redis.now() + 2_500;
    let score = format!("{}.{:03}", end / 1_000, end % 1_000);
    limit(&mut redis, TOKEN.as_bytes(), &score);
    let mut envoy = Envoy::new();
    envoy.read_slowly(&mut redis, Duration::from_millis(700));
    assert!(envoy.limited());
    let mut between = 0;
    loop {
        let limited = envoy.limited();
        // The script looks later than the worker's copy does.
        let pending = redis.pending(held(X));
        match (limited, pending) {
            (_, Some(ahead)) => assert_eq!(ahead, end),
            (false, None) => break,
            (true, None) => panic!("402 after the suffix"),
        }
        between += u32::from(!limited);
    }
    assert!(
        between > 10,
        "the limit ended 700 ms early: {between} looks"
    );
    assert_eq!(redis.public(), with_end(X, end));
    assert_eq!(redis.pending(held(X)), None);
}

#[test]
fn an_envoy_that_starts_after_the_lift_ends_what_nobody_else_does() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let score = (redis.now() / 1_000 + 3_600).to_string();
    limit(&mut redis, TOKEN.as_bytes(), &score);
    let mut envoy = Envoy::new();
    envoy.read(&mut redis);
    assert!(envoy.limited());
    drop(envoy);
    redis::cmd("ZREM")
        .arg(LIST)
        .arg(TOKEN)
        .exec(&mut redis.connection)
        .unwrap();
    let mut started = Envoy::new();
    started.read(&mut redis);
    assert!(!started.limited());
    let ahead = redis.pending(held(X)).unwrap();
    started
        .reader
        .notice([(TEAM, QuotaEnd::from_millis(ahead))]);
    let before = redis.now();
    started.read(&mut redis);
    let (agreed, _) = redis.latched().unwrap();
    // Two intervals and 2 s.
    assert!((before + 2_200..before + 4_000).contains(&agreed));
    redis.wait_until(agreed);
    assert_eq!(redis.public(), with_end(X, agreed));
}

#[test]
fn a_lifted_limit_ends_at_both_envoys_with_one_suffix() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let score = (redis.now() / 1_000 + 3_600).to_string();
    limit(&mut redis, TOKEN.as_bytes(), &score);
    let mut envoys = [Envoy::new(), Envoy::new()];
    for envoy in &mut envoys {
        envoy.read(&mut redis);
        assert!(envoy.limited());
    }
    redis::cmd("ZREM")
        .arg(LIST)
        .arg(TOKEN)
        .exec(&mut redis.connection)
        .unwrap();
    let mut ends = Vec::new();
    for envoy in &mut envoys {
        envoy.read(&mut redis);
        assert!(!envoy.limited());
        ends.push(redis.latched().unwrap().0);
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(redis.public(), X, "an Envoy may still answer 402");
    redis.wait_until(ends[0]);
    assert_eq!(redis.public(), with_end(X, ends[0]));
}

#[test]
fn these_permissions_suffice_and_the_user_writes_nothing_but_latches() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    redis.set("flag_definitions:snapshot", b"{}");
    limit(&mut redis, TOKEN.as_bytes(), "inf");
    redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "filter",
            "on",
            ">secret",
            "resetchannels",
            "-@all",
        ])
        .arg(&[
            "%R~flag_definitions:*",
            "%R~posthog:*",
            "%R~@posthog/quota-limits/*",
        ])
        .arg(&["~flag_definitions:quota_end:*"])
        .arg(&[
            "+get",
            "+set",
            "+time",
            "+zrangebyscore",
            "+eval",
            "+eval_ro",
        ])
        .exec(&mut redis.connection)
        .unwrap();
    redis::cmd("AUTH")
        .arg(&["filter", "secret"])
        .exec(&mut redis.connection)
        .unwrap();
    let mut envoy = Envoy::new();
    envoy.read(&mut redis);
    assert_eq!(envoy.events, [QuotaEvent::Read]);
    assert!(envoy.limited());
    assert_eq!(redis.public(), X);
    assert!(redis.latched().is_some());
    for key in ["flag_definitions:snapshot", "posthog:1:x", LIST] {
        let text = format!("redis.call('SET','{key}','x') return {{}}");
        let script: &'static Script = Box::leak(Box::new(Script::new(text.leak())));
        let command = Command::eval(script, [] as [&str; 0], [] as [&str; 0]);
        assert!(redis.send(&command).is_err(), "{key}");
    }
}

#[test]
fn commands_go_to_the_redis_that_has_their_keys() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    limit(&mut redis, TOKEN.as_bytes(), "inf");
    let mut envoy = Envoy::new();
    let mut targets = Vec::new();
    loop {
        let now = envoy.now();
        let team_of = |_: &Sha256Hash| Some(TEAM);
        let command = envoy
            .reader
            .tick(&envoy.store, now, team_of, &mut envoy.events);
        if let Some((target, command)) = command {
            targets.push((
                target,
                String::from_utf8(command.words()[0].to_vec()).unwrap(),
            ));
            let parts = redis.send(&command).unwrap();
            let reply = Reply::array(parts.iter().map(Vec::as_slice));
            envoy
                .reader
                .reply(&envoy.store, Ok(reply), &mut envoy.events);
        }
        // Not longer: after an interval it begins again.
        if !targets.is_empty() && !envoy.reader.is_busy() {
            break;
        }
    }
    assert_eq!(
        targets,
        [
            (Target::Quota, "EVAL_RO".to_owned()),
            (Target::Definitions, "EVAL".to_owned())
        ]
    );
}
