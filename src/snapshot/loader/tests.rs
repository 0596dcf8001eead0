use std::cell::Cell;
use std::collections::HashMap;

use super::*;
use crate::hash::Sha256Hash;
use crate::records::{Buckets, StreamId};
use crate::shared::{Cas, MemoryStore, StoreError, Versioned};
use crate::snapshot::attempt::Place;
use crate::snapshot::counts::KindCounts;
use crate::snapshot::manifest::{self, PageDigest};
use crate::snapshot::page;
use crate::snapshot::status::Freshness;
use crate::surfaces::posthog::{directory, document};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A Redis that holds published snapshots.
#[derive(Default)]
struct FakeRedis(HashMap<String, Vec<u8>>);

impl FakeRedis {
    fn publish(&mut self, generation: u64, millis: u64, tokens: &[&str]) {
        let teams: Vec<String> = tokens
            .iter()
            .enumerate()
            .map(|(index, token)| format!(r#"{{"id":{},"api_token":"{token}"}}"#, index + 1))
            .collect();
        let json = format!(r#"{{"format":1,"teams":[{}]}}"#, teams.join(","));
        let records = document::parse(json.as_bytes()).unwrap();
        let by_hash = records.by_hash.iter();
        let pages = page::split(by_hash.map(|(hash, record)| (*hash, record.as_slice())));
        self.put(generation, millis, &pages);
    }

    fn put(&mut self, generation: u64, millis: u64, pages: &[page::Page]) {
        let manifest = Manifest {
            format: manifest::FORMAT,
            generation,
            stream_id: StreamId {
                millis,
                sequence: 0,
            },
            pages: pages.iter().map(PageDigest::of).collect(),
            etags_watched: false,
            lineage: 0,
            records: KindCounts::new([(
                "records",
                pages.iter().map(|page| u64::from(page.records)).sum(),
            )]),
        };
        for (index, page) in pages.iter().enumerate() {
            let key = manifest::page_key("flag_definitions:", generation, index);
            self.0.insert(key, page.bytes.clone());
        }
        let json = serde_json::to_vec(&manifest).unwrap();
        self.0.insert("flag_definitions:snapshot".to_owned(), json);
    }

    fn get(&self, command: &Command) -> Reply<'_> {
        let text = |part: usize| String::from_utf8(command.words()[part].to_vec()).unwrap();
        if command.words()[0] == b"EVAL_RO" {
            return self.poll(&text(3), &text(5));
        }
        assert_eq!(command.words()[0], b"GET");
        self.0
            .get(&text(1))
            .map_or(Reply::Nil, |value| Reply::Bytes(value.into()))
    }

    /// What the script answers; any digest will do.
    fn poll(&self, key: &str, known: &str) -> Reply<'_> {
        let manifest = self.0.get(key).map_or(&b""[..], Vec::as_slice);
        let digest = match manifest {
            b"" => String::new(),
            manifest => Sha256Hash::of(manifest).to_hex(),
        };
        let manifest = if digest == known { b"" } else { manifest };
        let parts = [
            b"poll",
            &b"1700000000"[..],
            b"1000",
            digest.as_bytes(),
            manifest,
            b"",
        ];
        Reply::Array(parts.map(|part| part.to_vec().into()).to_vec())
    }
}

struct Process {
    store: MemoryStore,
    settings: Snapshot,
    now: u64,
}

impl Process {
    fn new() -> Self {
        let settings = Snapshot {
            buckets: 64,
            ..Snapshot::default()
        };
        Self {
            store: MemoryStore::default(),
            settings,
            now: 1_000,
        }
    }

    fn buckets(&self) -> Buckets {
        Buckets::new(&Scope::new("", &[]), self.settings.buckets)
    }

    fn loader(&self, owner: u64) -> Loader {
        Loader::new(
            &self.settings,
            self.buckets(),
            directory::Record::check,
            owner,
        )
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_millis(self.now)
    }

    /// Ticks for a second, answering from Redis.
    fn run(&mut self, loader: &mut Loader, redis: &FakeRedis) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..110 {
            let command = loader.tick(&self.store, self.now(), false, &mut events);
            if let Some(command) = command {
                loader.reply(&self.store, Ok(redis.get(&command)), &mut events);
            }
            self.now += 10;
        }
        events
    }

    fn knows(&self, token: &str) -> bool {
        let hash = Sha256Hash::of(token.as_bytes());
        directory::find(&self.store, &self.buckets(), &hash)
            .unwrap()
            .is_some()
    }

