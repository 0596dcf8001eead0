//! What a worker counted and could not put into shared data at once.

use super::ledger::{self, Counted, Counter, Slots};
use super::{State, Tally};
use crate::shared::Store;

/// Most counters that wait: shared data fails for all tenants at once, or a slot is hot for some microseconds.
const MAX_UNSTORED: usize = 1_024;

/// Most counters tried in one [`Unstored::retry`].
const SLICE: usize = 64;

/// The counting of one worker. What waits here is lost with its VM.
#[derive(Debug, Default)]
pub struct Unstored {
    waiting: Vec<Counter>,
}

impl Unstored {
    /// Counts requests. When shared data is contended or fails, they wait here for [`Unstored::retry`], with the field
    /// that they have now.
    pub fn count(
        &mut self,
        store: &impl Store,
        slots: &Slots,
        counter: Counter,
        tally: &mut Tally,
    ) {
        let requests = u64::from(counter.count);
        match ledger::count(store, slots, &counter) {
            Ok(Counted::Stored) => tally.add(State::Counted, requests),
            Ok(Counted::NoRoom) => tally.add(State::Dropped, requests),
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
            self.count(store, slots, counter, tally);
        }
    }

    fn keep(&mut self, counter: Counter, tally: &mut Tally) {
        let requests = u64::from(counter.count);
        let same = self.waiting.iter_mut().find(|held| {
            (held.tenant, held.source, held.field)
                == (counter.tenant, counter.source, counter.field)
        });
        if let Some(held) = same {
            match held.count.checked_add(counter.count) {
                Some(sum) => held.count = sum,
                None => tally.add(State::Dropped, requests),
            }
        } else if self.waiting.len() < MAX_UNSTORED {
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
    use crate::tenant::Tenant;
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

    const FIELD: u32 = 14_166_666;

    fn one(tenant: u32) -> Counter {
        Counter {
            tenant: Tenant(tenant),
            source: 4,
            field: FIELD,
            count: 1,
        }
    }

    #[test]
    fn what_could_not_be_stored_is_stored_later_with_its_own_time() {
        let (store, slots) = (Moody::default(), Slots::new("t:"));
        let (mut unstored, mut tally) = (Unstored::default(), Tally::default());
        store.contended.set(true);
        unstored.count(&store, &slots, one(7), &mut tally);
        store.contended.set(false);
        store.broken.set(true);
        unstored.count(&store, &slots, one(7), &mut tally);
        unstored.retry(&store, &slots, &mut tally);
        assert_eq!(tally, Tally::default());
        assert!(!unstored.is_empty());

        store.broken.set(false);
        unstored.retry(&store, &slots, &mut tally);
        assert!(unstored.is_empty());
        assert_eq!(tally.get(State::Counted), 2);
        let batch = ledger::freeze(&store, &slots, 7).unwrap().batch.unwrap();
        assert_eq!(batch.counters.len(), 1);
        assert_eq!(batch.counters[0].field, FIELD);
        assert_eq!(batch.counters[0].count, 2);
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_reported() {
        let (store, slots) = (Moody::default(), Slots::new("t:"));
        let (mut unstored, mut tally) = (Unstored::default(), Tally::default());
        store.broken.set(true);
        for tenant in 0..MAX_UNSTORED as u32 + 5 {
            unstored.count(&store, &slots, one(tenant), &mut tally);
        }
        unstored.count(&store, &slots, one(0), &mut tally);
        assert_eq!(tally.get(State::Dropped), 5);

        store.broken.set(false);
        while !unstored.is_empty() {
            unstored.retry(&store, &slots, &mut tally);
        }
        assert_eq!(tally.get(State::Counted), MAX_UNSTORED as u64 + 1);
        assert_eq!(
            ledger::unsent(&store, &slots),
            Ok(tally.get(State::Counted))
        );
    }
}
