//! The loader and a publisher that watches: snapshot, changes, watermarks.

use super::*;
use crate::records::StreamId;
use crate::snapshot::change::Written;
use crate::snapshot::follow::Confirmation;
use crate::snapshot::testing::tombstone;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// In milliseconds.
const DAY: u64 = 24 * 3_600 * 1_000;

fn hash(token: &str) -> Sha256Hash {
    Sha256Hash::of(token.as_bytes())
}

/// A publisher that began a lineage with a record for each of these tokens.
fn publisher(tokens: &[&str]) -> Publisher {
    let mut publisher = Publisher {
        now: 1_000_000,
        records: tokens
            .iter()
            .map(|token| (hash(token), record(1)))
            .collect(),
        ..Publisher::default()
    };
    publisher.begin();
    publisher
}

fn buckets() -> Buckets {
    Buckets::new(&Scope::new("", &[]), 64)
}

struct Envoy {
    store: MemoryStore,
    settings: Snapshot,
    loader: LeasedLoader,
    now: u64,
    polls: usize,
}

impl Envoy {
    fn new() -> Self {
        Self::with(Snapshot::default())
    }

    fn with(settings: Snapshot) -> Self {
        let settings = Snapshot {
            buckets: 64,
            ..settings
        };
        Self {
            store: MemoryStore::default(),
            loader: leased(Loader::new(&settings, buckets(), testing::check, 1), 1),
            settings,
            now: 5_000_000,
            polls: 0,
        }
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_millis(self.now)
    }

    /// Lets time pass in both; returns what the loader told.
    fn run(&mut self, publisher: &mut Publisher, millis: u64) -> Vec<LoaderEvent> {
        let mut events = Vec::new();
        for _ in 0..millis / 10 {
            let command = self
                .loader
                .tick(&self.store, self.now(), false, &mut events);
            if let Some(command) = command {
                self.polls += usize::from(command.words()[0] == b"EVAL_RO");
                let reply = publisher.reply(&command);
                self.loader.reply(&self.store, Ok(reply), &mut events);
            }
            self.now += 10;
            publisher.now += 10;
        }
        events
    }

    /// The same, with a watermark each second.
    fn run_watched(&mut self, publisher: &mut Publisher, seconds: u64) -> Vec<LoaderEvent> {
        let mut events = Vec::new();
        for _ in 0..seconds {
            publisher.watermark();
            events.extend(self.run(publisher, 1_000));
        }
        events
    }

    fn record(&self, token: &str) -> Option<Vec<u8>> {
        let decode = |bytes: &[u8]| testing::check(bytes).map(|()| bytes.to_vec());
        let found = records::find(&self.store, &buckets(), &hash(token), decode);
        found.unwrap().map(|(record, _)| record)
    }

    fn status(&self) -> Status {
        Status::read(&self.store, buckets().scope()).unwrap()
    }

    fn freshness(&self) -> Freshness {
        self.status().freshness(self.now(), &self.settings)
    }

    /// How old the newest watermark is.
    fn confirmed(&self) -> Option<u64> {
        let Confirmation { at, .. } = self.status().confirmation()?;
        Some(self.now - at.as_millis())
    }
}

#[test]
fn changes_follow_the_snapshot_and_watermarks_confirm() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a", "b"]));
    let events = envoy.run_watched(&mut publisher, 3);
    assert_eq!(events, [LoaderEvent::Started, LoaderEvent::Loaded]);
    assert_eq!(envoy.freshness(), Freshness::Current);
    publisher.change(hash("a"), None);
    publisher.change(hash("c"), Some(record(3)));
    assert_eq!(envoy.run_watched(&mut publisher, 2), []);
    assert_eq!(envoy.record("a"), Some(tombstone()));
    assert_eq!(envoy.record("c"), Some(record(3)));
    assert!(envoy.confirmed().is_some_and(|age| age < 1_200));
}

#[test]
fn a_watermark_is_read_soon_after_it_was_written_and_polls_stay_few() {
    for period in [990, 1_000, 1_010, 1_300] {
        let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
        envoy.run_watched(&mut publisher, 10);
        let polls = envoy.polls;
        let mut oldest = 0;
        for _ in 0..30 {
            publisher.watermark();
            for _ in 0..period / 10 {
                envoy.run(&mut publisher, 10);
                oldest = oldest.max(envoy.confirmed().unwrap());
            }
        }
        let polls = (envoy.polls - polls) as f64 / (30.0 * period as f64 / 1_000.0);
        assert!(polls <= 1.7, "{period}: {polls} a second");
        assert!(oldest <= period + 400, "{period}: {oldest} ms old");
    }
}

