//! What sources of documents say, as a session publishes it.
//!
//! A document is in Redis before the record of its version is in the stream, and a tenant's keys are out of the stream before
//! its version and its document go: whoever reads finds what it was told of. Nothing here is doubted; a source of documents
//! doubts for itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flag_definitions_filter::tenant::Tenant;
use tracing::{error, warn};

use super::difference::between;
use super::session::Session;
use super::shelf::DocumentOwner;
use super::state::RecordChange;
use crate::redis::error::SnapshotStoreError;
use crate::sources::documents::{DocumentNews, SourcedDocument};
use crate::sources::kinds::{RecordOwner, version_record};

/// Documents that are looked after together.
pub(super) const AT_ONCE: usize = 64;

/// Between two looks at the next few documents, whether Redis still has them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Which documents are looked at next, and when.
#[derive(Debug)]
pub(super) struct DocumentWatch {
    last: Option<DocumentOwner>,
    due: Instant,
    /// Why Redis refused the last document that it refused, until one is taken.
    refused: Option<String>,
}

impl DocumentWatch {
    /// All were looked at now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: None,
            due: now + LOOK_INTERVAL,
            refused: None,
        }
    }
}

impl Session<'_, '_> {
    /// Notes what a source said, and publishes what that changes.
    pub(super) fn handle_documents(
        &mut self,
        owner: RecordOwner,
        news: DocumentNews,
    ) -> Result<(), SnapshotStoreError> {
        let document = match &news {
            DocumentNews::Records(_) | DocumentNews::FirstRecords(_) => None,
            DocumentNews::Document(document) => Some((document.tenant, false)),
            DocumentNews::Gone(tenant) => Some((*tenant, true)),
            DocumentNews::Kept { gzip, .. } => {
                let is_new = gzip.is_some();
                self.writer.shelf.note(owner, news);
                // That one is confirmed has time.
                return if is_new { self.keep_texts() } else { Ok(()) };
            }
        };
        self.writer.shelf.note(owner, news);
        match document {
            None => self.publish_records(owner),
            Some((tenant, false)) => self.put_documents(&[(owner, tenant)]),
            // With the last of its keys it goes, too.
            Some((tenant, true)) if self.state.has_tenant(owner, tenant) => Ok(()),
            Some((tenant, true)) => self.remove_tenant(owner, tenant),
        }
    }

    /// Publishes all that was said before this session.
    pub(super) fn publish_shelf(&mut self) -> Result<(), SnapshotStoreError> {
        self.recall_texts()?;
        for owner in self.writer.shelf.owners() {
            self.publish_records(owner)?;
        }
        self.put_documents_back()?;
        self.drop_orphans()
    }

    /// Makes a surface's records those that its source said last. Until it said any for good, what is published stays.
    fn publish_records(&mut self, owner: RecordOwner) -> Result<(), SnapshotStoreError> {
        let is_published = !self.state.records_of(owner).is_empty();
        let shelf = &mut self.writer.shelf;
        let records = match shelf.first_records(owner, is_published) {
            Some(first) => first.clone(),
            None => match shelf.records(owner) {
                Some(records) => records.clone(),
                None => return Ok(()),
            },
        };
        let is_sure = |record: &[u8]| owner.unsure(record).is_some();
        let (claims, others): (Vec<RecordChange>, Vec<RecordChange>) =
            between(self.state.records_of(owner), records)
                .filter(|(hash, _)| !self.state.is_of_another(owner, hash))
                .partition(|(hash, record)| {
                    record.as_deref().is_some_and(is_sure)
                        && !self.state.get(hash).is_some_and(is_sure)
                });
        let before: Vec<Tenant> = self.state.tenants(owner).collect();
        self.publish(others)?;
        // A source becomes sure of its records when they are there.
        self.publish(claims)?;
        for tenant in before {
            let is_there = self.state.has_tenant(owner, tenant)
                || self.writer.shelf.document(&(owner, tenant)).is_some();
            if !is_there {
                self.remove_tenant(owner, tenant)?;
            }
        }
        Ok(())
    }

    /// Removes the version of a tenant that has no keys, then its document.
    fn remove_tenant(
        &mut self,
        owner: RecordOwner,
        tenant: Tenant,
    ) -> Result<(), SnapshotStoreError> {
        let hash = owner.version_hash(tenant);
        if self.state.get(&hash).is_some() {
            self.publish(vec![(hash, None)])?;
        }
        match owner.document(self.store.prefix(), tenant) {
            Some(place) => self.store.remove_document(&place.key),
            None => Ok(()),
        }
    }

