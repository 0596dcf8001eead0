//! A source document that is followed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_definitions_publisher::sources::combined::Combined;
use flag_definitions_publisher::sources::file::FollowedDocument;
use flag_definitions_publisher::sources::{Heard, WatchedSources};
use flag_definitions_publisher::watch::WatchSettings;

use crate::instance::{Instance, Memory, etags, eventually, settings, write_document};
use crate::published::Published;
use crate::support::Redis;

/// Full reads are rare, as they are: the file itself tells.
fn rarely(redis: &Redis) -> WatchSettings {
    WatchSettings {
        diff_interval: Duration::from_secs(600),
        ..settings(&redis.url())
    }
}

fn follow(settings: WatchSettings, file: &Path) -> Instance {
    let sources = WatchedSources {
        records: Some(Arc::new(FollowedDocument::new(file))),
        ..WatchedSources::default()
    };
    Instance::of(settings, sources)
}

/// As of when whoever is not published may be refused, and the moment of the watermark.
fn last_mark(redis: &mut Redis) -> (Option<u64>, u64) {
    let mark = Published::read(redis).watermarks().pop().unwrap();
    (mark.records_at, mark.etags_at)
}

#[test]
fn a_changed_document_is_published_within_two_seconds_and_a_broken_one_changes_nothing() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..10);
    let instance = follow(rarely(&redis), &file);
    instance.wait_until_live();
    let published = Published::read(&mut redis);
    assert_eq!(published.records.len(), 11);
    assert!(!published.manifest.etags_watched && published.manifest.lineage > 0);
    assert_eq!(published.manifest.surfaces, ["posthog", "ofrep_keys"]);
    eventually("refusals", || last_mark(&mut redis).0.is_some());

    let began = Instant::now();
    write_document(&file, 1..11);
    instance.wait("the change", |figures| {
        figures.upserts == 1 && figures.removals == 1
    });
    assert!(began.elapsed() < Duration::from_secs(2));
    // In place, as an editor may.
    let text = std::fs::read_to_string(&file).unwrap();
    let began = Instant::now();
    std::fs::write(&file, text.replace("phc_a", "phc_b")).unwrap();
    instance.wait("the next", |figures| {
        figures.upserts == 2 && figures.removals == 2
    });
    assert!(began.elapsed() < Duration::from_secs(2));

    std::fs::write(&file, "{").unwrap();
    instance.wait("the problem", |figures| figures.errors.file > 0);
    eventually("no refusals", || last_mark(&mut redis).0.is_none());
    let published = Published::read(&mut redis);
    assert!(published.get("phc_b").is_some() && published.records.len() == 11);
    write_document(&file, 1..12);
    instance.wait("the repair", |figures| figures.upserts >= 4);
    eventually("refusals", || last_mark(&mut redis).0.is_some());
    assert_eq!(instance.status.figures().lineages, 1);
}

#[test]
fn the_records_are_as_of_when_the_file_was_looked_at() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..10);
    let instance = follow(rarely(&redis), &file);
    instance.wait_until_live();
    eventually("a mark of the last look", || {
        let (records_at, now) = last_mark(&mut redis);
        records_at.is_some_and(|at| at <= now && now - at < 1_500)
    });
    let first = last_mark(&mut redis).0;
    eventually("a later one", || last_mark(&mut redis).0 > first);
}

#[test]
fn a_document_that_lacks_too_much_is_doubted_like_a_database() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..500);
    let instance = follow(rarely(&redis), &file);
    instance.wait_until_live();
    write_document(&file, 0..100);
    instance.wait("the alarm", |figures| figures.held_back == 400);
    assert_eq!(Published::read(&mut redis).records.len(), 501);
}

#[test]
fn beside_a_database_a_document_adds_to_it() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 100..110);
    let memory = Memory::with_teams(3);
    memory.say(Heard::Listening);
    memory.say(Heard::UpTo(Instant::now() + Duration::from_secs(600)));
    let here = rarely(&redis);
    let document = FollowedDocument::new(&file);
    let sources = WatchedSources {
        records: Some(Arc::new(Combined::new(Arc::clone(&memory) as _, document))),
        etags: Some(etags(&here)),
        ..WatchedSources::default()
    };
    let instance = Instance::of(here, sources);
    instance.wait_until_live();
    assert_eq!(Published::read(&mut redis).records.len(), 6 + 11);
    write_document(&file, 100..111);
    instance.wait("a change of the document", |figures| figures.upserts == 1);
    memory.put("phs_1", None);
    memory.announce("phs_1");
    instance.wait("one of the database", |figures| figures.removals == 1);
    let published = Published::read(&mut redis);
    assert_eq!(published.records.len(), 5 + 12);
    assert!(published.get("phs_1").is_none() && published.get("phs_110").is_some());
}
