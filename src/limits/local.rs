//! Budgets in a worker's own memory: no host call, a fixed number of entries.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::gcra::{Debt, RetryAfter, advance};
use super::rate::Rate;
use crate::time::Monotonic;

/// Entries that share a place: a key that meets three busy others still has an entry of its own.
const WAYS: usize = 4;

/// Most entries of one table.
const MAX_ENTRIES: usize = 65_536;

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    at: Monotonic,
    debt: Debt,
}

/// A table of budgets, one for each key. When more keys are busy than a place holds, the one that owes least
/// starts anew: a flood of keys can get more than its rate, but never makes another key's rate smaller.
pub struct LocalBudgets<K> {
    entries: Vec<Option<Entry<K>>>,
}

impl<K: Copy + Eq + Hash> LocalBudgets<K> {
    /// A table of about `entries` entries (4 to 65 536), all of it allocated here.
    pub fn new(entries: usize) -> Self {
        let places = entries.clamp(WAYS, MAX_ENTRIES).div_ceil(WAYS);
        Self {
            entries: vec![None; places * WAYS],
        }
    }

    /// Spends one cell of the key's budget.
    ///
    /// # Errors
    /// When the budget is used up; the attempt costs nothing.
    pub fn spend(&mut self, key: K, rate: Rate, now: Monotonic) -> Result<(), RetryAfter> {
        // The keys are ids, not texts that a client chooses.
        let mut hasher = FxHasher::default();
        key.hash(&mut hasher);
        let places = (self.entries.len() / WAYS).max(1) as u64;
        let first = usize::try_from(hasher.finish() % places).unwrap_or(0) * WAYS;
        let Some(place) = self.entries.get_mut(first..first + WAYS) else {
            return Ok(());
        };
        // All of the place are brought up to now, so that what they owe can be compared.
        for entry in place.iter_mut().flatten() {
            let (at, elapsed) = advance(entry.at, now);
            (entry.at, entry.debt) = (at, entry.debt.after(elapsed));
        }
        if let Some(held) = place.iter_mut().flatten().find(|held| held.key == key) {
            (held.debt, _) = held.debt.take(rate, 1)?;
            return Ok(());
        }
        let (debt, _) = Debt::NONE.take(rate, 1)?;
        // An empty entry comes before any that owes.
        let least = |entry: &&mut Option<Entry<K>>| entry.as_ref().map(|held| held.debt);
        if let Some(entry) = place.iter_mut().min_by_key(least) {
            *entry = Some(Entry { key, at: now, debt });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::Period;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const RATE: Rate = Rate::per(20, Period::Second);

    fn ms(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn passes(budgets: &mut LocalBudgets<u32>, key: u32, tries: usize, at: u64) -> usize {
        (0..tries)
            .filter(|_| budgets.spend(key, RATE, ms(at)).is_ok())
            .count()
    }

    #[test]
    fn a_key_gets_its_burst_and_then_its_rate() {
        let mut budgets = LocalBudgets::new(16);
        assert_eq!(passes(&mut budgets, 1, 100, 0), 20);
        assert_eq!(passes(&mut budgets, 1, 100, 49), 0);
        assert_eq!(passes(&mut budgets, 1, 100, 50), 1);
        assert_eq!(passes(&mut budgets, 1, 100, 550), 10);
        assert_eq!(passes(&mut budgets, 2, 100, 550), 20);
        assert_eq!(budgets.spend(1, RATE, ms(550)).unwrap_err().seconds(), 1);
    }

    #[test]
    fn keys_of_one_place_do_not_disturb_each_other_until_it_is_full() {
        let mut budgets = LocalBudgets::new(1);
        for key in 1..=4 {
            assert_eq!(passes(&mut budgets, key, 100, 0), 20);
        }
        for key in 1..=4 {
            assert_eq!(passes(&mut budgets, key, 100, 0), 0);
        }
        assert_eq!(passes(&mut budgets, 5, 1, 0), 1);
        // 5 owes least, so it gives way, not one of those that are used up.
        assert_eq!(passes(&mut budgets, 6, 1, 0), 1);
        let used_up = (1..=4).filter(|key| passes(&mut budgets, *key, 1, 0) == 0);
        assert_eq!(used_up.count(), 3);
    }

    #[test]
    fn a_step_of_the_clock_refuses_nobody() {
        let mut budgets = LocalBudgets::new(4);
        assert_eq!(passes(&mut budgets, 1, 10, 1_000_000_000), 10);
        assert_eq!(passes(&mut budgets, 1, 10, 5), 10);
        assert_eq!(passes(&mut budgets, 1, 10, 505), 10);
        assert_eq!(passes(&mut budgets, 1, 10, u64::MAX), 10);
    }

    proptest! {
        #[test]
        fn a_table_never_grows(keys in prop::collection::vec(any::<u32>(), 0..200), entries in 0usize..50) {
            let mut budgets = LocalBudgets::new(entries);
            let capacity = budgets.entries.len();
            prop_assert!((4..=52).contains(&capacity));
            for (time, key) in keys.into_iter().enumerate() {
                let _ = budgets.spend(key, RATE, ms(time as u64));
            }
            prop_assert_eq!(budgets.entries.len(), capacity);
        }
    }
}