    /// Writes all documents that Redis lacks. The versions of those that no source here told become those that Redis has.
    pub(super) fn put_documents_back(&mut self) -> Result<(), SnapshotStoreError> {
        let mut last = None;
        loop {
            let some = self.writer.shelf.after(last, AT_ONCE);
            if some.is_empty() {
                break;
            }
            last = some.last().copied();
            self.put_documents(&some)?;
        }
        self.publish_stored_versions()?;
        self.document_watch.due = Instant::now() + LOOK_INTERVAL;
        Ok(())
    }

    /// Looks at the next few documents, when it is time.
    pub(super) fn look_after_documents(&mut self, now: Instant) -> Result<(), SnapshotStoreError> {
        if now < self.document_watch.due {
            return Ok(());
        }
        let some = self.writer.shelf.after(self.document_watch.last, AT_ONCE);
        self.document_watch.last = some.last().copied();
        self.document_watch.due = now + LOOK_INTERVAL;
        self.put_documents(&some)?;
        self.keep_texts()
    }

    /// Brings documents and their versions to what the shelf has: first into Redis, then into the stream.
    fn put_documents(&mut self, owners: &[DocumentOwner]) -> Result<(), SnapshotStoreError> {
        self.store.keep_lock()?;
        let prefix = self.store.prefix();
        let mut documents = Vec::with_capacity(owners.len());
        for (owner, tenant) in owners {
            let document = self.writer.shelf.document(&(*owner, *tenant)).cloned();
            let place = owner.document(prefix, *tenant);
            documents.extend(document.zip(place).map(|found| (*owner, found)));
        }
        if documents.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = documents
            .iter()
            .map(|(_, (_, place))| (place.key.clone(), place.version_field))
            .collect();
        let stored = self.store.fields(&places)?;
        let (mut written, mut lost) = (0, 0);
        let mut changes = BTreeMap::new();
        for ((owner, (document, place)), stored) in documents.iter().zip(stored) {
            let hash = owner.version_hash(document.tenant);
            let record = version_record(&document.version);
            let is_published = self.state.get(&hash) == Some(&record);
            if !is_published && !self.may_replace(*owner, document) {
                continue;
            }
            if stored.as_deref() != Some(document.version.as_bytes()) {
                let refused = self.store.write_document(
                    &place.key,
                    (place.version_field, &document.version),
                    (place.text_field, &document.gzip),
                )?;
                if let Some(problem) = refused {
                    self.refused(problem);
                    continue;
                }
                self.document_watch.refused = None;
                written += 1;
                lost += u64::from(is_published);
            }
            if !is_published {
                changes.insert(hash, Some(record));
            }
        }
        self.writer
            .status
            .update(|figures| figures.documents += written);
        if lost > 0 {
            warn!(lost, "Redis lost documents; they are written again");
        }
        self.publish(changes.into_iter().collect())?;
        for (owner, (document, _)) in documents {
            let published = self.state.get(&owner.version_hash(document.tenant));
            if !document.fits && published == Some(&version_record(&document.version)) {
                let owner = (owner, document.tenant);
                self.writer.shelf.note_unfit(owner, document.version);
            }
        }
        Ok(())
    }

    /// Whether a document may take the place of the one that is published. One that does not fit takes only that of another
    /// one that does not: what an earlier publisher published may fit.
    fn may_replace(&self, owner: RecordOwner, document: &SourcedDocument) -> bool {
        let tenant = document.tenant;
        let Some(published) = self.state.get(&owner.version_hash(tenant)) else {
            return true;
        };
        let unfit = self.writer.shelf.unfit(&(owner, tenant));
        document.fits || unfit.is_some_and(|version| *published == *version_record(version))
    }

    /// A document that Redis does not take holds nothing else up. It is tried again.
    fn refused(&mut self, problem: String) {
        self.writer
            .status
            .update(|figures| figures.errors.redis += 1);
        if self.document_watch.refused.as_ref() != Some(&problem) {
            error!(
                problem,
                "Redis refuses a document, so its version is not published; the publisher's user needs +hset and +hget"
            );
        }
        self.document_watch.refused = Some(problem);
    }
}
