//! What goes wrong with Redis and with the database.

use std::sync::atomic::Ordering;
use std::time::Duration;

use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::tenant::Tenant;

use crate::instance::{Instance, Memory, decoded, eventually, settings};
use crate::published::Published;
use crate::support::Redis;

const STREAM: &str = "flag_definitions:changes";

#[test]
fn a_flushed_redis_gets_everything_again_above_the_old_ids() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    let fence = Published::read_when_live(&mut redis, &instance).changes[0].fence;
    let before = Published::read(&mut redis);
    // Without a database too: what was published is remembered.
    source.is_away.store(true, Ordering::SeqCst);
    let () = redis.command("FLUSHALL", &[""; 0]);
    instance.wait("a second lineage", |figures| {
        figures.lineages == 2 && figures.active
    });
    eventually("a watermark", || {
        !Published::read(&mut redis).watermarks().is_empty()
    });
    let after = Published::read(&mut redis);
    assert_eq!(after.records, before.records);
    assert!(after.manifest.generation > before.manifest.generation);
    assert!(after.manifest.stream_id > before.last_id());
    assert!(after.changes[0].fence > fence);
}

#[test]
fn lost_pages_and_changes_are_made_good_within_the_lineage() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    let first = redis.manifest();
    let () = redis.command("DEL", &["flag_definitions:snapshot:1:0"]);
    instance.wait("the evicted page", |figures| figures.snapshots == 2);
    assert_eq!(Published::read(&mut redis).manifest.lineage, first.lineage);

    // An entry in the middle, the last one, and all of them.
    let ids: Vec<(String, redis::Value)> =
        redis.command("XRANGE", &[STREAM, "-", "+", "COUNT", "2"]);
    let () = redis.command("XDEL", &[STREAM, &ids[1].0]);
    instance.wait("a snapshot", |figures| figures.snapshots == 3);
    let script = "local e=redis.call('XREVRANGE',KEYS[1],'+','-','COUNT',1) return redis.call('XDEL',KEYS[1],e[1][1])";
    let () = redis.command("EVAL", &[script, "1", STREAM]);
    instance.wait("another", |figures| figures.snapshots == 4);
    let () = redis.command("DEL", &[STREAM]);
    instance.wait("one more", |figures| figures.snapshots == 5);
    let last = Published::read(&mut redis);
    assert_eq!(last.manifest.lineage, first.lineage);
    assert_eq!(last.records, decoded(&source.records.lock().unwrap()));
    assert_eq!(instance.status.figures().lineages, 1);
}

#[test]
fn what_somebody_else_wrote_is_not_continued() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    let () = redis.command("XADD", &[STREAM, "*", "a", "b"]);
    instance.wait("a second lineage", |figures| figures.lineages == 2);
    // Written and removed again: the stream takes no lower id any more.
    let script = "redis.call('XADD',KEYS[1],'9000000000000-0','a','b') redis.call('XDEL',KEYS[1],'9000000000000-0')";
    let () = redis.command("EVAL", &[script, "1", STREAM]);
    instance.wait("a third", |figures| figures.lineages == 3);
    let () = redis.command("SET", &["flag_definitions:snapshot", "{}"]);
    instance.wait("a fourth", |figures| figures.lineages == 4);
    eventually("a watermark", || {
        !Published::read(&mut redis).watermarks().is_empty()
    });
}

#[test]
fn damaged_remains_begin_a_new_lineage() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let mut lineage = 0;
    for damage in [
        &[
            "SETRANGE",
            "flag_definitions:snapshot:GENERATION:0",
            "50",
            "x",
        ][..],
        &["DEL", "flag_definitions:snapshot:GENERATION:0"],
        &["XTRIM", STREAM, "MAXLEN", "1"],
        &[
            "XADD", STREAM, "*", "p", "1-0", "f", "1", "k", "w", "v", "1:0",
        ],
        &["SET", "flag_definitions:snapshot", "{"],
        &["DEL", "flag_definitions:snapshot"],
    ] {
        let instance = Instance::start(settings(&redis.url()), &source);
        instance.wait_until_live();
        eventually("some entries", || {
            Published::read(&mut redis).changes.len() > 2
        });
        instance.stop();
        let published = Published::read(&mut redis);
        assert!(published.manifest.lineage > lineage, "before {damage:?}");
        lineage = published.manifest.lineage;
        let generation = published.manifest.generation.to_string();
        let arguments: Vec<String> = damage[1..]
            .iter()
            .map(|part| part.replace("GENERATION", &generation))
            .collect();
        let _: redis::Value = redis.command(damage[0], &arguments);
    }
}

#[test]
fn without_the_database_etags_go_on() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    instance.stop();
    source.is_away.store(true, Ordering::SeqCst);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait("failures", |figures| figures.errors.postgres > 0);
    instance.wait_until_live();
    // Never read by this instance: nobody knows.
    let watermark = Published::read(&mut redis).watermarks().pop().unwrap();
    assert_eq!(watermark.records_at, None);
    let key = "posthog:1:cache/teams/3/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[key, "abc"]);
    instance.wait("an ETag", |figures| figures.etag_changes == 1);
    source.is_away.store(false, Ordering::SeqCst);
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(1))));
    instance.wait("its return", |figures| figures.upserts == 1);
    eventually("a watermark", || {
        let watermark = Published::read(&mut redis).watermarks().pop();
        watermark.is_some_and(|watermark| watermark.records_at.is_some())
    });
}

#[test]
fn redis_comes_back_empty_or_as_it_was() {
    let redis = Redis::start();
    let port = redis.port;
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    drop(redis);
    instance.wait("failures", |figures| {
        figures.errors.redis > 1 && !figures.active
    });
    let mut redis = Redis::start_at(port);
    instance.wait("a second lineage", |figures| figures.lineages == 2);
    let expected = decoded(&source.records.lock().unwrap());
    assert_eq!(Published::read(&mut redis).records, expected);

    // Connections cut: the lineage goes on.
    let last = Published::read(&mut redis).last_id();
    let () = redis.command("CLIENT", &["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("more entries", || {
        Published::read(&mut redis).last_id() > last
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(instance.status.figures().lineages, 2);
}

#[test]
fn trimming_spares_what_the_snapshot_needs() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let mut short = settings(&redis.url());
    short.retention = Duration::from_millis(1_000);
    short.trim_interval = Duration::from_millis(100);
    let instance = Instance::start(short, &source);
    instance.wait_until_live();
    // The snapshot is renewed for the sake of trimming alone.
    instance.wait("snapshots", |figures| figures.snapshots >= 4);
    for _ in 0..50 {
        let published = Published::read(&mut redis);
        assert!(published.changes.len() < 60);
        std::thread::sleep(Duration::from_millis(20));
    }
    let length: u64 = redis.command("XLEN", &[STREAM]);
    assert!(length < 60, "{length}");
    assert_eq!(instance.status.figures().lineages, 1);
}