    fn status(&self) -> Status {
        Status::read(&self.store, self.buckets().scope()).unwrap()
    }

    fn generation(&self) -> Option<u64> {
        self.status().live.map(|live| live.generation)
    }
}

#[test]
fn a_published_snapshot_is_loaded_and_a_new_one_replaces_it() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(1, 100, &["phc_a", "phc_b"]);
    assert_eq!(
        process.run(&mut loader, &redis),
        [Event::Started, Event::Loaded]
    );
    assert!(process.knows("phc_a") && process.knows("phc_b"));
    assert_eq!(process.generation(), Some(1));

    redis.publish(2, 200, &["phc_b", "phc_c"]);
    assert_eq!(
        process.run(&mut loader, &redis),
        [Event::Started, Event::Loaded]
    );
    assert!(
        !process.knows("phc_a"),
        "what is no longer there is dropped"
    );
    assert!(process.knows("phc_b") && process.knows("phc_c"));
    assert_eq!(process.run(&mut loader, &redis), []);
}

#[test]
fn contact_keeps_a_snapshot_fresh_and_silence_lets_it_age() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(1, 100, &["phc_a"]);
    for _ in 0..10 {
        process.run(&mut loader, &redis);
    }
    let freshness =
        |process: &Process| process.status().freshness(process.now(), &process.settings);
    assert_eq!(freshness(&process), Freshness::Current);
    let empty = FakeRedis::default();
    let mut events = Vec::new();
    for _ in 0..6 {
        events.extend(process.run(&mut loader, &empty));
    }
    assert!(events.iter().all(|event| *event == Event::ManifestMissing) && !events.is_empty());
    assert_eq!(freshness(&process), Freshness::Aging);
    assert!(process.knows("phc_a"), "the last good snapshot stays");
}

#[test]
fn a_broken_snapshot_leaves_the_last_good_one() {
    let hash = |first| Sha256Hash::from_bytes([first; 32]);
    let nonsense = page::split([(hash(1), &b"\xffnonsense"[..])]);
    let good = page::split([(hash(1), &b"\x02\x01\0\0\0"[..])]);
    type Break = fn(&mut FakeRedis);
    let cases: [(&str, Break, Event); 4] = [
        (
            "page gone",
            |redis| drop(redis.0.remove("flag_definitions:snapshot:2:0")),
            Event::PageMissing,
        ),
        (
            "page changed",
            |redis| {
                drop(
                    redis
                        .0
                        .insert("flag_definitions:snapshot:2:0".into(), b"FDP1".into()),
                )
            },
            Event::PageMismatch,
        ),
        (
            "manifest is not one",
            |redis| {
                drop(
                    redis
                        .0
                        .insert("flag_definitions:snapshot".into(), b"{}".into()),
                )
            },
            Event::ManifestInvalid,
        ),
        (
            "manifest gone",
            |redis| drop(redis.0.remove("flag_definitions:snapshot")),
            Event::ManifestMissing,
        ),
    ];
    for (name, damage, event) in cases {
        let (mut process, mut redis) = (Process::new(), FakeRedis::default());
        let mut loader = process.loader(1);
        redis.publish(1, 100, &["phc_a"]);
        process.run(&mut loader, &redis);
        redis.put(2, 200, &good);
        damage(&mut redis);
        assert!(process.run(&mut loader, &redis).contains(&event), "{name}");
        assert!(process.knows("phc_a"), "{name}");
        assert_eq!(process.generation(), Some(1), "{name}");
    }
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(1, 100, &["phc_a"]);
    process.run(&mut loader, &redis);
    redis.put(2, 200, &nonsense);
    assert_eq!(
        process.run(&mut loader, &redis),
        [Event::Started, Event::PageCorrupt]
    );
    assert_eq!(
        process.run(&mut loader, &redis),
        [],
        "it is not tried again"
    );
    redis.publish(3, 300, &["phc_c"]);
    process.run(&mut loader, &redis);
    assert!(process.knows("phc_c") && process.status().bad.is_none());
}

/// Tokens that fill more than one page.
fn many(prefix: &str) -> Vec<String> {
    (0..8_000).map(|n| format!("phc_{prefix}_{n}")).collect()
}

fn publish_many(redis: &mut FakeRedis, generation: u64, prefix: &str) {
    let tokens = many(prefix);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    redis.publish(generation, generation * 100, &tokens);
    assert!(
        redis
            .0
            .contains_key(&format!("flag_definitions:snapshot:{generation}:1"))
    );
}

