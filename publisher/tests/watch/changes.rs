//! What the database says becomes snapshot and changes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::Heard;

use crate::instance::{Instance, Memory, a_team, decoded, eventually, settings};
use crate::published::Published;
use crate::support::{PUBLISHER_PASSWORD, Redis, publish, small_document};

#[test]
fn the_first_snapshot_begins_a_lineage() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    let figures = instance.wait_until_live();
    let published = Published::read(&mut redis);
    let manifest = &published.manifest;
    assert_eq!((manifest.generation, manifest.lineage), (1, 1));
    assert!(manifest.etags_watched);
    let counts = published.counts();
    assert_eq!((counts.teams, counts.team_secrets), (50, 50));
    assert_eq!(published.records, decoded(&source.records.lock().unwrap()));
    assert_eq!(published.changes[0].previous, manifest.stream_id);
    assert!(published.watermarks()[0].etags_at >= manifest.stream_id.millis - 60_000);
    assert!(published.watermarks().last().unwrap().records_at.is_some());
    assert!(figures.active && figures.lineages == 1 && figures.errors == Default::default());
    instance.stop();
    let keys = redis.keys();
    assert!(
        !keys.contains(&"flag_definitions:lock".to_owned()),
        "{keys:?}"
    );
}

#[test]
fn a_restart_publishes_only_the_difference() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(50);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(2))));
    instance.wait("the first change", |figures| figures.upserts == 1);
    instance.stop();
    let before = Published::read(&mut redis);

    source.put("phs_1", None);
    source.put("phs_2", Some(&Record::TeamSecret(Tenant(9))));
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait("the difference", |figures| {
        figures.upserts == 1 && figures.removals == 1
    });
    instance.wait_until_live();
    let after = Published::read(&mut redis);
    assert_eq!(after.manifest, before.manifest);
    assert_eq!(after.changed(), 3);
    assert_eq!(after.get("phs_1"), None);
    assert_eq!(after.records, decoded(&source.records.lock().unwrap()));
    // The second writer has a higher number.
    assert!(after.changes.last().unwrap().fence > before.changes.last().unwrap().fence);
}

/// Whether the last watermark says that the records are those of its moment.
fn is_complete(redis: &mut Redis) -> bool {
    let watermark = Published::read(redis).watermarks().pop();
    watermark.is_some_and(|watermark| watermark.records_at == Some(watermark.etags_at))
}

#[test]
fn what_is_announced_goes_out_at_once() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let mut slow = settings(&redis.url());
    slow.diff_interval = Duration::from_secs(600);
    source.say(Heard::Listening);
    source.say(Heard::UpTo(Instant::now() + Duration::from_secs(600)));
    let instance = Instance::start(slow, &source);
    instance.wait_until_live();
    instance.wait("listening", |figures| figures.listening);
    eventually("a read since then", || is_complete(&mut redis));

    source.put("phs_1", None);
    source.announce("phs_1");
    source.put("phc_77", Some(&a_team(77)));
    source.announce("phc_77");
    // All of them at once: announced removals are never held back.
    for team in 2..=5 {
        source.put(&format!("phs_{team}"), None);
        source.announce(&format!("phs_{team}"));
    }
    instance.wait("the changes", |figures| {
        figures.upserts == 1 && figures.removals == 5
    });
    let published = Published::read(&mut redis);
    assert_eq!(published.records, decoded(&source.records.lock().unwrap()));
    // While changes are announced the records are complete as of now, without a full read.
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_complete(&mut redis));

    let reads = source.reads.load(Ordering::SeqCst);
    source.put("phs_6", Some(&Record::TeamSecret(Tenant(1))));
    source.say(Heard::Overflow);
    instance.wait("what was not announced", |figures| figures.upserts == 2);
    assert_eq!(source.reads.load(Ordering::SeqCst), reads + 1);
    source.say(Heard::NotListening("gone".to_owned()));
    instance.wait("deafness", |figures| !figures.listening);
}

#[test]
fn a_read_that_began_before_an_announcement_does_not_undo_it() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    source.holds.store(true, Ordering::SeqCst);
    let reads = source.reads.load(Ordering::SeqCst);
    eventually("a read", || source.reads.load(Ordering::SeqCst) > reads);
    source.put("phs_1", None);
    source.announce("phs_1");
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(1))));
    source.announce("phs_new");
    instance.wait("the announcements", |figures| {
        figures.removals == 1 && figures.upserts == 1
    });
    source.holds.store(false, Ordering::SeqCst);
    let done = source.reads.load(Ordering::SeqCst);
    eventually("more reads", || {
        source.reads.load(Ordering::SeqCst) > done + 2
    });
    let figures = instance.status.figures();
    assert_eq!((figures.removals, figures.upserts), (1, 1));
    assert_eq!(Published::read(&mut redis).get("phs_1"), None);
}

