//! Whole snapshots: what is published is loaded, or the last good one stays.

use std::cell::Cell;

use super::*;
use crate::shared::{Cas, StoreError, Versioned};
use crate::snapshot::page;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_published_snapshot_is_loaded_and_a_new_one_replaces_it() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &["a", "b"]);
    assert_eq!(
        process.run(&mut loader, &redis),
        [LoaderEvent::Started, LoaderEvent::Loaded]
    );
    assert!(process.knows("a") && process.knows("b"));
    assert_eq!(process.generation(), Some(1));

    publish(&mut redis, 2, 200, &["b", "c"]);
    assert_eq!(
        process.run(&mut loader, &redis),
        [LoaderEvent::Started, LoaderEvent::Loaded]
    );
    assert!(!process.knows("a"), "what is no longer there is dropped");
    assert!(process.knows("b") && process.knows("c"));
    assert_eq!(process.run(&mut loader, &redis), []);
}

#[test]
fn contact_keeps_a_snapshot_fresh_and_silence_lets_it_age() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &["a"]);
    for _ in 0..10 {
        process.run(&mut loader, &redis);
    }
    let freshness =
        |process: &Process| process.status().freshness(process.now(), &process.settings);
    assert_eq!(freshness(&process), Freshness::Current);
    let empty = Publisher::default();
    let mut events = Vec::new();
    for _ in 0..6 {
        events.extend(process.run(&mut loader, &empty));
    }
    assert!(
        events
            .iter()
            .all(|event| *event == LoaderEvent::ManifestMissing)
            && !events.is_empty()
    );
    assert_eq!(freshness(&process), Freshness::Aging);
    assert!(process.knows("a"), "the last good snapshot stays");
}

#[test]
fn a_broken_snapshot_leaves_the_last_good_one() {
    let hash = |first| Sha256Hash::from_bytes([first; 32]);
    let nonsense = page::split([(hash(1), &b"\xffnonsense"[..])]);
    let good = page::split([(hash(1), &record(1)[..])]);
    type Break = fn(&mut Publisher);
    let cases: [(&str, Break, LoaderEvent); 4] = [
        (
            "page gone",
            |redis| drop(redis.pages.remove(&page_key(2, 0))),
            LoaderEvent::PageMissing,
        ),
        (
            "page changed",
            |redis| drop(redis.pages.insert(page_key(2, 0), b"FDP1".into())),
            LoaderEvent::PageMismatch,
        ),
        (
            "manifest is not one",
            |redis| redis.manifest = b"{}".into(),
            LoaderEvent::ManifestInvalid,
        ),
        (
            "manifest gone",
            |redis| redis.manifest.clear(),
            LoaderEvent::ManifestMissing,
        ),
    ];
    for (name, damage, event) in cases {
        let (mut process, mut redis) = (Process::new(), Publisher::default());
        let mut loader = process.loader(1);
        publish(&mut redis, 1, 100, &["a"]);
        process.run(&mut loader, &redis);
        redis.put(2, 200, &good);
        damage(&mut redis);
        assert!(process.run(&mut loader, &redis).contains(&event), "{name}");
        assert!(process.knows("a"), "{name}");
        assert_eq!(process.generation(), Some(1), "{name}");
    }
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &["a"]);
    process.run(&mut loader, &redis);
    redis.put(2, 200, &nonsense);
    assert_eq!(
        process.run(&mut loader, &redis),
        [LoaderEvent::Started, LoaderEvent::PageCorrupt]
    );
    assert_eq!(
        process.run(&mut loader, &redis),
        [],
        "it is not tried again"
    );
    publish(&mut redis, 3, 300, &["c"]);
    process.run(&mut loader, &redis);
    assert!(process.knows("c") && process.status().bad.is_none());
}

#[test]
fn a_damaged_last_page_lets_nothing_of_the_first_ones_live() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &["a"]);
    process.run(&mut loader, &redis);
    publish_many(&mut redis, 2, "b");
    redis.pages.insert(page_key(2, 1), b"FDP1".to_vec());
    let events = process.run(&mut loader, &redis);
    assert!(events.contains(&LoaderEvent::PageMismatch), "{events:?}");
    assert!(process.knows("a"));
    assert!(many("b").iter().all(|token| !process.knows(token)));
    assert_eq!(process.status().applying, None);
}

