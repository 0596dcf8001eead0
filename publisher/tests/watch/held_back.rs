//! What a full read removes only when an operator says so.

use std::sync::atomic::Ordering;

use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::Heard;
use flag_definitions_publisher::watch::WatchSettings;

use crate::instance::{Instance, Memory, a_team, decoded, eventually, settings};
use crate::published::Published;
use crate::support::{Redis, publish, small_document};

fn trusting(redis: &Redis) -> WatchSettings {
    WatchSettings {
        max_removal_percent: 100,
        ..settings(&redis.url())
    }
}

/// As of when whoever is not published may be refused, as the last watermark says.
fn records_at(redis: &mut Redis) -> Option<u64> {
    Published::read(redis).watermarks().pop()?.records_at
}

#[test]
fn an_emptied_database_removes_nothing_however_small_it_was() {
    let mut redis = Redis::start();
    for teams in [1u32, 2, 12] {
        let () = redis.command("FLUSHALL", &[""; 0]);
        let source = Memory::with_teams(teams);
        let all = decoded(&source.records.lock().unwrap());
        let instance = Instance::start(settings(&redis.url()), &source);
        instance.wait_until_live();
        source.records.lock().unwrap().clear();
        let held_back = u64::from(2 * teams);
        instance.wait("the alarm", |figures| figures.held_back == held_back);
        // The database does not tell any more who is unknown.
        eventually("no refusals", || records_at(&mut redis).is_none());
        assert_eq!(Published::read(&mut redis).records, all);
        instance.stop();

        // It goes on from what is published, and does not believe the same database after a restart either.
        let instance = Instance::start(settings(&redis.url()), &source);
        instance.wait("the alarm", |figures| figures.held_back == held_back);
        instance.wait_until_live();
        assert_eq!(Published::read(&mut redis).records, all);
        instance.stop();

        // Unless it is told to.
        let instance = Instance::start(trusting(&redis), &source);
        instance.wait("removals", |figures| figures.removals == held_back);
        assert!(Published::read(&mut redis).records.is_empty());
        assert_eq!(instance.status.figures().held_back, 0);
    }
}

#[test]
fn the_database_of_another_installation_is_not_believed() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(1);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    instance.stop();
    let other = Memory::default();
    other.put("phc_other", Some(&a_team(2)));
    other.put("phs_other", Some(&Record::TeamSecret(Tenant(2))));
    let instance = Instance::start(settings(&redis.url()), &std::sync::Arc::new(other));
    instance.wait("the alarm", |figures| figures.held_back == 2);
    let published = Published::read(&mut redis);
    assert!(published.get("phc_1").is_some() && published.get("phs_1").is_some());
}

#[test]
fn the_only_key_of_the_only_team_can_be_revoked() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(1);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    source.put("phs_1", None);
    let figures = instance.wait("the removal", |figures| figures.removals == 1);
    assert_eq!(figures.held_back, 0);
    let published = Published::read(&mut redis);
    assert_eq!(published.get("phs_1"), None);
    assert!(published.get("phc_1").is_some());
    eventually("refusals", || records_at(&mut redis).is_some());
}

#[test]
fn what_is_revoked_meanwhile_goes_out() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(12);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    for team in 1..=6 {
        source.records.lock().unwrap().retain(|hash, _| {
            *hash != flag_definitions_filter::hash::Sha256Hash::of(format!("phc_{team}").as_bytes())
        });
    }
    instance.wait("the alarm", |figures| figures.held_back >= 3);
    instance.wait("all of it", |figures| figures.held_back == 6);
    source.put("phs_12", None);
    instance.wait("the revocation", |figures| figures.removals == 1);
    let published = Published::read(&mut redis);
    assert_eq!(published.get("phs_12"), None);
    assert!(published.get("phc_1").is_some());
    assert_eq!(instance.status.figures().held_back, 6);
}

#[test]
fn a_snapshot_of_a_file_does_not_give_way_to_an_empty_database() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let file = redis.manifest();
    let source = Memory::with_teams(0);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait("the alarm", |figures| figures.held_back == 2);
    let reads = source.reads.load(Ordering::SeqCst);
    eventually("more reads", || {
        source.reads.load(Ordering::SeqCst) > reads + 2
    });
    assert_eq!(redis.manifest(), file);
    // With its team in it the database is the right one.
    source.put("phc_a", Some(&a_team(7)));
    instance.wait_until_live();
    assert_eq!(instance.status.figures().held_back, 0);
    assert!(redis.manifest().generation > file.generation);
    assert_eq!(Published::read(&mut redis).records.len(), 1);
}

#[test]
fn damaged_remains_do_not_give_way_to_an_empty_database() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    instance.stop();
    let () = redis.command("DEL", &["flag_definitions:changes"]);
    let () = redis.command("XADD", &["flag_definitions:changes", "*", "a", "b"]);
    let manifest = redis.manifest();
    source.records.lock().unwrap().clear();
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait("the alarm", |figures| figures.held_back == 10);
    assert_eq!(redis.manifest(), manifest);
    instance.stop();
    let instance = Instance::start(trusting(&redis), &source);
    instance.wait("a lineage", |figures| figures.lineages == 1);
    assert!(Published::read(&mut redis).records.is_empty());
}

#[test]
fn announced_removals_of_all_teams_go_out_and_an_overflow_does_not() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(4);
    source.say(Heard::Listening);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    let all = source.records.lock().unwrap().clone();
    // As TRUNCATE says it.
    source.records.lock().unwrap().clear();
    source.say(Heard::Overflow);
    instance.wait("the alarm", |figures| figures.held_back == 8);
    *source.records.lock().unwrap() = all;
    instance.wait("its end", |figures| figures.held_back == 0);
    for team in 1..=4 {
        for token in [format!("phc_{team}"), format!("phs_{team}")] {
            source.put(&token, None);
            source.announce(&token);
        }
    }
    instance.wait("the removals", |figures| figures.removals == 8);
    assert!(Published::read(&mut redis).records.is_empty());
}

#[test]
fn a_table_that_vanished_takes_no_keys_along() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(5);
    let key = Record::ProjectSecret {
        team: Tenant(1),
        reads_flags: true,
    };
    source.put("phs_project", Some(&key));
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    source.lacks_project_keys.store(true, Ordering::SeqCst);
    source.put("phs_project", None);
    instance.wait("the alarm", |figures| figures.held_back == 1);
    assert!(Published::read(&mut redis).get("phs_project").is_some());
    source.lacks_project_keys.store(false, Ordering::SeqCst);
    instance.wait("the removal", |figures| figures.removals == 1);
}
