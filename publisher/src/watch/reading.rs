//! Full reads of the source, as a session takes them over.

use std::time::Instant;

use tracing::{error, info, warn};

use super::difference::{Difference, between};
use super::doubt::Doubt;
use super::session::{READ_RETRY, Session};
use super::state::{PublishedState, RecordChange};
use crate::redis::error::SnapshotStoreError;
use crate::sources::kinds::RecordOwner;
use crate::sources::left_out::{LeftOut, LeftOutReason};
use crate::sources::{Reading, SourceError, SourceNature};

impl Session<'_, '_> {
    /// Publishes what a full read changes, as far as it is believed.
    pub(super) fn take_over(
        &mut self,
        began: Instant,
        mut reading: Reading,
    ) -> Result<(), SnapshotStoreError> {
        let now = Instant::now();
        self.next_read = began + self.writer.settings.diff_interval;
        if self.announced.is_outdated(reading.position, now) {
            warn!("the database was read from a replica that is behind; this reading is ignored");
            return Ok(());
        }
        self.read_backoff = READ_RETRY;
        self.writer.problem = None;
        let skipped = reading.skipped;
        self.tell_left_out(&reading.left_out);
        self.writer.status.update(|figures| {
            figures.skipped = skipped;
            figures.last_read = Some(began);
        });
        self.keep_unlisted(&mut reading);
        if self.is_held_back_whole(&reading) {
            self.writer.freshness.doubted(began);
            return Ok(());
        }
        let percent = self.writer.settings.max_removal_percent;
        let Difference {
            changes,
            held_back,
            doubt,
        } = self
            .announced
            .difference(reading, &self.state, percent, now);
        if let Some(doubt) = doubt {
            tell_held_back(self.writer.nature, doubt, held_back);
        }
        self.writer
            .status
            .update(|figures| figures.held_back = held_back as u64);
        if !changes.is_empty() {
            info!(
                changes = changes.len(),
                "{} changed",
                self.writer.nature.noun()
            );
        }
        self.publish(changes)?;
        match doubt {
            None => self.writer.freshness.read(began, Instant::now()),
            Some(_) => self.writer.freshness.doubted(began),
        }
        if self.writer.freshness.needs_read() {
            self.next_read = Instant::now();
        }
        self.collected.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// What no source here lists stays as it is published: filters would refuse whom it is of before they learn that nobody
    /// lists it any more.
    fn keep_unlisted(&self, reading: &mut Reading) {
        let owner = RecordOwner::of_sources();
        let listed = &self.writer.told.surfaces;
        let states = self.remains.iter().chain([&self.state]);
        for (hash, record) in states.flat_map(PublishedState::records) {
            let list = owner.list(record);
            if list.is_some_and(|list| !listed.iter().any(|own| own == list)) {
                reading
                    .records
                    .entry(*hash)
                    .or_insert_with(|| record.clone());
            }
        }
    }

    /// The source cannot be read. It is tried again.
    pub(super) fn cannot_read(&mut self, problem: SourceError) {
        let nature = self.writer.nature;
        self.writer.freshness.read_failed();
        self.writer.status.update(|figures| match nature {
            SourceNature::Database => figures.errors.postgres += 1,
            SourceNature::Document => figures.errors.file += 1,
        });
        let is_told =
            nature == SourceNature::Document && self.writer.problem.as_ref() == Some(&problem);
        if !is_told {
            warn!(%problem, "{} cannot be read", nature.noun());
        }
        self.writer.problem = Some(problem);
        self.next_read = Instant::now() + self.read_backoff;
        let longest = self.writer.settings.diff_interval.max(READ_RETRY);
        self.read_backoff = (self.read_backoff * 2).min(longest);
    }

    /// Where nothing can be continued the first reading becomes a whole snapshot in place of what is published. If it
    /// lacks too much of that, all of it waits: what is published stays.
    fn is_held_back_whole(&mut self, reading: &Reading) -> bool {
        let Some(remains) = &self.remains else {
            return false;
        };
        let records = reading.records.iter();
        let records = records.map(|(hash, record)| (*hash, record.clone()));
        let changes: Vec<RecordChange> = between(remains.records(), records).collect();
        let percent = self.writer.settings.max_removal_percent;
        let doubt = Doubt::of(remains, &changes, reading.lacks_project_keys, percent);
        let Some(doubt) = doubt.and_then(Doubt::without_lineage) else {
            self.remains = None;
            return false;
        };
        let removals = changes
            .iter()
            .filter(|(_, record)| record.is_none())
            .count();
        tell_held_back(self.writer.nature, doubt, removals);
        self.writer
            .status
            .update(|figures| figures.held_back = removals as u64);
        true
    }

    /// One line a reason, whenever other rows are left out for it than before.
    fn tell_left_out(&mut self, left_out: &LeftOut) {
        for reason in LeftOutReason::ALL {
            if let Some(rows) = left_out.of(reason)
                && self.left_out.of(reason) != Some(rows)
            {
                warn!(
                    reason = reason.label(),
                    rows = rows.count,
                    ids = %rows,
                    "the database has rows {}: they are left out",
                    reason.text()
                );
            }
        }
        self.left_out.clone_from(left_out);
    }
}

fn tell_held_back(nature: SourceNature, doubt: Doubt, removals: usize) {
    error!(
        removals,
        reason = %doubt,
        "what {} lacks is more likely a mistake than a wish: its removal is held back; \
         look with `diff`, and if it is meant, start once with --max-removal-percent 100",
        nature.noun()
    );
}
