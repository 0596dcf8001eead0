//! The scripts of the quota and its latch, in a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]
#![cfg(not(target_arch = "wasm32"))]

mod real_redis;

use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::{Candidate, ETag};
use flag_definitions_filter::redis::{Command, Failure, Reply, Script};
use flag_definitions_filter::shared::MemoryStore;
use flag_definitions_filter::surfaces::posthog::definitions::Need;
use flag_definitions_filter::surfaces::posthog::definitions::latch::{self, Limit, latched};
use flag_definitions_filter::surfaces::posthog::definitions::pair::{
    Stored, etag_key, payload_key,
};
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::surfaces::posthog::quota::reader::{QuotaEvent, QuotaReader, Target};
use flag_definitions_filter::surfaces::posthog::quota::{QuotaCopy, QuotaEnd};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_filter::time::Monotonic;
use real_redis::Redis;

const PREFIX: &str = "flag_definitions:";
const LIST: &str = "@posthog/quota-limits/feature_flag_requests";
const TEAM: Tenant = Tenant(7);
const TOKEN: &str = "phc_seven";
const X: &str = "ccbb299897f0a689";
const Y: &str = "f3268f0150b30bf3";

impl Redis {
    fn put_payload(&mut self, etag: &[u8]) {
        self.set(&payload_key(&Definitions::default(), TEAM), b"{}");
        self.set(&etag_key(&Definitions::default(), TEAM), etag);
    }

    fn pair(&mut self, held: Option<Candidate>) -> Pair {
        let need = Need { team: TEAM, held };
        let command = need.command(&Definitions::default(), PREFIX);
        let parts = self.send(&command).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match Stored::of(&Ok(Reply::array(parts.iter().map(Vec::as_slice)))) {
            Stored::Same { etag, .. } => Pair::Same(text(etag.as_bytes())),
            Stored::Full { etag, period, .. } => Pair::Full(
                etag.and_then(|etag| latched(&etag, period.suffix()))
                    .map(|etag| text(etag.as_bytes())),
                period.suffix().map(|suffix| text(suffix.as_bytes())),
            ),
            other => panic!("{other:?}"),
        }
    }

    /// The end of the quota period, if it lies ahead.
    fn pending(&mut self, held: Option<Candidate>) -> Option<u64> {
        let need = Need { team: TEAM, held };
        let command = need.command(&Definitions::default(), PREFIX);
        let parts = self.send(&command).unwrap();
        let end = match Stored::of(&Ok(Reply::array(parts.iter().map(Vec::as_slice)))) {
            Stored::Same { pending, .. } => pending,
            Stored::Full { period, .. } | Stored::Missing { period } => period.pending(),
            Stored::Failed(failure) => panic!("{failure}"),
        };
        end.map(QuotaEnd::as_millis)
    }

    /// The ETag that a client without any is given.
    fn public(&mut self) -> String {
        match self.pair(None) {
            Pair::Full(Some(etag), _) => etag,
            other => panic!("{other:?}"),
        }
    }

    fn latch(&mut self, grace: u64, end: u64, gone: bool) {
        let limit = Limit {
            team: TEAM,
            end: QuotaEnd::from_millis(end),
            gone,
        };
        let grace = Duration::from_millis(grace);
        let command = latch::command(&Definitions::default(), PREFIX, grace, &[limit]);
        let reply = self.send(&command).unwrap();
        assert_eq!(reply[0], b"latch");
    }