#[test]
fn a_damaged_last_page_lets_nothing_of_the_first_ones_live() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(1, 100, &["phc_a"]);
    process.run(&mut loader, &redis);
    publish_many(&mut redis, 2, "b");
    let page = "flag_definitions:snapshot:2:1".to_owned();
    redis.0.insert(page, b"FDP1".to_vec());
    let events = process.run(&mut loader, &redis);
    assert!(events.contains(&Event::PageMismatch), "{events:?}");
    assert!(process.knows("phc_a"));
    assert!(many("b").iter().all(|token| !process.knows(token)));
    assert_eq!(process.status().applying, None);
}

#[test]
fn while_two_snapshots_lie_side_by_side_nobody_is_refused() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(1, 100, &["phc_a"]);
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
            loader.reply(&process.store, Ok(redis.get(&command)), &mut events);
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

/// Runs a loader up to a state, answering from Redis.
fn run_to(
    process: &mut Process,
    loader: &mut Loader,
    redis: &FakeRedis,
    events: &mut Vec<Event>,
    there: impl Fn(&Step) -> bool,
) {
    for _ in 0..2_000 {
        if loader.load.as_ref().is_some_and(|load| there(&load.step)) {
            return;
        }
        let now = process.now();
        if let Some(command) = loader.tick(&process.store, now, false, events) {
            loader.reply(&process.store, Ok(redis.get(&command)), events);
        }
        process.now += 10;
    }
    panic!("never got there: {events:?}");
}

#[test]
fn an_owner_that_was_held_up_does_not_announce_what_is_live_already() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    redis.publish(1, 100, &["phc_a"]);
    let (mut slow, mut other) = (process.loader(1), process.loader(2));
    run_to(&mut process, &mut slow, &redis, &mut Vec::new(), |state| {
        matches!(state, Step::Checking(..))
    });
    process.now += 3_000;
    process.run(&mut other, &redis);
    let mut events = Vec::new();
    slow.go_on_loading(&process.store, process.now(), &mut events);
    assert_eq!(events, [Event::LeaseLost]);
    assert_eq!(process.status().applying, None);
}

#[test]
fn a_manifest_that_falls_back_while_a_newer_one_is_half_applied_makes_nothing_current() {
    let (mut process, mut old) = (Process::new(), FakeRedis::default());
    old.publish(1, 100, &["phc_a"]);
    let mut loader = process.loader(1);
    process.run(&mut loader, &old);
    let mut newer = FakeRedis::default();
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

    assert_eq!(process.run(&mut loader, &old), [Event::RolledBack]);
    assert_eq!(freshness(&process), Freshness::Aging);
    let mut between = FakeRedis::default();
    between.publish(3, 150, &["phc_c"]);
    assert_eq!(process.run(&mut loader, &between), [Event::ManifestOlder]);
    assert_eq!(freshness(&process), Freshness::Aging);
    let mut newest = FakeRedis::default();
    newest.publish(4, 300, &["phc_d"]);
    process.run(&mut loader, &newest);
    assert_eq!(freshness(&process), Freshness::Current);
    assert!(process.knows("phc_d") && !process.knows("phc_b_0"));
}

#[test]
fn when_all_vms_serve_one_of_them_loads_without_passing_the_lease_around() {
    for seed in 0..20 {
        let (process, mut redis) = (Process::new(), FakeRedis::default());
        redis.publish(1, 100, &["phc_a"]);
        let mut loaders: Vec<Loader> = (1..=32).map(|owner| process.loader(owner)).collect();
        // The owner that served nobody is gone; its lease has just run out.
        assert!(
            lease::acquire(
                &process.store,
                &lease_name(process.buckets().scope()),
                99,
                false,
                process.now()
            )
            .is_ok()
        );
        let mut first = None;
        'time: for step in 0..2_000u64 {
            let now = Monotonic::from_millis(process.now + 3_000 + step * 10);
            for (index, loader) in loaders.iter_mut().enumerate() {
                // Each VM ticks once a second, at a moment of its own.
                if (step + index as u64 * 37 + seed * 13).is_multiple_of(100)
                    && loader
                        .tick(&process.store, now, true, &mut Vec::new())
                        .is_some()
                {
                    first = Some(step * 10);
                    break 'time;
                }
            }
        }
        assert!(
            first.is_some_and(|millis| millis <= 3_500),
            "seed {seed}: {first:?} ms"
        );
    }
}

