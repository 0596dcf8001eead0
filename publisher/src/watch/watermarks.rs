//! ETags as their source tells them, and watermarks: everything up to a moment is in the stream.
//!
//! Where somebody watches ETags, a watermark follows each look at all of them. Where nobody does, there are none of theirs in
//! the stream, and whatever versions there are this publisher wrote itself: then Redis' clock alone gives the moment.

use std::collections::BTreeMap;
use std::time::Instant;

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::change::Watermark;
use flag_definitions_filter::tenant::Tenant;
use tracing::warn;

use super::session::{Outcome, Session};
use super::state::RecordChange;
use crate::redis::error::SnapshotStoreError;
use crate::sources::kinds::{RecordOwner, version_record};
use crate::sources::{ETagNews, Swept};

impl Session<'_, '_> {
    pub(super) fn handle_etags(&mut self, news: ETagNews) -> Result<(), SnapshotStoreError> {
        match news {
            ETagNews::Changed { epoch, etags } if epoch == self.writer.epoch => {
                let changes = self.etag_changes(etags);
                self.publish(changes)
            }
            ETagNews::Swept(swept) if swept.epoch == self.writer.epoch => self.swept(swept),
            // Hints are counted where they come in.
            ETagNews::Changed { .. } | ETagNews::Swept(_) | ETagNews::Hinted => Ok(()),
            ETagNews::Failed(problem) => {
                let status = &self.writer.status;
                status.update(|figures| figures.errors.definitions_redis += 1);
                warn!(problem, "the ETags cannot be read; no watermark");
                Ok(())
            }
        }
    }

    fn etag_changes(&self, etags: Vec<(Tenant, Option<ETag>)>) -> Vec<RecordChange> {
        let owner = RecordOwner::of_sources();
        let mut changes = BTreeMap::new();
        for (tenant, etag) in etags {
            if !self.state.has_tenant(owner, tenant) {
                continue;
            }
            let hash = owner.version_hash(tenant);
            let record = etag.as_ref().map(version_record);
            if self.state.get(&hash) != record.as_deref() {
                changes.insert(hash, record);
            }
        }
        changes.into_iter().collect()
    }

    /// Everything changed before the sweep stands in the stream now.
    fn swept(&mut self, swept: Swept) -> Result<(), SnapshotStoreError> {
        self.writer.status.update(|figures| {
            figures.sweep = Some(swept.took);
            figures.etags_known = swept.etags;
        });
        if self.following.is_none() {
            // Not one from before there were tenants.
            let is_early = self.collected.is_none_or(|since| since > swept.began);
            if is_early || !self.writer.shelf.is_complete() {
                return Ok(());
            }
            self.begin_lineage()?;
        }
        self.mark(swept.at, swept.began)
    }

    /// The same where nobody watches ETags, when it is time.
    pub(super) fn mark_by_clock(&mut self, now: Instant) -> Result<(), SnapshotStoreError> {
        if self.writer.orders.is_some() || now < self.next_mark {
            return Ok(());
        }
        self.next_mark = now + self.writer.settings.sweep_interval;
        if self.following.is_none() {
            if self.collected.is_none() || !self.writer.shelf.is_complete() {
                return Ok(());
            }
            self.begin_lineage()?;
        }
        let began = Instant::now();
        let at = self.store.now()?;
        self.mark(at, began)
    }

    /// Writes a watermark: of `at` by the clock of Redis, in Unix milliseconds, which was `began` by our own.
    fn mark(&mut self, at: u64, began: Instant) -> Result<(), SnapshotStoreError> {
        let records_at = match self.writer.ask {
            Some(_) => self.writer.freshness.records_at(began, at),
            // There is nothing that could have been missed.
            None => Some(at),
        };
        let watermark = Watermark {
            etags_at: at,
            records_at,
        };
        if self.append(&[watermark.written()])? == Outcome::Broken {
            return self.begin_lineage();
        }
        self.writer
            .status
            .update(|figures| figures.watermark = Some(began));
        self.show();
        self.look_after_pages()
    }
}
