//! What happens while this publisher holds the lock: events come in, changes go out.

use std::collections::VecDeque;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use flag_definitions_filter::records::{StreamId, TOMBSTONE};
use flag_definitions_filter::snapshot::change::{self, Written};
use tracing::warn;

use super::difference::Announced;
use super::documents::DocumentWatch;
use super::events::WriterEvent;
use super::pages::SnapshotJob;
use super::restore::Restored;
use super::state::{PublishedState, RecordChange};
use super::status::RecordFigures;
use super::stream::{AT_ONCE, Appended, End};
use super::writer::Writer;
use crate::redis::error::SnapshotStoreError;
use crate::redis::store::SnapshotStore;
use crate::sources::kinds::RecordOwner;
use crate::sources::left_out::LeftOut;
use crate::sources::{Heard, Order};

/// Longest time without a look whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// The first snapshot waits this long for the ETags, and for sources of documents. Without them it is published all the
/// same.
const OTHERS_WAIT: Duration = Duration::from_secs(30);

/// Before the first new attempt after the database failed; doubled each time, at most the interval of full reads.
pub(super) const READ_RETRY: Duration = Duration::from_secs(1);

/// Changes that become entries together.
const CHANGES_AT_ONCE: usize = 4_096;

/// The record of what was removed.
const REMOVED: &[u8] = &[TOMBSTONE];

/// A lineage that is being continued.
#[derive(Clone, Debug)]
pub struct Following {
    /// Number of the lineage.
    pub lineage: u64,
    /// The current snapshot.
    pub generation: u64,
    /// As of when that is true.
    pub stream_id: StreamId,
    /// Number of its pages.
    pub pages: usize,
    /// When it was written, or found.
    pub since: Instant,
    /// Where the next change goes.
    pub end: End,
}

impl Following {
    /// What was found in Redis.
    pub fn restored(restored: &Restored) -> Self {
        Self {
            lineage: restored.manifest.lineage,
            generation: restored.manifest.generation,
            stream_id: restored.manifest.stream_id,
            pages: restored.manifest.pages.len(),
            since: Instant::now(),
            end: restored.end.clone(),
        }
    }
}

/// Whether entries went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    /// The lineage cannot be continued.
    Broken,
}

/// One time of holding the lock.
pub struct Session<'w, 'a> {
    pub(super) writer: &'w mut Writer<'a>,
    pub(super) store: SnapshotStore<'a>,
    pub(super) fence: u64,
    pub(super) state: PublishedState,
    /// `None`: nothing is published yet, the state is being collected.
    pub(super) following: Option<Following>,
    /// Whether the state is one that was published.
    pub(super) is_whole: bool,
    /// What others published and cannot be continued, until a reading of the database takes its place.
    pub(super) remains: Option<PublishedState>,
    /// A snapshot being written.
    pub(super) job: Option<SnapshotJob>,
    /// Whether something changed since the snapshot.
    pub(super) is_changed: bool,
    /// Whether a snapshot is needed at once.
    pub(super) is_incomplete: bool,
    pub(super) announced: Announced,
    started: Instant,
    /// Since when a full read is there, or none is wanted, and the other sources are waited for.
    pub(super) collected: Option<Instant>,
    /// When the next watermark is due, where nobody watches ETags.
    pub(super) next_mark: Instant,
    pub(super) document_watch: DocumentWatch,
    watched_revision: Option<u64>,
    trimmed: Instant,
    /// Which id was the last at which time, oldest first, for as long as changes are kept.
    trail: VecDeque<(Instant, StreamId)>,
    pub(super) next_read: Instant,
    pub(super) read_backoff: Duration,
    /// What the last full read left out.
    pub(super) left_out: LeftOut,
}

impl<'w, 'a> Session<'w, 'a> {
    /// Starts with what is published, or with what is to be.
    pub fn new(
        writer: &'w mut Writer<'a>,
        store: SnapshotStore<'a>,
        fence: u64,
        state: PublishedState,
        following: Option<Following>,
    ) -> Self {
        let now = Instant::now();
        let is_changed = following
            .as_ref()
            .is_some_and(|following| following.end.previous != following.stream_id);
        let collected = writer.ask.is_none().then_some(now);
        let mut session = Self {
            writer,
            store,
            fence,
            state,
            is_whole: following.is_some(),
            following,
            remains: None,
            job: None,
            is_changed,
            is_incomplete: false,
            announced: Announced::default(),
            started: now,
            collected,
            next_mark: now,
            document_watch: DocumentWatch::new(now),
            watched_revision: None,
            trimmed: now,
            trail: VecDeque::new(),
            next_read: now,
            read_backoff: READ_RETRY,
            left_out: LeftOut::default(),
        };
        session.show();
        session
    }

