//! What sources of documents said last. It outlives a session, so that whoever takes the lock publishes all of it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;
use tracing::error;

use crate::redis::published::RecordMap;
use crate::sources::documents::{DocumentNews, SourcedDocument};
use crate::sources::kinds::{Belonging, RecordOwner, belonging};

/// Whose document it is.
pub type DocumentOwner = (RecordOwner, Tenant);

/// What all sources of documents said last.
#[derive(Debug, Default)]
pub struct Shelf {
    /// `None`: not yet said.
    records: BTreeMap<RecordOwner, Option<RecordMap>>,
    documents: BTreeMap<DocumentOwner, SourcedDocument>,
}

impl Shelf {
    /// An empty one, for sources of these surfaces.
    pub fn new(owners: impl IntoIterator<Item = RecordOwner>) -> Self {
        let owners = owners.into_iter();
        Self {
            records: owners.map(|owner| (owner, None)).collect(),
            documents: BTreeMap::new(),
        }
    }

    /// Notes what the source of a surface said.
    pub fn note(&mut self, owner: RecordOwner, news: DocumentNews) {
        match news {
            DocumentNews::Records(mut records) => {
                let told = records.len();
                records.retain(|_, record| is_of(owner, record));
                if records.len() < told {
                    // A fault of this program: it would take records of another surface for its own.
                    let strange = told - records.len();
                    error!(
                        surface = owner.name(),
                        strange, "records that are not the surface's are left out"
                    );
                }
                self.records.insert(owner, Some(records));
            }
            DocumentNews::Document(document) => {
                let key = (owner, document.tenant);
                let has_better = self.documents.get(&key).is_some_and(|known| known.fits);
                if document.fits || !has_better {
                    self.documents.insert(key, document);
                }
            }
            DocumentNews::Gone(tenant) => drop(self.documents.remove(&(owner, tenant))),
        }
    }

    /// The surfaces that have a source of documents.
    pub fn owners(&self) -> Vec<RecordOwner> {
        self.records.keys().copied().collect()
    }

    /// Whether every source said which records it has.
    pub fn is_complete(&self) -> bool {
        self.records.values().all(Option::is_some)
    }

    /// Whether no source said which records it has.
    pub fn is_silent(&self) -> bool {
        self.records.values().all(Option::is_none)
    }

    /// A surface's records, if its source said which those are.
    pub fn records(&self, owner: RecordOwner) -> Option<&RecordMap> {
        self.records.get(&owner)?.as_ref()
    }

    /// A document.
    pub fn document(&self, owner: &DocumentOwner) -> Option<&SourcedDocument> {
        self.documents.get(owner)
    }

    /// The owners of at most `most` documents after this one, in order.
    pub fn after(&self, last: Option<DocumentOwner>, most: usize) -> Vec<DocumentOwner> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let owners = self.documents.range((from, Bound::Unbounded));
        owners.map(|(owner, _)| *owner).take(most).collect()
    }

    /// What the versions of all documents are found by.
    pub fn version_hashes(&self) -> HashSet<Sha256Hash> {
        let owners = self.documents.keys();
        owners
            .map(|(owner, tenant)| owner.version_hash(*tenant))
            .collect()
    }
}

fn is_of(owner: RecordOwner, record: &[u8]) -> bool {
    matches!(belonging(record), Belonging::Surface(other, ..) if other == owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::http::ETag;
    use flag_definitions_filter::surfaces::flagsmith::records::FlagsmithRecord;
    use flag_definitions_filter::surfaces::posthog::directory::Record;

    fn owner() -> RecordOwner {
        RecordOwner::named("flagsmith").unwrap()
    }

    fn document(tenant: u32) -> DocumentNews {
        DocumentNews::Document(SourcedDocument {
            tenant: Tenant(tenant),
            version: ETag::new(b"v").unwrap(),
            gzip: [1][..].into(),
            fits: true,
        })
    }

    #[test]
    fn the_last_word_counts_and_documents_are_gone_through_in_order() {
        let mut shelf = Shelf::new([owner()]);
        assert!(!shelf.is_complete() && Shelf::default().is_complete());
        assert!(shelf.is_silent() && Shelf::default().is_silent());
        assert_eq!(shelf.records(owner()), None);
        for tenant in [3, 1, 2] {
            shelf.note(owner(), document(tenant));
        }
        shelf.note(owner(), DocumentNews::Gone(Tenant(2)));
        let first = shelf.after(None, 1);
        assert_eq!(first, [(owner(), Tenant(1))]);
        let rest = shelf.after(first.last().copied(), 9);
        assert_eq!(rest, [(owner(), Tenant(3))]);
        assert!(shelf.document(&(owner(), Tenant(2))).is_none());
        let hashes = [1, 3].map(|tenant| owner().version_hash(Tenant(tenant)));
        assert_eq!(shelf.version_hashes(), hashes.into());
    }

    #[test]
    fn records_of_another_surface_are_left_out() {
        let mut shelf = Shelf::new([owner()]);
        let key: Box<[u8]> = FlagsmithRecord::ClientKey(Tenant(1)).encode().into();
        let secret: Box<[u8]> = Record::TeamSecret(Tenant(1)).encode().unwrap().into();
        let records = [
            (Sha256Hash::of(b"a"), key),
            (Sha256Hash::of(b"b"), secret),
            (Sha256Hash::of(b"c"), [0][..].into()),
        ];
        shelf.note(owner(), DocumentNews::Records(records.into()));
        let left = shelf.records(owner()).unwrap();
        assert!(shelf.is_complete() && !shelf.is_silent() && left.len() == 1);
        assert!(left.contains_key(&Sha256Hash::of(b"a")));
    }
}
