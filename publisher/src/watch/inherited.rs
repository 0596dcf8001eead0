//! What a session takes over from an earlier publisher, before a watermark confirms it.
//!
//! A watermark says that everything is known up to a moment. So what only its author could know goes before the first one, and a
//! version is that of the document that is in Redis: an author that was killed may have written the one without the other.

use std::collections::BTreeMap;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use tracing::info;

use super::documents::AT_ONCE;
use super::session::Session;
use super::shelf::DocumentOwner;
use crate::redis::error::SnapshotStoreError;
use crate::sources::kinds::{RecordOwner, version_record};

impl Session<'_, '_> {
    /// Takes the certainty out of the records of all surfaces whose source has not spoken, or is not here.
    pub(super) fn doubt_silent_sources(&mut self) -> Result<(), SnapshotStoreError> {
        let mut changes = BTreeMap::new();
        for owner in RecordOwner::all() {
            if self.writer.shelf.records(owner).is_some() {
                continue;
            }
            for (hash, record) in self.state.records_of(owner) {
                if let Some(record) = owner.unsure(record) {
                    changes.insert(*hash, Some(record));
                }
            }
        }
        self.publish(changes.into_iter().collect())
    }

    /// Publishes the versions of the documents that Redis has, where they are not the published ones and no source here put
    /// its own there. Where the document is gone the version stays: whoever asks for the document sees that there is none.
    pub(super) fn publish_stored_versions(&mut self) -> Result<(), SnapshotStoreError> {
        let mut documents: Vec<DocumentOwner> = Vec::new();
        for owner in RecordOwner::all().filter(|owner| owner.has_documents()) {
            let tenants = self.state.tenants(owner).map(|tenant| (owner, tenant));
            documents.extend(tenants.filter(|document| self.is_anothers(document)));
        }
        let mut found = 0;
        for some in documents.chunks(AT_ONCE) {
            self.store.keep_lock()?;
            let prefix = self.store.prefix();
            let (hashes, places): (Vec<Sha256Hash>, Vec<_>) = some
                .iter()
                .filter_map(|(owner, tenant)| {
                    let place = owner.document(prefix, *tenant)?;
                    let field = (place.key, place.version_field);
                    Some((owner.version_hash(*tenant), field))
                })
                .unzip();
            let mut changes = BTreeMap::new();
            for (hash, stored) in hashes.into_iter().zip(self.store.fields(&places)?) {
                let Some(version) = stored.and_then(|stored| ETag::new(&stored)) else {
                    continue;
                };
                let record = version_record(&version);
                if self.state.get(&hash) != Some(&record) {
                    changes.insert(hash, Some(record));
                }
            }
            found += changes.len();
            self.publish(changes.into_iter().collect())?;
        }
        if found > 0 {
            info!(found, "published the versions of documents that were found");
        }
        Ok(())
    }

    /// Whether a published version is another one than that of the document here.
    fn is_anothers(&self, document: &DocumentOwner) -> bool {
        let (owner, tenant) = document;
        let published = self.state.get(&owner.version_hash(*tenant));
        let own = self.writer.shelf.document(document);
        let own = own.map(|document| version_record(&document.version));
        published.is_some() && published != own.as_deref()
    }
}