    /// Ends the session: what was published, and the connection.
    pub fn into_parts(self) -> (Option<PublishedState>, SnapshotStore<'a>) {
        (self.is_whole.then_some(self.state), self.store)
    }

    /// Runs until it is to stop.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn run(&mut self) -> Result<(), SnapshotStoreError> {
        self.doubt_silent_sources()?;
        if self.is_whole && self.following.is_none() {
            // Redis lost what the last session published.
            self.begin_lineage()?;
        }
        self.publish_shelf()?;
        loop {
            self.watch_tenants();
            if self.writer.must_stop() {
                return Ok(());
            }
            // Pages are written whenever nothing else is to be done.
            let wait = if self.job.is_some() {
                Duration::ZERO
            } else {
                TICK
            };
            match self.writer.inbox.recv_timeout(wait) {
                Ok(event) => self.handle(event)?,
                Err(RecvTimeoutError::Timeout) => self.advance_snapshot()?,
                // Cannot be while this runs: the threads end after the writer.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.keep_up()?;
            let now = Instant::now();
            self.writer
                .status
                .update(|figures| figures.turned = Some(now));
        }
    }

    /// What is due by the clock.
    fn keep_up(&mut self) -> Result<(), SnapshotStoreError> {
        let now = Instant::now();
        self.store.keep_lock()?;
        if now >= self.next_read
            && self.writer.asked.is_none()
            && let Some(ask) = &self.writer.ask
        {
            self.writer.asked = Some(now);
            let _ = ask.send(());
        }
        self.begin_without_others(now)?;
        self.mark_by_clock(now)?;
        self.look_after_documents(now)?;
        for reporter in &mut self.writer.reporters {
            reporter.advance(&mut self.store, self.writer.epoch, self.writer.status, now)?;
        }
        if now.duration_since(self.trimmed) >= self.writer.settings.trim_interval {
            self.trimmed = now;
            self.trim()?;
        }
        self.start_snapshot_if_due()
    }

    /// The first snapshot waits for all sources, but not for ever.
    fn begin_without_others(&mut self, now: Instant) -> Result<(), SnapshotStoreError> {
        if self.following.is_some() {
            return Ok(());
        }
        let waits_since = self.collected.unwrap_or(self.started);
        if now.saturating_duration_since(waits_since) < OTHERS_WAIT {
            return Ok(());
        }
        let shelf = &self.writer.shelf;
        if self.collected.is_none() {
            // What is published of that source is worth more than a snapshot without it.
            let is_published = |remains: &PublishedState| !remains.records().is_empty();
            if shelf.is_silent() || self.remains.as_ref().is_some_and(is_published) {
                return Ok(());
            }
            let noun = self.writer.nature.noun();
            warn!("{noun} cannot be read; publishing without its records");
        } else if shelf.is_complete() {
            warn!("the ETags cannot be read; publishing without them");
        } else {
            warn!("not every source of documents can be read; publishing without");
        }
        self.begin_lineage()
    }

    fn handle(&mut self, event: WriterEvent) -> Result<(), SnapshotStoreError> {
        match event {
            WriterEvent::Heard(Heard::Announced(announcement)) => {
                let changes = self
                    .announced
                    .take(announcement, &self.state, Instant::now());
                self.publish(changes)
            }
            WriterEvent::Heard(heard) => {
                self.writer.note_listening(&heard);
                if heard == Heard::Overflow || self.writer.freshness.needs_read() {
                    self.next_read = Instant::now();
                }
                Ok(())
            }
            WriterEvent::Read { began, result } => {
                self.writer.asked = None;
                match result {
                    Ok(reading) => self.take_over(began, reading),
                    Err(problem) => {
                        self.cannot_read(problem);
                        Ok(())
                    }
                }
            }
            WriterEvent::ETags(news) => self.handle_etags(news),
            WriterEvent::Documents { owner, news } => self.handle_documents(owner, news),
            WriterEvent::Usage { owner, news } => {
                self.writer.handle_usage(owner, news, Some(&mut self.store))
            }
        }
    }