#[test]
fn while_two_snapshots_lie_side_by_side_nobody_is_refused() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &["a"]);
    process.run(&mut loader, &redis);
    process.run(&mut loader, &redis);
    publish_many(&mut redis, 2, "b");
    // Some of its records, from the first to the last.
    let mut new = many("b");
    new.sort_by_key(|token| Sha256Hash::of(token.as_bytes()));
    let new: Vec<String> = new.into_iter().step_by(500).collect();
    let mut mixed = 0;
    for _ in 0..300 {
        let mut events = Vec::new();
        let now = process.now();
        if let Some(command) = loader.tick(&process.store, now, false, &mut events) {
            loader.reply(&process.store, Ok(redis.reply(&command)), &mut events);
        }
        process.now += 10;
        let known = new.iter().filter(|token| process.knows(token)).count();
        let freshness = process.status().freshness(now, &process.settings);
        if known > 0 && known < new.len() {
            mixed += 1;
            assert_eq!(freshness, Freshness::Aging);
        }
    }
    assert!(mixed > 0, "the test saw no half-applied snapshot");
    assert_eq!(process.generation(), Some(2));
    process.run(&mut loader, &redis);
    let freshness = process.status().freshness(process.now(), &process.settings);
    assert_eq!(freshness, Freshness::Current);
}

#[test]
fn a_manifest_that_falls_back_while_a_newer_one_is_half_applied_makes_nothing_current() {
    let (mut process, mut old) = (Process::new(), Publisher::default());
    publish(&mut old, 1, 100, &["a"]);
    let mut loader = process.loader(1);
    process.run(&mut loader, &old);
    let mut newer = Publisher::default();
    publish_many(&mut newer, 2, "b");
    run_to(
        &mut process,
        &mut loader,
        &newer,
        &mut Vec::new(),
        |state| matches!(state, Step::Applying(1, _)),
    );
    loader.stop(&process.store, process.now(), &mut Vec::new());
    let freshness =
        |process: &Process| process.status().freshness(process.now(), &process.settings);

    assert_eq!(process.run(&mut loader, &old), [LoaderEvent::RolledBack]);
    assert_eq!(freshness(&process), Freshness::Aging);
    let mut between = Publisher::default();
    publish(&mut between, 3, 150, &["c"]);
    assert_eq!(
        process.run(&mut loader, &between),
        [LoaderEvent::ManifestOlder]
    );
    assert_eq!(freshness(&process), Freshness::Aging);
    let mut newest = Publisher::default();
    publish(&mut newest, 4, 300, &["d"]);
    process.run(&mut loader, &newest);
    assert_eq!(freshness(&process), Freshness::Current);
    assert!(process.knows("d") && !process.knows("b_0"));
}

#[test]
fn an_older_manifest_is_not_loaded() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    publish(&mut redis, 2, 200, &["a"]);
    process.run(&mut loader, &redis);
    publish(&mut redis, 3, 150, &["b"]);
    assert_eq!(
        process.run(&mut loader, &redis),
        [LoaderEvent::ManifestOlder]
    );
    assert!(process.knows("a") && !process.knows("b"));
}