#[test]
fn a_dead_publisher_confirms_nothing_and_refuses_nobody() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    envoy.run(&mut publisher, 7_000);
    assert!(envoy.confirmed().is_some_and(|age| age > 6_000));
    assert_eq!(envoy.freshness(), Freshness::Aging);
    envoy.run(&mut publisher, 700_000);
    assert_eq!(
        envoy.freshness(),
        Freshness::Aging,
        "Redis still shows the manifest"
    );
    assert!(envoy.record("a").is_some());
}

#[test]
fn a_newer_manifest_of_the_same_lineage_is_adopted_without_a_load() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    publisher.change(hash("b"), Some(record(2)));
    publisher.rewrite(1);
    assert_eq!(envoy.run_watched(&mut publisher, 3), [LoaderEvent::Adopted]);
    assert_eq!(envoy.status().live.unwrap().generation, 2);
    publisher.rewrite(1);
    assert_eq!(envoy.run(&mut publisher, 1_000), [LoaderEvent::Adopted]);
    publisher.rewrite(1);
    assert_eq!(
        envoy.run(&mut publisher, 1_000),
        [LoaderEvent::Adopted],
        "nothing changed"
    );
    assert!(envoy.record("a").is_some() && envoy.record("b").is_some());
    assert_eq!(envoy.freshness(), Freshness::Current);
}

#[test]
fn which_surfaces_have_a_source_comes_with_a_load_and_with_an_adopted_manifest() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    let has = |envoy: &Envoy, name| envoy.status().live.unwrap().has_source(name);
    envoy.run_watched(&mut publisher, 3);
    assert_eq!(has(&envoy, "one"), None, "nobody says");
    for (surfaces, one) in [(&["other"][..], false), (&["one", "other"], true)] {
        publisher.surfaces = surfaces.iter().map(|name| (*name).to_owned()).collect();
        publisher.rewrite(1);
        assert_eq!(envoy.run(&mut publisher, 1_000), [LoaderEvent::Adopted]);
        assert_eq!(has(&envoy, "one"), Some(one));
    }
    let mut fresh = Envoy::new();
    fresh.run_watched(&mut publisher, 3);
    assert_eq!(has(&fresh, "one"), Some(true), "by a load");
}

#[test]
fn after_a_missing_change_a_newer_snapshot_is_loaded() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a", "b"]));
    envoy.run_watched(&mut publisher, 3);
    publisher.change(hash("a"), None);
    publisher.changes.pop();
    publisher.change(hash("c"), Some(record(3)));
    let events = envoy.run_watched(&mut publisher, 3);
    assert_eq!(events, [LoaderEvent::ChangeMissing]);
    assert!(envoy.record("a").is_some(), "the change is lost");
    assert!(envoy.record("c").is_some(), "the next one is applied");
    assert_eq!(
        (envoy.confirmed(), envoy.freshness()),
        (None, Freshness::Aging)
    );
    publisher.rewrite(1);
    let events = envoy.run_watched(&mut publisher, 8);
    assert_eq!(events, [LoaderEvent::Started, LoaderEvent::Loaded]);
    assert_eq!(envoy.record("a"), None);
    assert_eq!(envoy.freshness(), Freshness::Current);
    assert!(envoy.confirmed().is_some());
}

#[test]
fn a_stream_that_was_trimmed_too_far_is_seen() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    let status = envoy.status().follow.unwrap();
    publisher.change(hash("b"), Some(record(2)));
    publisher.watermark();
    publisher.rewrite(1);
    let last = publisher.last;
    publisher.watermark();
    publisher.changes.retain(|entry| entry.id > last);
    assert!(status.position < last);
    let events = envoy.run_watched(&mut publisher, 8);
    assert!(events.contains(&LoaderEvent::ChangeMissing) && events.contains(&LoaderEvent::Loaded));
    assert!(envoy.record("b").is_some());
    assert_eq!(envoy.freshness(), Freshness::Current);
}

