//! Latches whose ends lie ahead, of teams that are not in the set, on their way from the workers to the VM that reads
//! the list ([`super::reader::QuotaReader::notice`]).
//!
//! An entry of shared data: `u32` team and `u64` end each, little-endian.

use std::time::Duration;

use crate::recent::Recent;
use crate::records::Reader as Input;
use crate::shared::{Store, StoreError, update_in_place};
use crate::surfaces::posthog::definitions::latch::QuotaEnd;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most that wait, in a worker and in shared data.
const MOST: usize = 1_000;

/// How long an entry is in bytes.
const LENGTH: usize = 12;

/// After how long the same end is told again, should whoever took it be gone.
const REPEAT: Duration = Duration::from_secs(60);

/// What one worker saw.
pub struct Noticed {
    told: Recent<Tenant, QuotaEnd>,
    waiting: Vec<(Tenant, QuotaEnd)>,
}

impl Default for Noticed {
    fn default() -> Self {
        Self {
            told: Recent::new(MOST, REPEAT),
            waiting: Vec::new(),
        }
    }
}

impl Noticed {
    /// Notes an end, unless it was noted a short time ago.
    pub fn note(&mut self, team: Tenant, end: QuotaEnd, now: Monotonic) {
        if self.told.get(&team, now) != Some(&end) && self.waiting.len() < MOST {
            self.told.note(team, end, now);
            self.waiting.push((team, end));
        }
    }

    /// Puts into shared data what was noted since.
    ///
    /// # Errors
    /// When shared data fails; all is kept.
    pub fn tell(&mut self, store: &impl Store, entry: &str) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        update_in_place(store, entry, |bytes| {
            for (team, end) in &self.waiting {
                bytes.extend_from_slice(&team.0.to_le_bytes());
                bytes.extend_from_slice(&end.as_millis().to_le_bytes());
            }
            bytes.truncate(MOST * LENGTH);
            Some(())
        })?;
        self.waiting.clear();
        Ok(())
    }
}

/// Takes what workers told.
///
/// # Errors
/// When shared data fails.
pub fn take(store: &impl Store, entry: &str) -> Result<Vec<(Tenant, QuotaEnd)>, StoreError> {
    let mut taken = Vec::new();
    update_in_place(store, entry, |bytes| {
        if bytes.is_empty() {
            return None;
        }
        taken = parse(bytes);
        bytes.clear();
        Some(())
    })?;
    Ok(taken)
}

fn parse(bytes: &[u8]) -> Vec<(Tenant, QuotaEnd)> {
    let one = |bytes: &[u8]| {
        let mut input = Input(bytes);
        let team = Tenant(input.u32().ok()?);
        Some((team, QuotaEnd::from_millis(input.u64().ok()?)))
    };
    bytes.chunks_exact(LENGTH).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::MemoryStore;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn end(millis: u64) -> QuotaEnd {
        QuotaEnd::from_millis(millis)
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_millis(seconds * 1_000)
    }

    #[test]
    fn what_workers_saw_is_taken_once() {
        let store = MemoryStore::default();
        let mut workers = [Noticed::default(), Noticed::default()];
        for (worker, team) in workers.iter_mut().zip(1..) {
            worker.note(Tenant(team), end(5), at(0));
            worker.note(Tenant(team), end(5), at(59));
            worker.tell(&store, "n").unwrap();
        }
        let told = [(Tenant(1), end(5)), (Tenant(2), end(5))];
        assert_eq!(take(&store, "n").unwrap(), told);
        assert_eq!(take(&store, "n").unwrap(), []);
        let [worker, _] = &mut workers;
        worker.note(Tenant(1), end(5), at(59));
        worker.note(Tenant(1), end(6), at(59));
        worker.note(Tenant(1), end(6), at(119));
        worker.tell(&store, "n").unwrap();
        let again = [(Tenant(1), end(6)), (Tenant(1), end(6))];
        assert_eq!(take(&store, "n").unwrap(), again);
    }

    #[test]
    fn it_does_not_grow_while_nobody_takes_it() {
        let store = MemoryStore::default();
        for round in 0..3_u64 {
            let mut worker = Noticed::default();
            for team in 0..2_000 {
                worker.note(Tenant(team), end(round), at(0));
            }
            worker.tell(&store, "n").unwrap();
        }
        assert_eq!(take(&store, "n").unwrap().len(), MOST);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(parse(&bytes).len(), bytes.len() / LENGTH);
        }
    }
}
