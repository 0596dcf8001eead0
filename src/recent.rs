//! A small memory of what happened a short time ago: bounded, and of one worker.
//!
//! Direct-mapped: a key has one slot, and whoever comes later takes it. So it costs the same however many
//! keys there are, and forgets early rather than grows. It is for knowledge whose loss costs one look-up.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use rustc_hash::FxHasher;

use crate::time::Monotonic;

/// Remembers at most a fixed number of keys, each for a fixed time.
///
/// ```
/// use std::time::Duration;
/// use flag_definitions_filter::recent::Recent;
/// use flag_definitions_filter::time::Monotonic;
///
/// let mut recent = Recent::new(64, Duration::from_secs(1));
/// recent.note("key", 7, Monotonic::from_millis(0));
/// assert_eq!(recent.get(&"key", Monotonic::from_millis(999)), Some(&7));
/// assert_eq!(recent.get(&"key", Monotonic::from_millis(1_000)), None);
/// ```
#[derive(Clone, Debug)]
pub struct Recent<K, V> {
    slots: Vec<Option<Noted<K, V>>>,
    size: usize,
    ttl: Duration,
}

#[derive(Clone, Debug)]
struct Noted<K, V> {
    key: K,
    value: V,
    at: Monotonic,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// A memory of `size` slots that forgets after `ttl`. With a size or `ttl` of zero it remembers nothing.
    /// The slots are allocated when the first key is noted.
    pub const fn new(size: usize, ttl: Duration) -> Self {
        Self {
            slots: Vec::new(),
            size,
            ttl,
        }
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &K) {
        let slot = self.slot(key);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.take_if(|noted| noted.key == *key);
        }
    }

    /// Remembers `value`, in place of what was known of the key or of another one in its slot.
    pub fn note(&mut self, key: K, value: V, now: Monotonic) {
        if self.slots.is_empty() {
            self.slots.resize_with(self.size, || None);
        }
        let slot = self.slot(&key);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Some(Noted {
                key,
                value,
                at: now,
            });
        }
    }

    /// What was noted less than the time to live ago, if it has not given way since.
    pub fn get(&self, key: &K, now: Monotonic) -> Option<&V> {
        if self.slots.is_empty() {
            return None;
        }
        let noted = self.slots.get(self.slot(key))?.as_ref()?;
        (noted.key == *key && now.since(noted.at) < self.ttl).then_some(&noted.value)
    }

    fn slot(&self, key: &K) -> usize {
        // Without a random seed: whoever wants to push keys out can as well send many.
        let mut hasher = FxHasher::default();
        key.hash(&mut hasher);
        let size = u64::try_from(self.size).unwrap_or(u64::MAX);
        let slot = hasher.finish().checked_rem(size).unwrap_or(0);
        usize::try_from(slot).unwrap_or(0)
    }
}

/// How often [`OncePerSecond`] lets something through.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets through one a second of what a flood of requests can cause, such as a line of the log.
#[derive(Debug, Default)]
pub struct OncePerSecond(Option<Monotonic>);

impl OncePerSecond {
    /// Whether it may be done now.
    pub fn admits(&mut self, now: Monotonic) -> bool {
        let recent = |at| now.since(at) < INTERVAL;
        let admitted = !self.0.is_some_and(recent);
        if admitted {
            self.0 = Some(now);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn a_later_note_counts_from_its_own_time() {
        let mut recent = Recent::new(8, SECOND);
        recent.note(1, 'a', at(0));
        recent.note(1, 'b', at(600));
        assert_eq!(recent.get(&1, at(1_599)), Some(&'b'));
        assert_eq!(recent.get(&1, at(1_600)), None);
    }

    #[test]
    fn in_one_slot_the_later_key_stays_and_is_not_taken_for_the_other() {
        let mut recent = Recent::new(1, SECOND);
        recent.note(1, 'a', at(0));
        assert_eq!(recent.get(&2, at(0)), None);
        recent.note(2, 'b', at(0));
        assert_eq!(recent.get(&1, at(0)), None);
        assert_eq!(recent.get(&2, at(0)), Some(&'b'));
    }

    #[test]
    fn it_never_grows_beyond_its_size_and_costs_nothing_before_its_first_note() {
        let mut recent = Recent::new(16, SECOND);
        assert_eq!(recent.slots.capacity(), 0);
        for key in 0..10_000 {
            recent.note(key, (), at(0));
        }
        assert_eq!(recent.slots.len(), 16);
        assert!(
            (0..10_000)
                .filter(|key| recent.get(key, at(0)).is_some())
                .count()
                <= 16
        );
    }

    #[test]
    fn without_size_or_time_nothing_is_remembered() {
        for mut recent in [Recent::new(0, SECOND), Recent::new(8, Duration::ZERO)] {
            recent.note(1, (), at(0));
            assert_eq!(recent.get(&1, at(0)), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_noted_last(
            notes in prop::collection::vec((0u8..40, any::<u8>(), 0u64..3_000), 1..60), now in 0u64..3_000
        ) {
            let mut recent = Recent::new(8, SECOND);
            for (key, value, time) in &notes {
                recent.note(*key, *value, at(*time));
            }
            for key in 0..40 {
                let last = notes.iter().rev().find(|note| note.0 == key);
                if let Some(value) = recent.get(&key, at(now)) {
                    let (_, noted, time) = last.unwrap();
                    prop_assert_eq!(value, noted);
                    prop_assert!(now.saturating_sub(*time) < 1_000);
                }
            }
            let (key, value, time) = notes.last().unwrap();
            prop_assert_eq!(recent.get(key, at(*time)), Some(value));
        }
    }
}
