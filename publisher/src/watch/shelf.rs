//! What sources of documents said last. It outlives a session, so that whoever takes the lock publishes all of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::tenant::Tenant;
use tracing::error;

use super::kept::Keeper;
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
    /// Those that are published only where there are none, of who told no others.
    first: BTreeMap<RecordOwner, RecordMap>,
    /// Whose published records are such ones.
    has_first_published: BTreeSet<RecordOwner>,
    documents: BTreeMap<DocumentOwner, SourcedDocument>,
    /// The versions that were published last although they do not fit.
    unfit: BTreeMap<DocumentOwner, ETag>,
    /// Texts of upstreams.
    pub(super) keepers: Vec<Keeper>,
}

impl Shelf {
    /// An empty one, for sources of these surfaces.
    pub fn new(owners: impl IntoIterator<Item = RecordOwner>, keepers: Vec<Keeper>) -> Self {
        let owners = owners.into_iter();
        Self {
            keepers,
            records: owners.map(|owner| (owner, None)).collect(),
            ..Self::default()
        }
    }

    /// Notes what the source of a surface said.
    pub fn note(&mut self, owner: RecordOwner, news: DocumentNews) {
        match news {
            DocumentNews::Records(records) => {
                self.first.remove(&owner);
                self.has_first_published.remove(&owner);
                self.records.insert(owner, Some(own(owner, records)));
            }
            DocumentNews::FirstRecords(records) => {
                self.first.insert(owner, own(owner, records));
            }
            DocumentNews::Document(document) => {
                let key = (owner, document.tenant);
                let has_better = self.documents.get(&key).is_some_and(|known| known.fits);
                if document.fits || !has_better {
                    self.documents.insert(key, document);
                }
            }
            DocumentNews::Gone(tenant) => {
                self.documents.remove(&(owner, tenant));
                self.unfit.remove(&(owner, tenant));
            }
            DocumentNews::Kept { name, gzip, at } => {
                let mut keepers = self.keepers.iter_mut();
                if let Some(keeper) = keepers.find(|keeper| keeper.owner() == owner) {
                    keeper.note(name, gzip, at);
                }
            }
        }
    }

    /// Forgets what the source of a surface said, as if it had said nothing yet.
    pub fn forget(&mut self, owner: RecordOwner) {
        self.first.remove(&owner);
        self.has_first_published.remove(&owner);
        self.records.insert(owner, None);
        self.documents.retain(|(of, _), _| *of != owner);
    }

    /// Notes that this version of a document is published although it does not fit.
    pub fn note_unfit(&mut self, owner: DocumentOwner, version: ETag) {
        self.unfit.insert(owner, version);
    }

    /// The version of a document that was published last although it does not fit.
    pub fn unfit(&self, owner: &DocumentOwner) -> Option<&ETag> {
        self.unfit.get(owner)
    }

    /// The surfaces that have a source of documents.
    pub fn owners(&self) -> Vec<RecordOwner> {
        self.records.keys().copied().collect()
    }

    /// Whether every source said which records it has.
    pub fn is_complete(&self) -> bool {
        let mut sources = self.records.iter();
        sources.all(|(owner, records)| records.is_some() || self.first.contains_key(owner))
    }

    /// Whether no source said which records it has.
    pub fn is_silent(&self) -> bool {
        self.first.is_empty() && self.records.values().all(Option::is_none)
    }

    /// A surface's records, if its source said which those are.
    pub fn records(&self, owner: RecordOwner) -> Option<&RecordMap> {
        self.records.get(&owner)?.as_ref()
    }

    /// What a surface's records are to be, whose source does not know all of its own yet, where nothing of it `is_published`.
    /// It counts as published with that.
    pub fn first_records(&mut self, owner: RecordOwner, is_published: bool) -> Option<&RecordMap> {
        let first = self.first.get(&owner)?;
        if is_published && !self.has_first_published.contains(&owner) {
            return None;
        }
        self.has_first_published.insert(owner);
        Some(first)
    }