#[test]
fn shared_data_does_not_grow_with_generations() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let mut loader = process.loader(1);
    let mut sizes = Vec::new();
    for generation in 1..5 {
        let tokens: Vec<String> = (0..500).map(|n| format!("{generation}_{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        publish(&mut redis, generation, generation * 100, &tokens);
        process.run(&mut loader, &redis);
        assert_eq!(process.generation(), Some(generation));
        sizes.push(process.store.len());
    }
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
}

#[test]
fn buckets_that_will_be_filled_are_created_before_the_first_page_is_read() {
    for (tokens, created) in [(200, 0), (201, 200)] {
        let (mut process, mut redis) = (Process::new(), Publisher::default());
        process.settings.buckets = 200;
        let buckets = process.buckets();
        let existing = |process: &Process| {
            let cas = (0..200).map(|bucket| process.store.read(&buckets.name(bucket)).unwrap().cas);
            cas.filter(|cas| *cas != Cas::ABSENT).count()
        };
        let tokens: Vec<String> = (0..tokens).map(|n| format!("{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        publish(&mut redis, 1, 100, &tokens);

        let (mut loader, mut events, mut at_once) = (process.loader(1), Vec::new(), 0);
        for _ in 0..20 {
            let before = existing(&process);
            let command = loader.tick(&process.store, process.now(), false, &mut events);
            at_once = at_once.max(existing(&process) - before);
            process.now += 10;
            let Some(command) = command else { continue };
            if command.words()[0] == b"GET" {
                break;
            }
            loader.reply(&process.store, Ok(redis.reply(&command)), &mut events);
        }
        assert_eq!(existing(&process), created);
        assert!(at_once <= 128, "{at_once} in one slice");

        // The driver gives up the wait for the page.
        loader.reply(&process.store, Err(Failure::Timeout), &mut events);

        // Beside a live snapshot none is.
        process.run(&mut loader, &redis);
        publish(&mut redis, 1, 100, &tokens[..1]);
        while process.generation().is_none() {
            process.run(&mut loader, &redis);
            assert!(process.now < 100_000, "it is never loaded");
        }
        let before = existing(&process);
        publish(&mut redis, 2, 200, &tokens);
        let mut asked_for_a_page = false;
        while !asked_for_a_page {
            if let Some(command) = loader.tick(&process.store, process.now(), false, &mut events) {
                asked_for_a_page = command.words()[0] == b"GET";
                loader.reply(&process.store, Ok(redis.reply(&command)), &mut events);
            }
            process.now += 10;
        }
        assert_eq!(existing(&process), before);
    }
}

#[test]
fn buckets_that_exist_are_not_emptied_by_the_next_load() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    let tokens: Vec<String> = (0..500).map(|n| format!("{n}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut loader = process.loader(1);
    publish(&mut redis, 1, 100, &tokens);
    process.run(&mut loader, &redis);
    assert_eq!(process.generation(), Some(1));

    publish(&mut redis, 2, 200, &tokens);
    let mut events = Vec::new();
    while process.generation() != Some(2) && process.now < 20_000 {
        let command = loader.tick(&process.store, process.now(), false, &mut events);
        if let Some(command) = command {
            loader.reply(&process.store, Ok(redis.reply(&command)), &mut events);
        }
        process.now += 10;
        assert!(tokens.iter().all(|token| process.knows(token)));
    }
    assert_eq!(process.generation(), Some(2));
}

/// Shared data that fails from a certain call on.
struct FailsAfter<'a>(&'a MemoryStore, Cell<u32>);

impl FailsAfter<'_> {
    fn spend(&self) -> Result<(), StoreError> {
        let left = self.1.get();
        self.1.set(left.saturating_sub(1));
        if left == 0 {
            return Err(StoreError { status: 10 });
        }
        Ok(())
    }
}

impl Store for FailsAfter<'_> {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        self.spend()?;
        self.0.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        self.spend()?;
        self.0.replace(key, value, cas)
    }
}

#[test]
fn wherever_shared_data_fails_the_load_is_complete_or_repeated() {
    for calls in 0..400 {
        let (mut process, mut redis) = (Process::new(), Publisher::default());
        publish(&mut redis, 1, 100, &["a", "b"]);
        let mut loader = process.loader(1);
        let failing = FailsAfter(&process.store, Cell::new(calls));
        let mut events = Vec::new();
        for _ in 0..40 {
            let now = Monotonic::from_millis(process.now);
            if let Some(command) = loader.tick(&failing, now, false, &mut events) {
                loader.reply(&failing, Ok(redis.reply(&command)), &mut events);
            }
            process.now += 10;
        }
        // It recovers.
        process.now += 5_000;
        process.run(&mut loader, &redis);
        process.run(&mut loader, &redis);
        assert_eq!(process.generation(), Some(1), "after {calls} calls");
        assert!(process.knows("a") && process.knows("b"));
    }
}
