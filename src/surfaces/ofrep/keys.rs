//! What a selector selects, what a key may ask for, and when either may be refused.

use super::flagd::Selector;
use super::health;
use super::records::{OfrepRecord, SourcesState, selection_text};
use crate::hash::{Hashes, Sha256Hash};
use crate::recent::Recent;
use crate::records::Buckets;
use crate::shared::{Ambient, Store, StoreError};
use crate::surfaces::evaluated::admission::AccessVerdict;
use crate::surfaces::evaluated::library::{PLACES, REMEMBERED};
use crate::surfaces::evaluated::records::{Found, find};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Selections and keys in shared data, with a memory of what was found a moment ago.
pub struct SelectionDirectory {
    buckets: Buckets,
    hashes: Hashes,
    selections: Recent<Sha256Hash, Tenant>,
    /// Keys, and the selection that each is bound to.
    keys: Recent<Sha256Hash, Option<Sha256Hash>>,
}

impl SelectionDirectory {
    /// Those in these buckets.
    pub fn new(buckets: Buckets, ambient: &dyn Ambient) -> Self {
        Self {
            buckets,
            hashes: Hashes::new(ambient.random_bytes()),
            selections: Recent::new(PLACES, REMEMBERED),
            keys: Recent::new(PLACES, REMEMBERED),
        }
    }

    /// What a selector's text is found by.
    pub fn hash(&mut self, selector: &Selector) -> Sha256Hash {
        self.hashes.of(&selection_text(&selector.text())).hash
    }

    /// The number of a selection. It is refused where it is known that no flag is in it.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn selection(
        &mut self,
        hash: &Sha256Hash,
        store: &impl Store,
        now: Monotonic,
    ) -> Result<AccessVerdict<Tenant>, StoreError> {
        if let Some(tenant) = self.selections.get(hash, now) {
            return Ok(AccessVerdict::Reads(*tenant));
        }
        match self.read(store, hash)? {
            Found::Record(OfrepRecord::Selection(tenant)) => {
                self.selections.note(*hash, tenant, now);
                return Ok(AccessVerdict::Reads(tenant));
            }
            Found::Later => return Ok(AccessVerdict::Unknown),
            _ => {}
        }
        Ok(match self.sources(store)? {
            Some(state) if state.knows_selections => AccessVerdict::Refused,
            _ => AccessVerdict::Unknown,
        })
    }

    /// What a key is bound to. One that no record names is refused; where the surface has no source, nobody knows.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn key(
        &mut self,
        key: &[u8],
        store: &impl Store,
        now: Monotonic,
    ) -> Result<AccessVerdict<Option<Sha256Hash>>, StoreError> {
        let hash = self.hashes.of(key).hash;
        if let Some(bound) = self.keys.get(&hash, now) {
            return Ok(AccessVerdict::Reads(*bound));
        }
        match self.read(store, &hash)? {
            Found::Record(OfrepRecord::Key(bound)) => {
                self.keys.note(hash, bound, now);
                return Ok(AccessVerdict::Reads(bound));
            }
            Found::Later => return Ok(AccessVerdict::Unknown),
            _ => {}
        }
        Ok(match self.sources(store)? {
            Some(_) => AccessVerdict::Refused,
            None => AccessVerdict::Unknown,
        })
    }

    /// How the publisher's sources are; `None`: nothing is known of any.
    ///
    /// # Errors
    /// When shared data fails.
    fn sources(&self, store: &impl Store) -> Result<Option<SourcesState>, StoreError> {
        Ok(match self.read(store, &super::records::sources_hash())? {
            Found::Record(OfrepRecord::Sources(state)) => Some(state),
            _ => None,
        })
    }

    /// When the sources were read last, in Unix milliseconds.
    pub fn read_at(&self, store: &impl Store) -> Option<u64> {
        let state = health::sources(store, &self.buckets)?;
        (state.read_at > 0).then_some(state.read_at)
    }

    fn read(
        &self,
        store: &impl Store,
        hash: &Sha256Hash,
    ) -> Result<Found<OfrepRecord>, StoreError> {
        find(store, &self.buckets, hash)
    }
}
