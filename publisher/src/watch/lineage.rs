//! Snapshots of a session: the one that begins a lineage, and those that follow in it.

use std::time::Instant;

use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::{manifest, page};
use tracing::{info, warn};

use super::pages::{SnapshotJob, WrittenSnapshot};
use super::session::{Following, Session};
use super::stream::End;
use crate::progress::PageProgress;
use crate::redis::error::SnapshotStoreError;
use crate::sources::kinds::RecordOwner;

/// Where there is no terminal, this many pages are worth a line.
const PAGES_PER_LINE: usize = 100;

/// Keys looked at by one command.
const KEYS_PER_COMMAND: usize = 1_000;

impl Session<'_, '_> {
    /// Publishes the state as a snapshot that no earlier change belongs to: all filters load it.
    pub(super) fn begin_lineage(&mut self) -> Result<(), SnapshotStoreError> {
        self.following = None;
        self.job = None;
        // Before the manifest that names their versions.
        self.put_documents_back()?;
        let owner = RecordOwner::of_sources();
        if self.writer.ask.is_some() && self.state.tenants(owner).next().is_none() {
            warn!("there are no teams: filters will refuse every token");
        }
        if let Some(current) = self.store.current()? {
            self.writer.raise_floor(current);
        }
        let floor = self.writer.floor;
        let reservation = self.store.reserve(floor.generation)?;
        // Ids go up even when the clock of Redis goes back.
        let stream_id = StreamId {
            millis: reservation
                .millis
                .max(floor.stream_id.millis.saturating_add(1)),
            sequence: 0,
        };
        let mut job = SnapshotJob::new(&self.state, reservation, None, stream_id);
        let expected = self.state.bytes().div_ceil(page::MAX_BYTES).max(1);
        let mut bar = PageProgress::on_terminal(expected);
        while job.write_page(&mut self.store, &self.state)? {
            match &mut bar {
                Some(bar) => bar.wrote_page(),
                None if job.pages().is_multiple_of(PAGES_PER_LINE) => {
                    info!(pages = job.pages(), expected, "writing the snapshot");
                }
                None => (),
            }
        }
        drop(bar);
        let published = job.publish(&mut self.store, &self.writer.told)?;
        self.writer.status.update(|figures| figures.lineages += 1);
        let end = End {
            previous: published.stream_id,
            newest: None,
            length: 0,
            manifest: published.manifest.clone(),
            fence: self.fence,
        };
        self.adopt(published, end, floor.generation)
    }

    /// Starts a snapshot when something changed and it is time, or when the current one is of no use.
    pub(super) fn start_snapshot_if_due(&mut self) -> Result<(), SnapshotStoreError> {
        let Some(following) = &self.following else {
            return Ok(());
        };
        let settings = self.writer.settings;
        let age = following.since.elapsed();
        // Changes that follow a snapshot stay in the stream, watermarks too. So it must not become too old.
        let is_due = (self.is_changed && age >= settings.snapshot_interval)
            || age >= settings.retention / 2
            || self.is_incomplete;
        if !is_due || self.job.is_some() {
            return Ok(());
        }
        let (lineage, id) = (following.lineage, following.end.previous);
        let floor = self.writer.floor.generation.max(following.generation);
        let reservation = self.store.reserve(floor)?;
        self.job = Some(SnapshotJob::new(
            &self.state,
            reservation,
            Some(lineage),
            id,
        ));
        self.is_changed = false;
        self.is_incomplete = false;
        Ok(())
    }

    /// Writes the next page of the snapshot that is being written; after the last one makes it the current one.
    pub(super) fn advance_snapshot(&mut self) -> Result<(), SnapshotStoreError> {
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        if job.write_page(&mut self.store, &self.state)? {
            return Ok(());
        }
        let (Some(job), Some(following)) = (self.job.take(), &self.following) else {
            return Ok(());
        };
        let mut end = following.end.clone();
        let replaced = following.generation;
        match job.publish(&mut self.store, &self.writer.told) {
            Ok(published) => {
                end.manifest.clone_from(&published.manifest);
                self.adopt(published, end, replaced)
            }
            Err(problem @ SnapshotStoreError::PageLost { .. }) => {
                warn!(%problem, "writing the snapshot again");
                self.is_incomplete = true;
                Ok(())
            }
            Err(problem) => Err(problem),
        }
    }

    fn adopt(
        &mut self,
        published: WrittenSnapshot,
        end: End,
        replaced: u64,
    ) -> Result<(), SnapshotStoreError> {
        let WrittenSnapshot {
            generation,
            lineage,
            stream_id,
            pages,
            ..
        } = published;
        info!(generation, lineage, as_of = %stream_id, pages, "published a snapshot");
        if let Some(problem) = published.unexpired {
            warn!(problem, "the pages of the snapshot before do not expire");
        }
        self.is_whole = true;
        self.following = Some(Following {
            lineage,
            generation,
            stream_id,
            pages,
            since: Instant::now(),
            end,
        });
        self.writer.raise_floor(crate::redis::store::SnapshotPlace {
            generation,
            stream_id,
        });
        self.writer.status.update(|figures| figures.snapshots += 1);
        self.show();
        self.store.expire_leftovers(generation, replaced)
    }

    /// When Redis evicted a page, the snapshot is written again.
    pub(super) fn look_after_pages(&mut self) -> Result<(), SnapshotStoreError> {
        let Some(following) = &self.following else {
            return Ok(());
        };
        if self.job.is_some() || self.is_incomplete {
            return Ok(());
        }
        let prefix = self.store.prefix();
        let keys: Vec<String> = (0..following.pages)
            .map(|page| manifest::page_key(prefix, following.generation, page))
            .collect();
        let mut found = 0;
        for keys in keys.chunks(KEYS_PER_COMMAND) {
            found += self
                .store
                .read::<usize>("EXISTS", keys, "looking after the pages")?;
        }
        if found < keys.len() {
            let missing = keys.len() - found;
            warn!(
                missing,
                "Redis lost pages of the snapshot; it is written again"
            );
            self.is_incomplete = true;
        }
        Ok(())
    }
}