#[test]
fn a_flushed_redis_leaves_the_last_good_snapshot_until_it_is_filled_again() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a", "b"]));
    envoy.run_watched(&mut publisher, 3);
    let records = std::mem::take(&mut publisher.records);
    (publisher.manifest, publisher.changes) = (vec![], vec![]);
    publisher.pages.clear();
    let events = envoy.run(&mut publisher, 3_000);
    assert!(
        events.contains(&LoaderEvent::ManifestMissing)
            && events.contains(&LoaderEvent::ChangeMissing)
    );
    assert!(envoy.record("a").is_some());
    assert_eq!(
        (envoy.confirmed(), envoy.freshness()),
        (None, Freshness::Aging)
    );
    publisher.records = records;
    publisher.records.remove(&hash("b"));
    publisher.begin();
    let events = envoy.run_watched(&mut publisher, 8);
    assert!(events.contains(&LoaderEvent::Loaded), "{events:?}");
    assert!(envoy.record("a").is_some() && envoy.record("b").is_none());
    assert_eq!(envoy.freshness(), Freshness::Current);
}

#[test]
fn a_key_that_is_revoked_while_a_load_is_under_way_stays_revoked() {
    let tokens: Vec<String> = (0..12_000).map(|n| format!("key_{n}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut last: Vec<&str> = tokens.clone();
    last.sort_by_key(|token| hash(token));
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&tokens));
    envoy.run(&mut publisher, 100);
    assert!(envoy.loader.load.is_some(), "the load is under way");
    for token in [last[0], last[11_999]] {
        publisher.change(hash(token), None);
    }
    publisher.watermark();
    envoy.run_watched(&mut publisher, 3);
    assert!(envoy.status().live.is_some());
    for token in [last[0], last[11_999]] {
        assert_eq!(envoy.record(token), Some(tombstone()), "{token}");
    }
    assert!(envoy.record(last[1]).is_some());
    assert_eq!(envoy.freshness(), Freshness::Current);
}

#[test]
fn a_key_that_was_revoked_long_ago_stays_revoked_while_an_older_snapshot_is_loaded() {
    let tokens: Vec<String> = (0..12_000).map(|n| format!("key_{n}")).collect();
    let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut publisher = publisher(&tokens);
    tokens.sort_by_key(|token| hash(token));
    let (revoked, neighbour) = (tokens[11_999], tokens[11_998]);
    publisher.change(hash(revoked), None);
    publisher.now += 2 * DAY;
    publisher.change(hash(neighbour), Some(record(9)));
    let mut envoy = Envoy::with(Snapshot {
        poll_interval: Duration::from_millis(100),
        ..Snapshot::default()
    });
    while envoy.record(neighbour) != Some(record(9)) {
        envoy.run(&mut publisher, 10);
    }
    assert_eq!(
        envoy.record(tokens[11_997]),
        None,
        "its page is still to come"
    );
    envoy.run_watched(&mut publisher, 3);
    assert!(envoy.record(tokens[11_997]).is_some());
    assert_eq!(envoy.record(revoked), Some(tombstone()));
}

#[test]
fn shared_data_stays_bounded_while_tokens_come_and_go() {
    for loads_again in [false, true] {
        let token = |round: usize, n: usize| format!("key_{round}_{n}");
        let (mut envoy, mut publisher) = (Envoy::new(), publisher(&[]));
        envoy.run_watched(&mut publisher, 3);
        let mut sizes = Vec::new();
        // A week. Tokens live for half a day.
        for round in 1..=14 {
            for n in 0..200 {
                publisher.change(hash(&token(round, n)), Some(record(1)));
                publisher.change(hash(&token(round - 1, n)), None);
            }
            if loads_again && round % 4 == 0 {
                publisher.begin();
            }
            envoy.run_watched(&mut publisher, 8);
            sizes.push((envoy.store.len(), envoy.store.bytes()));
            publisher.now += DAY / 2;
            envoy.now += DAY / 2;
        }
        let settled = &sizes[4..];
        assert!(
            settled.iter().all(|size| size.0 == settled[0].0),
            "{sizes:?}"
        );
        // One round of tokens, and the tombstones of at most three.
        let most = 64 * 4 + 4 * 200 * 59;
        let largest = settled.iter().map(|size| size.1).max();
        assert!(
            largest.is_some_and(|bytes| bytes <= most + 2_000),
            "{sizes:?}"
        );
        assert_eq!(envoy.record(&token(14, 0)), Some(record(1)));
        assert_eq!(envoy.record(&token(13, 0)), Some(tombstone()));
        assert_eq!(envoy.record(&token(10, 0)), None);
    }
}

