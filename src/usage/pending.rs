//! What a worker counted and could not put into shared data at once.

use super::ledger::{self, Counted, Counter, Slots};
use super::{Client, State, Tally, UsageBucket};
use crate::shared::Store;
use crate::tenant::Tenant;
use crate::time::UnixMillis;

/// Most counters that wait: shared data fails for all teams at once, or a slot is hot for some microseconds.
const MAX_PENDING: usize = 1_024;

/// Most counters tried in one [`Pending::retry`].
const SLICE: usize = 64;

/// The counting of one worker. What waits here is lost with its VM.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: Vec<Counter>,
}

impl Pending {
    /// Counts one billed request, answered `now`. When shared data is contended or fails, it waits here for
    /// [`Pending::retry`], with the two-minute field of now.
    pub fn count(
        &mut self,
        store: &impl Store,
        slots: &Slots,
        team: Tenant,
        client: Client,
        now: UnixMillis,
        tally: &mut Tally,
    ) {
        let counter = Counter {
            team,
            client,
            bucket: UsageBucket::of(now),
            count: 1,
        };
        match ledger::count(store, slots, &counter) {
            Ok(Counted::Stored) => tally.add(State::Counted, 1),
            Ok(Counted::NoRoom) => tally.add(State::Dropped, 1),
            Ok(Counted::Contended) | Err(_) => self.keep(counter, tally),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tries again with some of what waits, the longest waiting first.
    pub fn retry(&mut self, store: &impl Store, slots: &Slots, tally: &mut Tally) {
        let due = self.waiting.len().min(SLICE);
        let tried: Vec<Counter> = self.waiting.drain(..due).collect();
        for counter in tried {
            let requests = u64::from(counter.count);
            match ledger::count(store, slots, &counter) {
                Ok(Counted::Stored) => tally.add(State::Counted, requests),
                Ok(Counted::NoRoom) => tally.add(State::Dropped, requests),
                Ok(Counted::Contended) | Err(_) => self.keep(counter, tally),
            }
        }
    }

    fn keep(&mut self, counter: Counter, tally: &mut Tally) {
        let requests = u64::from(counter.count);
        let same = self.waiting.iter_mut().find(|held| {
            (held.team, held.client, held.bucket) == (counter.team, counter.client, counter.bucket)
        });
        if let Some(held) = same {
            match held.count.checked_add(counter.count) {
                Some(sum) => held.count = sum,
                None => tally.add(State::Dropped, requests),
            }
        } else if self.waiting.len() < MAX_PENDING {
            self.waiting.push(counter);
        } else {
            tally.add(State::Dropped, requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Cas, MemoryStore, StoreError, Versioned};
    use std::cell::Cell;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Shared data in one of three moods.
    #[derive(Default)]
    struct Moody {
        inner: MemoryStore,
        contended: Cell<bool>,
        broken: Cell<bool>,
    }

    impl Store for Moody {
        fn read(&self, key: &str) -> Result<Versioned, StoreError> {
            if self.broken.get() {
                return Err(StoreError { status: 10 });
            }
            self.inner.read(key)
        }

        fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
            Ok(!self.contended.get() && self.inner.replace(key, value, cas)?)
        }
    }

    const NOW: UnixMillis = UnixMillis::from_millis(1_700_000_000_000);

    #[test]
    fn what_could_not_be_stored_is_stored_later_with_its_own_time() {
        let (store, slots) = (Moody::default(), Slots::new("t:"));
        let (mut pending, mut tally) = (Pending::default(), Tally::default());
        let team = Tenant(7);
        store.contended.set(true);
        pending.count(&store, &slots, team, Client::Go, NOW, &mut tally);
        store.contended.set(false);
        store.broken.set(true);
        pending.count(&store, &slots, team, Client::Go, NOW, &mut tally);
        pending.retry(&store, &slots, &mut tally);
        assert_eq!(tally, Tally::default());
        assert!(!pending.is_empty());

        store.broken.set(false);
        pending.retry(&store, &slots, &mut tally);
        assert!(pending.is_empty());
        assert_eq!(tally.get(State::Counted), 2);
        let batch = ledger::freeze(&store, &slots, 7).unwrap().batch.unwrap();
        assert_eq!(batch.counters.len(), 1);
        assert_eq!(batch.counters[0].bucket, UsageBucket::of(NOW));
        assert_eq!(batch.counters[0].count, 2);
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_reported() {
        let (store, slots) = (Moody::default(), Slots::new("t:"));
        let (mut pending, mut tally) = (Pending::default(), Tally::default());
        store.broken.set(true);
        for team in 0..MAX_PENDING as u32 + 5 {
            pending.count(&store, &slots, Tenant(team), Client::Go, NOW, &mut tally);
        }
        pending.count(&store, &slots, Tenant(0), Client::Go, NOW, &mut tally);
        assert_eq!(tally.get(State::Dropped), 5);

        store.broken.set(false);
        while !pending.is_empty() {
            pending.retry(&store, &slots, &mut tally);
        }
        assert_eq!(tally.get(State::Counted), MAX_PENDING as u64 + 1);
        assert_eq!(
            ledger::unsent(&store, &slots),
            Ok(tally.get(State::Counted))
        );
    }
}
