//! The loader before a publisher in memory.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::*;
use crate::hash::Sha256Hash;
use crate::records::{self, Buckets};
use crate::shared::MemoryStore;
use crate::shared::lease::{self, Holder};
use crate::snapshot::load::Step;
use crate::snapshot::status::Freshness;
use crate::snapshot::testing::{self, Publisher, page_key, record};

mod following;
mod loading;
mod owners;

/// Publishes a record for each of these tokens.
fn publish(redis: &mut Publisher, generation: u64, millis: u64, tokens: &[&str]) {
    let numbered = (1..).zip(tokens);
    let records: BTreeMap<_, _> = numbered
        .map(|(number, token)| (Sha256Hash::of(token.as_bytes()), record(number)))
        .collect();
    redis.publish(generation, millis, &records);
}

/// A loader with its lease, as a worker drives it.
struct LeasedLoader {
    loader: Loader,
    holder: Holder,
}

fn leased(loader: Loader, owner: u64) -> LeasedLoader {
    LeasedLoader {
        loader,
        holder: Holder::new(owner),
    }
}

impl LeasedLoader {
    fn tick(
        &mut self,
        store: &impl Store,
        now: Monotonic,
        serves_requests: bool,
        events: &mut Vec<LoaderEvent>,
    ) -> Option<Command> {
        let lease = lease_name(self.buckets.scope());
        let is_idle = self.loader.is_idle();
        let held = self
            .holder
            .hold(store, &lease, serves_requests, is_idle, now);
        self.loader.tick(store, now, held, events)
    }

    fn stop(&mut self, store: &impl Store, now: Monotonic, events: &mut Vec<LoaderEvent>) {
        self.loader.stop(store, events);
        let lease = lease_name(self.buckets.scope());
        self.holder.release(store, &lease, now);
    }
}

impl Deref for LeasedLoader {
    type Target = Loader;

    fn deref(&self) -> &Loader {
        &self.loader
    }
}

impl DerefMut for LeasedLoader {
    fn deref_mut(&mut self) -> &mut Loader {
        &mut self.loader
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

    fn loader(&self, owner: u64) -> LeasedLoader {
        let loader = Loader::new(&self.settings, self.buckets(), testing::check, owner);
        leased(loader, owner)
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_millis(self.now)
    }

    /// Ticks for a second, answering from Redis.
    fn run(&mut self, loader: &mut LeasedLoader, redis: &Publisher) -> Vec<LoaderEvent> {
        let mut events = Vec::new();
        for _ in 0..110 {
            let command = loader.tick(&self.store, self.now(), false, &mut events);
            if let Some(command) = command {
                loader.reply(&self.store, Ok(redis.reply(&command)), &mut events);
            }
            self.now += 10;
        }
        events
    }

    fn knows(&self, token: &str) -> bool {
        let hash = Sha256Hash::of(token.as_bytes());
        let found = records::find(&self.store, &self.buckets(), &hash, testing::check);
        found.unwrap().is_some()
    }

    fn status(&self) -> Status {
        Status::read(&self.store, self.buckets().scope()).unwrap()
    }

    fn generation(&self) -> Option<u64> {
        self.status().live.map(|live| live.generation)
    }
}

/// Tokens that fill more than one page.
fn many(prefix: &str) -> Vec<String> {
    (0..8_000).map(|n| format!("{prefix}_{n}")).collect()
}

fn publish_many(redis: &mut Publisher, generation: u64, prefix: &str) {
    let tokens = many(prefix);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    publish(redis, generation, generation * 100, &tokens);
    assert!(redis.pages.contains_key(&page_key(generation, 1)));
}

/// Runs a loader up to a state, answering from Redis.
fn run_to(
    process: &mut Process,
    loader: &mut LeasedLoader,
    redis: &Publisher,
    events: &mut Vec<LoaderEvent>,
    there: impl Fn(&Step) -> bool,
) {
    for _ in 0..2_000 {
        if loader.load.as_ref().is_some_and(|load| there(&load.step)) {
            return;
        }
        let now = process.now();
        if let Some(command) = loader.tick(&process.store, now, false, events) {
            loader.reply(&process.store, Ok(redis.reply(&command)), events);
        }
        process.now += 10;
    }
    panic!("never got there: {events:?}");
}