#[test]
fn a_loader_that_is_stopped_or_held_up_is_not_taken_for_one_that_trapped() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    publish_many(&mut redis, 1, "a");
    for owner in 1..8 {
        let mut loader = process.loader(owner);
        let mut events = Vec::new();
        run_to(&mut process, &mut loader, &redis, &mut events, |state| {
            matches!(state, Step::Applying(..))
        });
        // The next slice leaves its note.
        loader.tick(&process.store, process.now(), false, &mut events);
        if owner % 2 == 0 {
            loader.stop(&process.store, process.now(), &mut events);
        } else {
            process.now += 3_000;
            let mut other = process.loader(owner + 100);
            other.tick(&process.store, process.now(), false, &mut events);
            loader.tick(&process.store, process.now(), false, &mut events);
            other.stop(&process.store, process.now(), &mut events);
        }
        assert!(events.contains(&Event::LeaseLost) && !events.contains(&Event::MarkedBad));
    }
    let mut last = process.loader(99);
    process.run(&mut last, &redis);
    process.run(&mut last, &redis);
    assert_eq!(process.generation(), Some(1));
}

#[test]
fn an_older_manifest_is_not_loaded() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    redis.publish(2, 200, &["phc_a"]);
    process.run(&mut loader, &redis);
    redis.publish(3, 150, &["phc_b"]);
    assert_eq!(process.run(&mut loader, &redis), [Event::ManifestOlder]);
    assert!(process.knows("phc_a") && !process.knows("phc_b"));
}

#[test]
fn one_of_two_loads() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    redis.publish(1, 100, &["phc_a"]);
    let (mut first, mut second) = (process.loader(1), process.loader(2));
    let mut commands = [0, 0];
    for _ in 0..300 {
        for (index, loader) in [&mut first, &mut second].into_iter().enumerate() {
            let mut events = Vec::new();
            let now = Monotonic::from_millis(process.now);
            if let Some(command) = loader.tick(&process.store, now, false, &mut events) {
                commands[index] += 1;
                loader.reply(&process.store, Ok(redis.get(&command)), &mut events);
            }
        }
        process.now += 10;
    }
    assert!(commands[0] > 0 && commands[1] == 0, "{commands:?}");
    // The owner vanishes; after its lease the other goes on.
    process.now += 3_000;
    redis.publish(2, 200, &["phc_b"]);
    process.run(&mut second, &redis);
    assert!(process.knows("phc_b"));
}

#[test]
fn owners_that_vanish_at_the_same_record_mark_the_snapshot_bad() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    redis.publish(1, 100, &["phc_a"]);
    let mut healthy = process.loader(1);
    process.run(&mut healthy, &redis);
    drop(healthy);
    redis.publish(2, 200, &["phc_b"]);
    for owner in 2..4 {
        process.now += 3_000;
        let mut loader = process.loader(owner);
        let mut events = Vec::new();
        // It traps inside its first slice: what it noted stays, what it did afterwards is not.
        run_to(&mut process, &mut loader, &redis, &mut events, |state| {
            matches!(state, Step::Applying(..))
        });
        let load = loader.load.as_mut().unwrap();
        let Step::Applying(page, cursor) = &load.step else {
            panic!("not applying")
        };
        let place = Place {
            page: *page,
            offset: cursor.position().offset,
        };
        load.attempt
            .note(
                &process.store,
                &attempt::name(loader.buckets.scope()),
                place,
            )
            .unwrap();
        assert_eq!(events, [Event::Started], "owner {owner}");
    }
    process.now += 3_000;
    let mut fourth = process.loader(4);
    assert_eq!(process.run(&mut fourth, &redis), [Event::MarkedBad]);
    assert_eq!(process.run(&mut fourth, &redis), []);
    assert!(process.knows("phc_a") && !process.knows("phc_b"));
    redis.publish(3, 300, &["phc_c"]);
    assert_eq!(
        process.run(&mut fourth, &redis),
        [Event::Started, Event::Loaded]
    );
    assert!(process.knows("phc_c"));
}

#[test]
fn an_owner_that_was_held_up_does_not_bring_an_older_snapshot_back() {
    let (mut process, mut old) = (Process::new(), FakeRedis::default());
    old.publish(1, 100, &["phc_old"]);
    let mut slow = process.loader(1);
    let mut events = Vec::new();
    run_to(&mut process, &mut slow, &old, &mut events, |state| {
        matches!(state, Step::Sweeping(..))
    });
    // Its lease runs out inside its last slice; another VM loads what is newer.
    process.now += 3_000;
    let (mut other, mut new) = (process.loader(2), FakeRedis::default());
    new.publish(2, 200, &["phc_new"]);
    process.run(&mut other, &new);
    slow.go_on_loading(&process.store, process.now(), &mut events);
    assert_eq!(process.generation(), Some(2));
    assert!(process.knows("phc_new"));
}

