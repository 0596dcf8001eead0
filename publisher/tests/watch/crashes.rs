//! Several watchers, and watchers that are killed.

use std::time::{Duration, Instant};

use crate::instance::{Instance, Memory, Process, eventually, settings, write_document};
use crate::published::Published;
use crate::support::Redis;

fn is_published(redis: &mut Redis) -> bool {
    let count: u64 = redis.command("EXISTS", &["flag_definitions:snapshot"]);
    count == 1
}

fn watermarks(redis: &mut Redis) -> usize {
    if is_published(redis) {
        Published::read(redis).watermarks().len()
    } else {
        0
    }
}

#[test]
fn whoever_waits_takes_over() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..100);
    let first = Process::start(&redis.url(), &file);
    eventually("the first", || watermarks(&mut redis) > 0);
    let source = Memory::with_teams(50);
    let second = Instance::start(settings(&redis.url()), &source);
    std::thread::sleep(Duration::from_secs(6));
    assert!(!second.status.figures().active);

    let killed = Instant::now();
    first.kill();
    second.wait("the second", |figures| figures.active);
    // The lock lives for 5 s.
    assert!(
        killed.elapsed() < Duration::from_secs(9),
        "{:?}",
        killed.elapsed()
    );
    second.wait("its own records", |figures| figures.upserts > 0);
    assert_eq!(second.status.figures().lineages, 0);

    // Released, so the third need not wait for the lock to expire.
    second.stop();
    let locked: u64 = redis.command("EXISTS", &["flag_definitions:lock"]);
    assert_eq!(locked, 0);
    let third = Instance::start(settings(&redis.url()), &source);
    third.wait_until_live();
}

#[test]
fn one_that_was_paused_cannot_write() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..20_000);
    let paused = Process::start(&redis.url(), &file);
    eventually("the first", || watermarks(&mut redis) > 0);
    // In the middle of whatever it does: its document changes all the time.
    for round in 0..5 {
        write_document(&file, (round * 1_000)..(20_000 + round * 1_000));
        std::thread::sleep(Duration::from_millis(73));
    }
    paused.signal("-STOP");
    let source = Memory::with_teams(50);
    let mut trusting = settings(&redis.url());
    trusting.max_removal_percent = 100;
    let second = Instance::start(trusting, &source);
    second.wait_until_live();
    let expected = crate::instance::decoded(&source.records.lock().unwrap());
    eventually("its records", || {
        Published::read(&mut redis).records == expected
    });
    let fence = Published::read(&mut redis).changes.last().unwrap().fence;
    paused.signal("-CONT");
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let published = Published::read(&mut redis);
        assert!(published.records == expected);
        assert!(
            published
                .changes
                .last()
                .is_none_or(|change| change.fence == fence)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(second.status.figures().active);
}

#[test]
fn killed_at_any_moment_the_snapshot_is_whole() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("document.json");
    write_document(&file, 0..12_000);
    let mut lineages = std::collections::BTreeSet::new();
    for round in 0..24u32 {
        let process = Process::start(&redis.url(), &file);
        // From before the first page to the middle of some later snapshot.
        let until = Instant::now() + Duration::from_millis(40 + u64::from(round * 7919 % 900));
        for from in [round * 500, round * 500 + 250].into_iter().cycle() {
            write_document(&file, from..(from + 12_000));
            std::thread::sleep(Duration::from_millis(30));
            if Instant::now() > until {
                break;
            }
        }
        process.kill();
        if is_published(&mut redis) {
            // Fails where a page is missing, or a link of the chain.
            lineages.insert(Published::read(&mut redis).manifest.lineage);
        }
        // As if five seconds had passed.
        let () = redis.command("DEL", &["flag_definitions:lock"]);
    }
    write_document(&file, 12_000..24_000);
    let process = Process::start(&redis.url(), &file);
    eventually("the last state", || {
        if !is_published(&mut redis) {
            return false;
        }
        let published = Published::read(&mut redis);
        // And the token of the team.
        published.records.len() == 12_000 + 1
            && published.get("phs_12000").is_some()
            && published.get("phs_23999").is_some()
    });
    process.kill();
    lineages.insert(Published::read(&mut redis).manifest.lineage);
    // A kill alone is no reason for a new lineage.
    assert_eq!(lineages.len(), 1, "{lineages:?}");
}