    /// Publishes changes, in hash order, each hash once.
    pub(super) fn publish(&mut self, changes: Vec<RecordChange>) -> Result<(), SnapshotStoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let revision = self.state.tenants_revision();
        let mut outcome = self.publish_as_they_are(changes)?;
        if self.state.tenants_revision() != revision {
            // Tenants that went take their versions along.
            let orphans = self.orphans();
            if outcome == Outcome::Broken {
                self.apply(orphans);
            } else {
                outcome = self.publish_as_they_are(orphans)?;
            }
        }
        self.show();
        match outcome {
            Outcome::Written => Ok(()),
            Outcome::Broken => self.begin_lineage(),
        }
    }

    /// Removes versions that are nobody's, and those that nobody watches any more: a watermark must not confirm them.
    pub(super) fn drop_orphans(&mut self) -> Result<(), SnapshotStoreError> {
        let orphans = self.orphans();
        self.publish(orphans)
    }

    fn orphans(&self) -> Vec<RecordChange> {
        let spared = self.writer.shelf.version_hashes();
        let are_watched = self.writer.orders.is_some();
        let orphans = self.state.orphaned_versions(are_watched, &spared);
        orphans.into_iter().map(|hash| (hash, None)).collect()
    }

    fn publish_as_they_are(
        &mut self,
        changes: Vec<RecordChange>,
    ) -> Result<Outcome, SnapshotStoreError> {
        let mut outcome = Outcome::Written;
        let mut changes = changes.into_iter();
        loop {
            let some: Vec<RecordChange> = changes.by_ref().take(CHANGES_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(outcome);
            }
            if self.following.is_some() && outcome == Outcome::Written {
                let records = some.iter();
                let entries = change::split(
                    records.map(|(hash, record)| (*hash, record.as_deref().unwrap_or(REMOVED))),
                );
                outcome = self.append(&entries)?;
            }
            self.apply(some);
        }
    }

    /// What went out becomes the published state.
    fn apply(&mut self, changes: Vec<RecordChange>) {
        let (mut upserts, mut removals, mut etag_changes) = (0, 0, 0);
        for (hash, record) in changes {
            self.is_changed = true;
            let is_removal = record.is_none();
            let is_etag = self.state.is_version(&hash, record.as_deref());
            let counter = match (is_etag, is_removal) {
                (true, _) => &mut etag_changes,
                (false, true) => &mut removals,
                (false, false) => &mut upserts,
            };
            *counter += 1;
            let before = self.state.put((hash, record));
            if let Some(job) = &mut self.job {
                job.note(hash, before);
            }
        }
        if self.following.is_some() {
            self.writer.status.update(|figures| {
                figures.upserts += upserts;
                figures.removals += removals;
                figures.etag_changes += etag_changes;
            });
        }
    }

    pub(super) fn append(&mut self, entries: &[Written]) -> Result<Outcome, SnapshotStoreError> {
        let Some(following) = &mut self.following else {
            return Ok(Outcome::Broken);
        };
        for entries in entries.chunks(AT_ONCE) {
            loop {
                match following.end.append(&mut self.store, entries)? {
                    Appended::Written(_) => break,
                    Appended::Holes => {
                        warn!(
                            "changes were removed from the stream; the snapshot is written again"
                        );
                        self.is_incomplete = true;
                    }
                    Appended::Broken(reason) => {
                        warn!(reason, "a new lineage begins");
                        return Ok(Outcome::Broken);
                    }
                }
            }
        }
        Ok(Outcome::Written)
    }

    /// Old changes go, but none that the current snapshot needs.
    fn trim(&mut self) -> Result<(), SnapshotStoreError> {
        let Some(following) = &mut self.following else {
            return Ok(());
        };
        let retention = self.writer.settings.retention;
        let millis = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let mut oldest = following.end.previous.minus_millis(millis);
        // Ids stand still while the clock of Redis is behind them. Then our own clock tells their age.
        let now = Instant::now();
        self.trail.push_back((now, following.end.previous));
        while let Some((_, id)) = self
            .trail
            .pop_front_if(|(then, _)| now.duration_since(*then) >= retention)
        {
            oldest = oldest.max(id);
        }
        let oldest = oldest.min(following.stream_id);
        following.end.trim(&mut self.store, oldest)
    }

    /// Tells the sweeper whom to look at.
    fn watch_tenants(&mut self) {
        let Some(orders) = &self.writer.orders else {
            return;
        };
        let is_known = self.following.is_some() || self.collected.is_some();
        let revision = self.state.tenants_revision();
        if is_known && self.watched_revision != Some(revision) {
            self.watched_revision = Some(revision);
            let epoch = self.writer.epoch;
            let teams = self.state.tenants(RecordOwner::of_sources()).collect();
            let _ = orders.send(Order::Watch { epoch, teams });
        }
    }

    pub(super) fn show(&mut self) {
        let records = RecordFigures(self.state.labelled_counts());
        let following = self.following.as_ref();
        self.writer.status.update(|figures| {
            figures.records = records;
            if let Some(following) = following {
                figures.generation = following.generation;
                figures.lineage = following.lineage;
                figures.last_id = Some(following.end.previous);
            }
        });
    }
}