#[test]
fn shared_data_does_not_grow_with_generations() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let mut loader = process.loader(1);
    let mut sizes = Vec::new();
    for generation in 1..5 {
        let tokens: Vec<String> = (0..500).map(|n| format!("phc_{generation}_{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        redis.publish(generation, generation * 100, &tokens);
        process.run(&mut loader, &redis);
        assert_eq!(process.generation(), Some(generation));
        sizes.push(process.store.len());
    }
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
}

#[test]
fn buckets_that_will_be_filled_are_created_before_the_first_page_is_read() {
    for (tokens, created) in [(200, 0), (201, 200)] {
        let (mut process, mut redis) = (Process::new(), FakeRedis::default());
        process.settings.buckets = 200;
        let buckets = process.buckets();
        let existing = |process: &Process| {
            let cas = (0..200).map(|bucket| process.store.read(&buckets.name(bucket)).unwrap().cas);
            cas.filter(|cas| *cas != Cas::ABSENT).count()
        };
        let tokens: Vec<String> = (0..tokens).map(|n| format!("phc_{n}")).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        redis.publish(1, 100, &tokens);

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
            loader.reply(&process.store, Ok(redis.get(&command)), &mut events);
        }
        assert_eq!(existing(&process), created);
        assert!(at_once <= 128, "{at_once} in one slice");

        // Beside a live snapshot none is.
        process.run(&mut loader, &redis);
        redis.publish(1, 100, &tokens[..1]);
        while process.generation().is_none() {
            process.run(&mut loader, &redis);
        }
        let before = existing(&process);
        redis.publish(2, 200, &tokens);
        let mut asked_for_a_page = false;
        while !asked_for_a_page {
            if let Some(command) = loader.tick(&process.store, process.now(), false, &mut events) {
                asked_for_a_page = command.words()[0] == b"GET";
                loader.reply(&process.store, Ok(redis.get(&command)), &mut events);
            }
            process.now += 10;
        }
        assert_eq!(existing(&process), before);
    }
}

#[test]
fn buckets_that_exist_are_not_emptied_by_the_next_load() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    let tokens: Vec<String> = (0..500).map(|n| format!("phc_{n}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut loader = process.loader(1);
    redis.publish(1, 100, &tokens);
    process.run(&mut loader, &redis);
    assert_eq!(process.generation(), Some(1));

    redis.publish(2, 200, &tokens);
    let mut events = Vec::new();
    while process.generation() != Some(2) && process.now < 20_000 {
        let command = loader.tick(&process.store, process.now(), false, &mut events);
        if let Some(command) = command {
            loader.reply(&process.store, Ok(redis.get(&command)), &mut events);
        }
        process.now += 10;
        assert!(tokens.iter().all(|token| process.knows(token)));
    }
    assert_eq!(process.generation(), Some(2));
}

#[test]
fn a_vm_that_serves_requests_steps_aside_once() {
    let (mut process, mut redis) = (Process::new(), FakeRedis::default());
    redis.publish(1, 100, &["phc_a"]);
    let (mut busy, mut idle) = (process.loader(1), process.loader(2));
    process.run(&mut busy, &redis);
    let mut events = Vec::new();
    assert!(
        busy.tick(&process.store, process.now(), true, &mut events)
            .is_none()
    );
    process.now += 10;
    assert!(
        idle.tick(&process.store, process.now(), false, &mut events)
            .is_some()
    );
    process.now += 10_000;
    // Nobody else is there any more: it loads although it serves.
    assert!(
        busy.tick(&process.store, process.now(), true, &mut events)
            .is_some()
    );
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
        let (mut process, mut redis) = (Process::new(), FakeRedis::default());
        redis.publish(1, 100, &["phc_a", "phc_b"]);
        let mut loader = process.loader(1);
        let failing = FailsAfter(&process.store, Cell::new(calls));
        let mut events = Vec::new();
        for _ in 0..40 {
            let now = Monotonic::from_millis(process.now);
            if let Some(command) = loader.tick(&failing, now, false, &mut events) {
                loader.reply(&failing, Ok(redis.get(&command)), &mut events);
            }
            process.now += 10;
        }
        // It recovers.
        process.now += 5_000;
        process.run(&mut loader, &redis);
        process.run(&mut loader, &redis);
        assert_eq!(process.generation(), Some(1), "after {calls} calls");
        assert!(process.knows("phc_a") && process.knows("phc_b"));
    }
}