#[test]
fn what_a_writer_without_lock_says_is_not_applied() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    publisher.fence = 2;
    envoy.run_watched(&mut publisher, 3);
    publisher.fence = 1;
    publisher.change(hash("a"), None);
    publisher.fence = 2;
    let events = envoy.run_watched(&mut publisher, 2);
    assert_eq!(events, [LoaderEvent::ChangeFenced]);
    assert_eq!(envoy.record("a"), Some(record(1)));
    assert_eq!(envoy.freshness(), Freshness::Aging);
}

#[test]
fn a_change_that_cannot_be_read_is_skipped_and_seen() {
    for broken in ["FDP1x", "nonsense"] {
        let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
        envoy.run_watched(&mut publisher, 3);
        publisher.append(Written {
            kind: "r",
            value: broken.as_bytes().to_vec(),
        });
        publisher.change(hash("b"), Some(record(2)));
        let events = envoy.run_watched(&mut publisher, 2);
        assert_eq!(events, [LoaderEvent::ChangeCorrupt]);
        assert!(envoy.record("b").is_some());
        assert_eq!(envoy.confirmed(), None);
        publisher.rewrite(1);
        envoy.run_watched(&mut publisher, 8);
        assert!(envoy.confirmed().is_some());
    }
}

#[test]
fn a_change_at_which_two_owners_vanish_is_skipped() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    publisher.change(hash("b"), Some(record(2)));
    for owner in 2..4 {
        envoy.now += 3_000;
        let loader = Loader::new(&envoy.settings, buckets(), testing::check, owner);
        let mut loader = leased(loader, owner);
        let mut events = Vec::new();
        let command = loader.tick(&envoy.store, envoy.now(), false, &mut events);
        // It traps inside of the reply: what it noted stays, nothing else does.
        let follow = envoy.status().follow.unwrap();
        let entry = attempt::change_name(loader.buckets.scope());
        let id = publisher.changes.last().unwrap().id;
        assert!(command.is_some() && follow.position < id);
        let mut attempt = Attempt::begin(&envoy.store, &entry, owner, &id.to_string()).unwrap();
        attempt
            .note(&envoy.store, &entry, Default::default())
            .unwrap();
    }
    envoy.now += 3_000;
    envoy.loader = leased(
        Loader::new(&envoy.settings, buckets(), testing::check, 4),
        4,
    );
    let events = envoy.run_watched(&mut publisher, 2);
    assert_eq!(events, [LoaderEvent::ChangeCorrupt]);
    assert_eq!(envoy.record("b"), None);
    assert_eq!(envoy.freshness(), Freshness::Aging);
}

#[test]
fn many_changes_are_applied_in_order_in_bounded_slices() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    for round in 1..=3 {
        for n in 0..300 {
            publisher.change(hash(&format!("key {n}")), Some(record(round * 1_000 + n)));
        }
    }
    envoy.run_watched(&mut publisher, 5);
    for n in 0..300 {
        let record = Some(record(3_000 + n));
        assert_eq!(envoy.record(&format!("key {n}")), record);
    }
    assert!(envoy.confirmed().is_some_and(|age| age < 1_200));
}

#[test]
fn a_file_snapshot_ends_the_chain() {
    let (mut envoy, mut publisher) = (Envoy::new(), publisher(&["a"]));
    envoy.run_watched(&mut publisher, 3);
    publisher.now += 10;
    publisher.records = [(hash("b"), record(2))].into();
    publisher.last = StreamId {
        millis: publisher.now + 1,
        sequence: 0,
    };
    publisher.rewrite(0);
    envoy.run(&mut publisher, 3_000);
    assert!(envoy.record("a").is_none() && envoy.record("b").is_some());
    assert_eq!(envoy.status().follow, None);
    assert_eq!(envoy.freshness(), Freshness::Current);
}
