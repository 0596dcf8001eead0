//! What workers know better than the set, on its way to the VM that reads the list:
//! - latches whose ends lie ahead, of teams that are not in the set ([`super::reader::QuotaReader::notice`]);
//! - whose a token of the set is, where the set does not say ([`super::reader::QuotaReader::learn`]).
//!
//! An entry of shared data: `u32` team, `u64` end and 32 bytes of a token's hash each, little-endian. Without a hash, all
//! 0, it is an end.

use std::time::Duration;

use crate::hash::Sha256Hash;
use crate::recent::Recent;
use crate::records::Reader as Input;
use crate::shared::{Store, StoreError, Update, update_in_place};
use crate::surfaces::posthog::definitions::latch::QuotaEnd;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most that wait, in a worker and in shared data.
const MOST: usize = 1_000;

/// How long an entry is in bytes.
const LENGTH: usize = 44;

/// After how long the same is told again, should whoever took it be gone.
const REPEAT: Duration = Duration::from_secs(60);

/// What one worker saw.
pub struct Noticed {
    ends: Recent<Tenant, QuotaEnd>,
    owners: Recent<Sha256Hash, Tenant>,
    /// As they stand in shared data.
    waiting: Vec<[u8; LENGTH]>,
}

/// What workers told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QuotaNotes {
    /// Ends that lie ahead.
    pub ends: Vec<(Tenant, QuotaEnd)>,
    /// Whose tokens are.
    pub owners: Vec<(Sha256Hash, Tenant)>,
}

impl Default for Noticed {
    fn default() -> Self {
        Self {
            ends: Recent::new(MOST, REPEAT),
            owners: Recent::new(MOST, REPEAT),
            waiting: Vec::new(),
        }
    }
}

impl Noticed {
    /// Notes an end, unless it was noted a short time ago.
    pub fn note(&mut self, team: Tenant, end: QuotaEnd, now: Monotonic) {
        if self.ends.get(&team, now) != Some(&end) && self.waiting.len() < MOST {
            self.ends.note(team, end, now);
            self.waiting.push(entry(team, end, &NO_TOKEN));
        }
    }

    /// Notes whose a token is, unless that was noted a short time ago.
    pub fn note_owner(&mut self, token: Sha256Hash, team: Tenant, now: Monotonic) {
        if self.owners.get(&token, now) != Some(&team) && self.waiting.len() < MOST {
            self.owners.note(token, team, now);
            let end = QuotaEnd::from_millis(0);
            self.waiting.push(entry(team, end, token.as_bytes()));
        }
    }

    /// Puts into shared data what was noted since.
    ///
    /// # Errors
    /// When shared data fails; all is kept. So it is, without an error, when other VMs were first time and again.
    pub fn tell(&mut self, store: &impl Store, name: &str) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let update = update_in_place(store, name, |bytes| {
            bytes.extend_from_slice(self.waiting.as_flattened());
            bytes.truncate(MOST * LENGTH);
            Some(())
        })?;
        if update == Update::Written {
            self.waiting.clear();
        }
        Ok(())
    }
}

/// Stands for no token.
const NO_TOKEN: [u8; 32] = [0; 32];

fn entry(team: Tenant, end: QuotaEnd, token: &[u8; 32]) -> [u8; LENGTH] {
    let mut entry = [0; LENGTH];
    let (head, hash) = entry.split_at_mut(12);
    let (id, millis) = head.split_at_mut(4);
    id.copy_from_slice(&team.0.to_le_bytes());
    millis.copy_from_slice(&end.as_millis().to_le_bytes());
    hash.copy_from_slice(token);
    entry
}

/// Takes what workers told.
///
/// # Errors
/// When shared data fails.
pub fn take(store: &impl Store, name: &str) -> Result<QuotaNotes, StoreError> {
    let mut taken = QuotaNotes::default();
    let update = update_in_place(store, name, |bytes| {
        if bytes.is_empty() {
            return None;
        }
        taken = parse(bytes);
        bytes.clear();
        Some(())
    })?;
    // What stays there is taken later.
    Ok(match update {
        Update::Contended => QuotaNotes::default(),
        Update::Written | Update::Unchanged => taken,
    })
}

fn parse(bytes: &[u8]) -> QuotaNotes {
    let mut told = QuotaNotes::default();
    for entry in bytes.chunks_exact(LENGTH) {
        let mut input = Input(entry);
        // Each has all of it.
        let (Ok(team), Ok(end), Ok(token)) = (input.u32(), input.u64(), input.array()) else {
            continue;
        };
        match token {
            NO_TOKEN => told.ends.push((Tenant(team), QuotaEnd::from_millis(end))),
            token => told
                .owners
                .push((Sha256Hash::from_bytes(token), Tenant(team))),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Cas, MemoryStore, Versioned};
    use proptest::prelude::*;
    use std::cell::Cell;
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
        assert_eq!(take(&store, "n").unwrap().ends, told);
        assert_eq!(take(&store, "n").unwrap(), QuotaNotes::default());
        let [worker, _] = &mut workers;
        worker.note(Tenant(1), end(5), at(59));
        worker.note(Tenant(1), end(6), at(59));
        worker.note(Tenant(1), end(6), at(119));
        worker.tell(&store, "n").unwrap();
        let again = [(Tenant(1), end(6)), (Tenant(1), end(6))];
        assert_eq!(take(&store, "n").unwrap().ends, again);
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
        assert_eq!(take(&store, "n").unwrap().ends.len(), MOST);
    }

    #[test]
    fn whose_a_token_is_is_told_once() {
        let store = MemoryStore::default();
        let mut worker = Noticed::default();
        let token = Sha256Hash::of(b"a");
        worker.note_owner(token, Tenant(7), at(0));
        worker.note_owner(token, Tenant(7), at(59));
        worker.note(Tenant(8), end(5), at(59));
        worker.tell(&store, "n").unwrap();
        let told = QuotaNotes {
            ends: vec![(Tenant(8), end(5))],
            owners: vec![(token, Tenant(7))],
        };
        assert_eq!(take(&store, "n").unwrap(), told);
        worker.note_owner(token, Tenant(7), at(60));
        worker.tell(&store, "n").unwrap();
        assert_eq!(take(&store, "n").unwrap().owners, told.owners);
    }

    /// Another VM is first with each change, for as long as this says.
    struct Busy(MemoryStore, Cell<bool>);

    impl Store for Busy {
        fn read(&self, key: &str) -> Result<Versioned, StoreError> {
            self.0.read(key)
        }

        fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
            if self.1.get() {
                return Ok(false);
            }
            self.0.replace(key, value, cas)
        }
    }

    #[test]
    fn what_other_vms_did_not_let_through_is_told_later() {
        let store = Busy(MemoryStore::default(), Cell::new(true));
        let mut worker = Noticed::default();
        worker.note(Tenant(7), end(5), at(0));
        worker.tell(&store, "n").unwrap();
        store.1.set(false);
        worker.tell(&store, "n").unwrap();
        store.1.set(true);
        assert_eq!(take(&store, "n").unwrap(), QuotaNotes::default());
        store.1.set(false);
        assert_eq!(take(&store, "n").unwrap().ends, [(Tenant(7), end(5))]);
        worker.tell(&store, "n").unwrap();
        assert_eq!(take(&store, "n").unwrap(), QuotaNotes::default());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let told = parse(&bytes);
            prop_assert_eq!(told.ends.len() + told.owners.len(), bytes.len() / LENGTH);
        }
    }
}
