//! Texts of upstreams that Redis keeps, so that a publisher that starts goes on from them where an upstream is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag_definitions_filter::hash::Sha256Hash;
use tracing::error;

use super::session::Session;
use crate::redis::error::SnapshotStoreError;
use crate::sources::documents::KeptTexts;
use crate::sources::kinds::RecordOwner;

/// What one source wants to be kept.
#[derive(Debug)]
pub struct Keeper {
    owner: RecordOwner,
    kept: KeptTexts,
    /// In gzip form.
    texts: BTreeMap<Sha256Hash, Arc<[u8]>>,
    /// Those that are not in Redis yet.
    unwritten: BTreeSet<Sha256Hash>,
    /// Why Redis refused some, until it takes them.
    refused: Option<String>,
}

impl Keeper {
    /// Nothing is kept yet.
    pub fn new(owner: RecordOwner, kept: KeptTexts) -> Self {
        Self {
            owner,
            kept,
            texts: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            refused: None,
        }
    }

    /// Whose texts they are.
    pub const fn owner(&self) -> RecordOwner {
        self.owner
    }

    /// Notes a text that was taken.
    pub fn note(&mut self, name: Sha256Hash, gzip: Arc<[u8]>) {
        self.texts.insert(name, gzip);
        self.unwritten.insert(name);
    }

    fn fields<'n>(&self, names: impl Iterator<Item = &'n Sha256Hash>) -> Vec<(String, Arc<[u8]>)> {
        let texts =
            names.filter_map(|name| Some((name.to_hex(), Arc::clone(self.texts.get(name)?))));
        texts.collect()
    }

    fn written(&mut self, refused: Option<String>) {
        match refused {
            None => self.unwritten.clear(),
            Some(ref problem) if self.refused != refused => {
                error!(
                    problem,
                    "Redis does not keep texts of sources: a source that is away when the publisher starts holds the others up"
                );
            }
            Some(_) => {}
        }
        self.refused = refused;
    }
}

impl Session<'_, '_> {
    /// Gives sources what an earlier publisher kept of those that have said nothing yet. No others stay in Redis.
    pub(super) fn recall_texts(&mut self) -> Result<(), SnapshotStoreError> {
        for keeper in &mut self.writer.shelf.keepers {
            let key = format!("{}{}", self.store.prefix(), keeper.kept.key);
            let names = keeper.kept.names.iter();
            let missing = names.filter(|name| !keeper.texts.contains_key(name));
            let missing: Vec<Sha256Hash> = missing.copied().collect();
            let places: Vec<_> = missing
                .iter()
                .map(|name| (key.clone(), name.to_hex()))
                .collect();
            for (name, stored) in missing.into_iter().zip(self.store.fields(&places)?) {
                if let Some(stored) = stored {
                    let gzip: Arc<[u8]> = stored.into();
                    (keeper.kept.recall)(name, Arc::clone(&gzip));
                    keeper.texts.insert(name, gzip);
                }
            }
            let fields = keeper.fields(keeper.texts.keys());
            let refused = self.store.keep_texts(&key, &fields, true)?;
            keeper.written(refused);
        }
        Ok(())
    }

    /// Keeps what sources said since.
    pub(super) fn keep_texts(&mut self) -> Result<(), SnapshotStoreError> {
        for keeper in &mut self.writer.shelf.keepers {
            let fields = keeper.fields(keeper.unwritten.iter());
            if !fields.is_empty() {
                let key = format!("{}{}", self.store.prefix(), keeper.kept.key);
                let refused = self.store.keep_texts(&key, &fields, false)?;
                keeper.written(refused);
            }
        }
        Ok(())
    }
}