    /// Somebody else may have published since.
    pub fn forget_published(&mut self) {
        self.has_first_published.clear();
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

/// The records that are the surface's.
fn own(owner: RecordOwner, mut records: RecordMap) -> RecordMap {
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
    records
}

fn is_of(owner: RecordOwner, record: &[u8]) -> bool {
    matches!(belonging(record), Belonging::Surface(other, ..) if other == owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::surfaces::flagsmith::records::FlagsmithRecord;
    use flag_definitions_filter::surfaces::posthog::directory::Record;

    fn owner() -> RecordOwner {
        RecordOwner::named("flagsmith").unwrap()
    }

    fn document(tenant: u32, version: &str, fits: bool) -> DocumentNews {
        DocumentNews::Document(SourcedDocument {
            tenant: Tenant(tenant),
            version: ETag::new(version.as_bytes()).unwrap(),
            gzip: [1][..].into(),
            fits,
        })
    }

    #[test]
    fn the_last_word_counts_and_documents_are_gone_through_in_order() {
        let mut shelf = Shelf::new([owner()], Vec::new());
        assert!(!shelf.is_complete() && Shelf::default().is_complete());
        assert!(shelf.is_silent() && Shelf::default().is_silent());
        assert_eq!(shelf.records(owner()), None);
        for tenant in [3, 1, 2] {
            shelf.note(owner(), document(tenant, "v", true));
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
    fn what_does_not_fit_stays_until_something_else_comes_and_takes_no_place_of_what_fits() {
        let mut shelf = Shelf::new([owner()], Vec::new());
        for (version, fits, kept) in [
            ("v1", false, "v1"),
            ("v2", false, "v2"),
            ("v3", true, "v3"),
            ("v4", false, "v3"),
            ("v5", true, "v5"),
        ] {
            shelf.note(owner(), document(1, version, fits));
            let document = shelf.document(&(owner(), Tenant(1))).unwrap();
            assert_eq!(document.version.as_bytes(), kept.as_bytes(), "{version}");
        }
        shelf.note_unfit((owner(), Tenant(1)), ETag::new(b"v2").unwrap());
        assert!(shelf.unfit(&(owner(), Tenant(1))).is_some());
        // Whoever comes after it under its number has nothing to do with it.
        shelf.note(owner(), DocumentNews::Gone(Tenant(1)));
        assert_eq!(shelf.unfit(&(owner(), Tenant(1))), None);
        shelf.note(owner(), document(1, "v6", false));
        assert!(shelf.document(&(owner(), Tenant(1))).is_some());
    }

    #[test]
    fn first_records_are_for_where_nothing_is_published_until_there_are_others() {
        let mut shelf = Shelf::new([owner()], Vec::new());
        let records = |key: &[u8]| {
            let record: Box<[u8]> = FlagsmithRecord::ClientKey(Tenant(1)).encode().into();
            RecordMap::from([(Sha256Hash::of(key), record)])
        };
        assert_eq!(shelf.first_records(owner(), false), None);
        shelf.note(owner(), DocumentNews::FirstRecords(records(b"a")));
        assert!(shelf.is_complete() && !shelf.is_silent());
        assert_eq!(shelf.records(owner()), None);
        // What an earlier publisher left.
        assert_eq!(shelf.first_records(owner(), true), None);
        assert_eq!(shelf.first_records(owner(), false), Some(&records(b"a")));
        // Its own, unless somebody else had the lock since.
        shelf.note(owner(), DocumentNews::FirstRecords(records(b"b")));
        assert_eq!(shelf.first_records(owner(), true), Some(&records(b"b")));
        shelf.forget_published();
        assert_eq!(shelf.first_records(owner(), true), None);
        shelf.note(owner(), DocumentNews::Records(records(b"c")));
        assert_eq!(shelf.first_records(owner(), false), None);
        assert_eq!(shelf.records(owner()), Some(&records(b"c")));
    }

    #[test]
    fn records_of_another_surface_are_left_out() {
        let mut shelf = Shelf::new([owner()], Vec::new());
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