#[test]
fn too_many_removals_are_held_back_and_the_rest_goes_on() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(300);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    let all = source.records.lock().unwrap().clone();
    for team in 1..=200 {
        source.put(&format!("phs_{team}"), None);
    }
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(1))));
    instance.wait("the alarm", |figures| {
        figures.held_back == 200 && figures.upserts == 1
    });
    let published = Published::read(&mut redis);
    assert_eq!(published.records.len(), 601);
    source.put("phs_new", None);
    *source.records.lock().unwrap() = all;
    instance.wait("its end", |figures| {
        figures.held_back == 0 && figures.removals == 1
    });

    // Trusted: all of it goes.
    instance.stop();
    let mut trusting = settings(&redis.url());
    trusting.max_removal_percent = 100;
    source.records.lock().unwrap().clear();
    let instance = Instance::start(trusting, &source);
    instance.wait("removals", |figures| figures.removals == 600);
    assert!(Published::read(&mut redis).records.is_empty());
}

#[test]
fn the_snapshot_is_written_again_and_old_changes_go() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let mut often = settings(&redis.url());
    often.snapshot_interval = Duration::from_millis(300);
    let instance = Instance::start(often, &source);
    instance.wait_until_live();
    let first = redis.manifest();
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(1))));
    instance.wait("a second snapshot", |figures| figures.snapshots >= 2);
    let published = Published::read(&mut redis);
    let second = &published.manifest;
    assert_eq!(second.lineage, first.lineage);
    assert!(second.generation > first.generation);
    // One more for each, of which there may be a third meanwhile.
    instance.wait("its figure", |figures| {
        first.generation + figures.snapshots > second.generation
    });
    assert!(second.stream_id > first.stream_id);
    assert_eq!(published.records, decoded(&source.records.lock().unwrap()));
    let ttl = redis.ttl("flag_definitions:snapshot:1:0");
    assert!((1..=600).contains(&ttl), "{ttl}");
    // The chain reaches from before the snapshot over it.
    let id = second.stream_id.to_string();
    let entries: Vec<(String, redis::Value)> =
        redis.command("XRANGE", &["flag_definitions:changes", &id, &id]);
    assert_eq!(entries.len(), 1);
}

#[test]
fn a_snapshot_of_a_file_gives_way_and_comes_back_only_without_a_watcher() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let file = redis.manifest();
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    let published = Published::read(&mut redis);
    assert_eq!(published.manifest.lineage, 2);
    assert!(published.manifest.stream_id > file.stream_id);

    let refused = publish(&redis.url(), &small_document()).expect(1);
    assert!(
        refused.stderr.contains("another publisher is at work"),
        "{}",
        refused.stderr
    );
    instance.stop();
    let last = Published::read(&mut redis).last_id();
    publish(&redis.url(), &small_document()).expect(0);
    assert!(redis.manifest().stream_id > last);
}

#[test]
fn a_lineage_goes_on_above_ids_from_the_future() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let future = "9000000000000-7";
    let () = redis.command("XADD", &["flag_definitions:changes", future, "x", "y"]);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    eventually("three entries", || {
        Published::read(&mut redis).changes.len() >= 3
    });
    let published = Published::read(&mut redis);
    assert!(published.manifest.stream_id > future.parse().unwrap());
    assert_eq!(
        published.changes[1].id.millis,
        published.manifest.stream_id.millis
    );
    // Clients are told the true time all the same.
    assert!(published.watermarks()[0].etags_at < 9_000_000_000_000);
}

#[test]
fn the_publisher_needs_no_more_than_its_permissions() {
    let mut redis = Redis::start_with_users();
    let url = format!(
        "redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{}/0",
        redis.port
    );
    let () = redis.command("CONFIG", &["SET", "notify-keyspace-events", "K$"]);
    let source = Memory::with_teams(5);
    let mut often = settings(&url);
    often.snapshot_interval = Duration::from_millis(200);
    let instance = Instance::start(often, &source);
    instance.wait_until_live();
    let key = "posthog:1:cache/teams/3/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[key, "abc"]);
    instance.wait("a hint and a snapshot", |figures| {
        figures.etag_changes == 1 && figures.hints >= 1 && figures.snapshots >= 2
    });
    let () = redis.command("DEL", &["flag_definitions:snapshot"]);
    instance.wait("a new lineage", |figures| figures.lineages == 2);
    instance.stop();
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused");
}

#[test]
fn removed_teams_take_their_etags_along() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let key = "posthog:1:cache/teams/3/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[key, "abc"]);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    assert_eq!(Published::read(&mut redis).counts().etags, 1);
    source.put("phc_3", None);
    instance.wait("the removal", |figures| {
        figures.removals == 1 && figures.etag_changes == 1
    });
    assert_eq!(
        Published::read(&mut redis).records,
        decoded(&source.records.lock().unwrap())
    );
    source.put("phc_3", Some(&a_team(3)));
    instance.wait("its return", |figures| figures.etag_changes == 2);
}