    /// End and ETag of the latch.
    fn latched(&mut self) -> Option<(u64, String)> {
        let latch = self.get(&latch::key(PREFIX, TEAM))?;
        let mut parts = latch.split(':');
        let end = parts.next().unwrap().parse().unwrap();
        Some((end, parts.nth(1).unwrap().to_owned()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Pair {
    /// The public ETag.
    Same(String),
    /// The public ETag, and the suffix.
    Full(Option<String>, Option<String>),
}

fn held(tag: &str) -> Option<Candidate> {
    Some(Candidate::Tag(ETag::new(tag.as_bytes()).unwrap()))
}

fn base36(mut seconds: u64) -> String {
    let mut digits = Vec::new();
    while seconds > 0 {
        digits.push(char::from_digit((seconds % 36) as u32, 36).unwrap());
        seconds /= 36;
    }
    digits.iter().rev().collect()
}

fn with_end(etag: &str, end: u64) -> String {
    format!("{etag}-{}", base36(end / 1_000))
}

/// What Python's pickle makes of a string.
fn pickled(protocol: u8, text: &str) -> Vec<u8> {
    let length = text.len() as u8;
    let mut bytes = vec![0x80, protocol];
    if protocol >= 4 {
        bytes.extend([0x95, length + 4, 0, 0, 0, 0, 0, 0, 0, 0x8c, length]);
    } else {
        bytes.extend([0x58, length, 0, 0, 0]);
    }
    bytes.extend(text.as_bytes());
    bytes.extend(if protocol >= 4 {
        &b"\x94."[..]
    } else {
        b"q\x00."
    });
    bytes
}

// === The pair ===

#[test]
fn an_etag_is_read_plain_and_pickled() {
    let mut redis = Redis::start();
    let mut short_frameless = vec![0x80, 4, 0x8c, 16];
    short_frameless.extend(X.as_bytes());
    short_frameless.push(b'.');
    let mut long_framed = vec![0x80, 5, 0x95, 23, 0, 0, 0, 0, 0, 0, 0, 0x58, 16, 0, 0, 0];
    long_framed.extend(X.as_bytes());
    long_framed.extend(b"\x94.");
    for stored in [
        X.as_bytes().to_vec(),
        pickled(3, X),
        pickled(4, X),
        pickled(5, X),
        short_frameless,
        long_framed,
    ] {
        redis.put_payload(&stored);
        let full = Pair::Full(Some(X.to_owned()), None);
        assert_eq!(redis.pair(None), full, "{stored:?}");
        assert_eq!(redis.pair(held(Y)), full);
        assert_eq!(redis.pair(held(X)), Pair::Same(X.to_owned()));
        assert_eq!(redis.pair(Some(Candidate::Any)), Pair::Same(X.to_owned()));
    }
}

#[test]
fn what_is_no_etag_counts_as_absent() {
    let mut redis = Redis::start();
    let whole = pickled(4, X);
    let mut stored: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    let mut lying = pickled(3, X);
    lying[3] = 200;
    stored.push(lying);
    let mut huge = pickled(3, X);
    huge[3..7].fill(0xff);
    stored.extend([
        huge,
        pickled(4, "a b"),
        pickled(4, ""),
        b"a\r\nb".to_vec(),
        b"\x80".to_vec(),
        b"\x80.".to_vec(),
        b"\x80\x04\x8c.".to_vec(),
        b"\x80\x03X.".to_vec(),
        b"\x80\x03X\x01\x00\x00.".to_vec(),
        vec![b'a'; 51],
    ]);
    for stored in stored {
        redis.put_payload(&stored);
        assert_eq!(redis.pair(None), Pair::Full(None, None), "{stored:?}");
        assert_eq!(redis.pair(Some(Candidate::Any)), Pair::Full(None, None));
    }
}

#[test]
fn arbitrary_bytes_as_etag_or_latch_never_stop_the_scripts() {
    let mut redis = Redis::start();
    // xorshift: the same bytes in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..next() % 24).map(|_| next() as u8).collect();
        for (place, choices) in [
            (0, &[0x80][..]),
            (2, &[0x95, 0x8c, 0x58]),
            (11, &[0x8c, 0x58]),
        ] {
            if let Some(byte) = bytes.get_mut(place)
                && next() % 2 == 0
            {
                *byte = choices[next() as usize % choices.len()];
            }
        }
        if next() % 2 == 0 {
            bytes.push(b'.');
        }
        redis.put_payload(&bytes);
        redis.set(&latch::key(PREFIX, TEAM), &bytes);
        redis.pair(held(X));
        redis.latch(1_000, 1_763_728_123_000, next() % 2 == 0);
    }
}

#[test]
fn another_type_under_the_etags_key_costs_no_other_team_its_latch() {
    let mut redis = Redis::start();
    put_list(&mut redis, &etag_key(&Definitions::default(), TEAM));
    let end = redis.now() + 60_000;
    redis.latch(1_000, end, false);
    assert_eq!(redis.latched(), Some((end, String::new())));
}

/// Makes a key one of another type than string.
fn put_list(redis: &mut Redis, key: &str) {
    redis::cmd("DEL")
        .arg(key)
        .exec(&mut redis.connection)
        .unwrap();
    redis::cmd("RPUSH")
        .arg(key)
        .arg("x")
        .exec(&mut redis.connection)
        .unwrap();
}

#[test]
fn an_etag_of_another_type_counts_as_absent() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    put_list(&mut redis, &etag_key(&Definitions::default(), TEAM));
    for asked in [None, held(X), Some(Candidate::Any)] {
        assert_eq!(redis.pair(asked), Pair::Full(None, None));
    }
    // The suffix holds for the computed ETag.
    let end = redis.now() - 1;
    redis.latch(1_000, end, true);
    let suffix = Some(base36(end / 1_000));
    assert_eq!(redis.pair(None), Pair::Full(None, suffix));
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
fn a_payload_of_another_type_and_a_missing_permission_are_errors() {
    let mut redis = Redis::start();
    redis.put_payload(X.as_bytes());
    let need = Need {
        team: TEAM,
        held: None,
    };
    let command = need.command(&Definitions::default(), PREFIX);
    put_list(&mut redis, &payload_key(&Definitions::default(), TEAM));
    assert!(redis.send(&command).unwrap_err().contains("WRONGTYPE"));
    redis.put_payload(X.as_bytes());
    let restrict = |redis: &mut Redis, patterns: &[&str]| {
        let rules = ["reset", "on", "nopass", "+@all"];
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg("default")
            .arg(&rules)
            .arg(patterns)
            .exec(&mut redis.connection)
            .unwrap();
    };
    restrict(&mut redis, &["~posthog:*"]);
    assert!(redis.send(&command).is_err(), "the latch may not be read");
    restrict(&mut redis, &["~flag_definitions:*", "~*.json"]);
    assert!(redis.send(&command).is_err(), "the ETag may not be read");
    restrict(&mut redis, &["~*"]);
    assert_eq!(redis.public(), X);
}

// === The latch ===

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
    assert_eq!(redis.pair(held(X)), full, "who dropped his flags gets them");
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

// === The reader ===

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
