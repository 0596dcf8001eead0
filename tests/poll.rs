//! The script that asks for manifest and changes, in a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]
#![cfg(not(target_arch = "wasm32"))]

mod real_redis;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::redis::Reply;
use flag_definitions_filter::snapshot::change::{self, Content, Watermark, Written};
use flag_definitions_filter::snapshot::poll::{self, MAX_CHANGES, Poll};
use flag_definitions_filter::surfaces::posthog::directory::Record;
use real_redis::Redis;

const PREFIX: &str = "flag_definitions:";
const MANIFEST: &str = "flag_definitions:snapshot";
const CHANGES: &str = "flag_definitions:changes";

fn ask<T>(
    redis: &mut Redis,
    known: &str,
    position: Option<&str>,
    f: impl FnOnce(Poll<'_>) -> T,
) -> T {
    let position = position.map(|id| id.parse::<StreamId>().unwrap());
    let parts = redis.send(&poll::command(PREFIX, known, position)).unwrap();
    let reply = Reply::array(parts.iter().map(Vec::as_slice));
    f(Poll::of(&reply).unwrap())
}

fn append(redis: &mut Redis, id: &str, previous: &str, written: &Written) {
    redis::cmd("XADD")
        .arg(&[CHANGES, id, "p", previous, "f", "4", "k", written.kind, "v"])
        .arg(&written.value)
        .exec(&mut redis.connection)
        .unwrap();
}

fn mark(at: u64) -> Written {
    let records_at = Some(at + 1);
    Watermark {
        etags_at: at,
        records_at,
    }
    .written()
}

#[test]
fn the_manifest_comes_once() {
    let mut redis = Redis::start();
    ask(&mut redis, "", None, |poll| {
        assert_eq!(
            (poll.digest, poll.manifest, poll.newest),
            (None, None, None)
        );
    });
    redis.set(MANIFEST, b"\xff{}");
    let digest = ask(&mut redis, "", None, |poll| {
        assert_eq!(poll.manifest, Some(&b"\xff{}"[..]));
        poll.digest.unwrap().to_owned()
    });
    ask(&mut redis, &digest, None, |poll| {
        assert_eq!((poll.digest, poll.manifest), (Some(digest.as_str()), None));
    });
    redis.set(MANIFEST, b"other");
    ask(&mut redis, &digest, None, |poll| {
        assert_eq!(poll.manifest, Some(&b"other"[..]));
        assert_ne!(poll.digest, Some(digest.as_str()));
    });
}

#[test]
fn changes_come_in_order_after_the_position_and_no_more_than_fit() {
    let mut redis = Redis::start();
    let now = redis.now();
    let hash = Sha256Hash::of(b"any");
    let grave = Record::Tombstone.encode().unwrap();
    let records = change::split([(hash, grave.as_slice())]).remove(0);
    append(&mut redis, "5-0", "4-7", &records);
    append(&mut redis, "5-1", "5-0", &mark(3));
    ask(&mut redis, "", Some("4-7"), |poll| {
        assert!(poll.redis_now >= now && poll.redis_now < now + 60_000);
        assert_eq!(poll.newest, "5-1".parse().ok());
        let changes: Vec<_> = poll.changes.into_iter().map(Result::unwrap).collect();
        let order: Vec<_> = changes
            .iter()
            .map(|change| format!("{}<{} {}", change.previous, change.id, change.fence))
            .collect();
        assert_eq!(order, ["4-7<5-0 4", "5-0<5-1 4"]);
        assert!(matches!(&changes[0].content, Content::Records(bytes) if *bytes == records.value));
        assert!(
            matches!(&changes[1].content, Content::Watermark(mark) if mark.records_at == Some(4))
        );
    });
    ask(&mut redis, "", Some("5-1"), |poll| {
        assert!(poll.changes.is_empty() && poll.newest == "5-1".parse().ok());
    });
    for n in 0..100 {
        append(&mut redis, &format!("6-{n}"), "0-0", &mark(n));
    }
    ask(&mut redis, "", Some("5-1"), |poll| {
        assert_eq!(
            (poll.changes.len(), poll.newest),
            (MAX_CHANGES, "6-99".parse().ok())
        );
    });
}

#[test]
fn entries_of_strangers_end_what_can_be_read() {
    let mut redis = Redis::start();
    append(&mut redis, "5-0", "4-0", &mark(1));
    redis::cmd("XADD")
        .arg(&[CHANGES, "6-0", "only", "two"])
        .exec(&mut redis.connection)
        .unwrap();
    append(&mut redis, "7-0", "6-0", &mark(2));
    ask(&mut redis, "", Some("4-0"), |poll| {
        let read: Vec<bool> = poll.changes.iter().map(Result::is_ok).collect();
        assert_eq!(read, [true, false]);
    });
}

#[test]
fn another_type_under_a_key_is_an_error() {
    let mut redis = Redis::start();
    redis.set(CHANGES, b"x");
    let command = poll::command(PREFIX, "", "0-1".parse().ok());
    assert!(redis.send(&command).unwrap_err().contains("WRONGTYPE"));
    assert!(redis.send(&poll::command(PREFIX, "", None)).is_ok());
}
