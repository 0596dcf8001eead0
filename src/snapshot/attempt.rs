//! What a loader was doing when it vanished.
//!
//! There is a note for loads and one for changes; `entry` names it in shared data.

use serde::{Deserialize, Serialize};

use crate::shared::{Scope, Store, StoreError, update};

/// A place in a load: page, and offset in the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Index of the page.
    pub page: usize,
    /// Offset in bytes.
    pub offset: usize,
}

/// What the loader is about to do, noted before it does it: a VM that traps leaves this note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    owner: u64,
    manifest: String,
    at: Place,
    suspect: Place,
    vanished: Vec<u64>,
    in_progress: bool,
}

/// The entry of a load.
pub fn name(scope: &Scope) -> String {
    scope.name("attempt")
}

/// The entry of changes.
pub(super) fn change_name(scope: &Scope) -> String {
    scope.name("change_attempt")
}

/// How many owners may vanish at one place before the snapshot counts as bad.
pub const VANISHED_LIMIT: usize = 2;

impl Attempt {
    /// Whether a load is under way, or was left behind by a VM that vanished.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn is_in_progress(store: &impl Store, entry: &str) -> Result<bool, StoreError> {
        let note = store.read(entry)?.value;
        Ok(serde_json::from_slice(&note).is_ok_and(|attempt: Self| attempt.in_progress))
    }

    /// Begins a load. The note of a predecessor that vanished in the same snapshot is taken over.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn begin(
        store: &impl Store,
        entry: &str,
        owner: u64,
        manifest: &str,
    ) -> Result<Self, StoreError> {
        let note = store.read(entry)?.value;
        let left: Self = serde_json::from_slice(&note).unwrap_or_default();
        let mut attempt = Self {
            owner,
            manifest: manifest.to_owned(),
            ..Self::default()
        };
        if left.manifest == manifest && left.in_progress && left.owner != owner {
            attempt.suspect = left.at;
            if left.at == left.suspect {
                attempt.vanished = left.vanished;
            }
            attempt.vanished.push(left.owner);
        } else if left.manifest == manifest {
            (attempt.suspect, attempt.vanished) = (left.suspect, left.vanished);
        }
        // From here on an owner that was counted can withdraw from this note.
        update(store, entry, |_| encode(&attempt))?;
        Ok(attempt)
    }

    /// Whether too many owners vanished at one place of this snapshot.
    pub fn is_bad(&self) -> bool {
        self.vanished.len() >= VANISHED_LIMIT
    }

    /// Notes what comes next.
    ///
    /// # Errors
    /// When shared data fails: then the step must not be taken.
    pub fn note(&mut self, store: &impl Store, entry: &str, at: Place) -> Result<(), StoreError> {
        self.at = at;
        self.in_progress = true;
        self.write(store, entry)
    }

    /// Notes that the load ended, well or not, without harm to the VM.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn end(&mut self, store: &impl Store, entry: &str) -> Result<(), StoreError> {
        self.in_progress = false;
        if self.is_bad() {
            // They were counted; a later try starts anew.
            self.vanished.clear();
        }
        self.write(store, entry)
    }

    /// Says that this owner is alive, although it lost its lease: whoever counted it as vanished must not.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn withdraw(store: &impl Store, entry: &str, owner: u64) -> Result<(), StoreError> {
        update(store, entry, |current| {
            let mut attempt: Self = serde_json::from_slice(current).ok()?;
            let before = (attempt.in_progress, attempt.vanished.len());
            attempt.vanished.retain(|vanished| *vanished != owner);
            attempt.in_progress &= attempt.owner != owner;
            let after = (attempt.in_progress, attempt.vanished.len());
            (after != before).then(|| encode(&attempt))?
        })
        .map(drop)
    }

    fn write(&self, store: &impl Store, entry: &str) -> Result<(), StoreError> {
        update(store, entry, |current| {
            let mut next = self.clone();
            // An owner that was counted may have withdrawn meanwhile.
            if let Ok(stored) = serde_json::from_slice::<Self>(current)
                && stored.owner == self.owner
                && stored.manifest == self.manifest
            {
                next.vanished
                    .retain(|owner| stored.vanished.contains(owner));
            }
            encode(&next)
        })
        .map(drop)
    }
}

fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::MemoryStore;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn setup() -> (MemoryStore, String) {
        (MemoryStore::default(), name(&Scope::new("", &[])))
    }

    #[test]
    fn two_owners_that_vanish_at_the_same_place_mark_the_snapshot_bad() {
        let (store, entry) = setup();
        let place = Place { page: 1, offset: 9 };
        for (owner, bad) in [(1, false), (2, false), (3, true)] {
            let mut attempt = Attempt::begin(&store, &entry, owner, "m").unwrap();
            assert_eq!(attempt.is_bad(), bad, "owner {owner}");
            attempt.note(&store, &entry, Place::default()).unwrap();
            attempt.note(&store, &entry, place).unwrap();
        }
        // Another snapshot starts with a clean sheet.
        assert!(!Attempt::begin(&store, &entry, 4, "n").unwrap().is_bad());
    }

    #[test]
    fn an_owner_that_was_only_held_up_is_not_counted() {
        let (store, entry) = setup();
        let place = Place { page: 1, offset: 9 };
        let mut first = Attempt::begin(&store, &entry, 1, "m").unwrap();
        first.note(&store, &entry, place).unwrap();
        let mut second = Attempt::begin(&store, &entry, 2, "m").unwrap();
        second.note(&store, &entry, Place::default()).unwrap();
        Attempt::withdraw(&store, &entry, 1).unwrap();
        second.note(&store, &entry, place).unwrap();
        assert!(!Attempt::begin(&store, &entry, 3, "m").unwrap().is_bad());
    }

    #[test]
    fn owners_that_end_or_vanish_elsewhere_are_not_counted_together() {
        let (store, entry) = setup();
        let mut first = Attempt::begin(&store, &entry, 1, "m").unwrap();
        first
            .note(&store, &entry, Place { page: 0, offset: 4 })
            .unwrap();
        let mut second = Attempt::begin(&store, &entry, 2, "m").unwrap();
        second
            .note(&store, &entry, Place { page: 0, offset: 8 })
            .unwrap();
        let mut third = Attempt::begin(&store, &entry, 3, "m").unwrap();
        assert!(!third.is_bad());
        third
            .note(&store, &entry, Place { page: 0, offset: 8 })
            .unwrap();
        third.end(&store, &entry).unwrap();
        assert!(!Attempt::begin(&store, &entry, 4, "m").unwrap().is_bad());
    }
}
