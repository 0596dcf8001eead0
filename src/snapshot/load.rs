//! One snapshot on its way into shared data.
//!
//! Pages are read twice: first all of them are checked and nothing is written, then they are applied. While
//! records of two snapshots lie side by side nobody is refused ([`Status::applying`]), and what is no longer there is
//! dropped when a load is complete.

use super::attempt;
use super::attempt::{Attempt, Place};
use super::event::LoaderEvent;
use super::manifest::{self, Manifest};
use super::page::Cursor;
use super::status::{Applying, Live, Status};
use crate::records::bucket::{self, Entry};
use crate::records::{Buckets, Check, CorruptRecord, Revision, StreamId, Touched};
use crate::redis::{Command, Failure, Reply};
use crate::shared::{Cas, Store, StoreError, Update, update};
use crate::time::Monotonic;

/// What one slice may cost, see [`apply_slice`]: about a third of a millisecond.
pub(super) const SLICE: usize = 1_024;

/// What a bucket costs, in records: it is read, built and written.
const BUCKET_COST: usize = 3;

/// Most records looked at in one slice.
const SLICE_CHECKED: usize = 2_048;

/// Buckets that one slice creates.
const SLICE_CREATED: u32 = 128;

/// What one slice of looking for dropped records may cost: 1 a bucket, and 1 more for each [`SWEPT_BYTES`] in it.
const SLICE_SWEPT: usize = 1_024;
const SWEPT_BYTES: usize = 256;

/// For how long a removal is remembered, in milliseconds: longer than any other source may bring it back.
pub(super) const TOMBSTONE_MILLIS: u64 = 24 * 3_600 * 1_000;

/// What is done with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Check,
    Apply,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Creating(u32),
    NextPage(usize),
    AwaitingPage(usize),
    Checking(usize, Cursor),
    Applying(usize, Cursor),
    Sweeping(u32),
    /// All of it is in; only [`Load::live`] is left.
    Complete,
}

/// A load under way.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) digest: String,
    pub(super) manifest: Manifest,
    pub(super) attempt: Attempt,
    pub(super) step: Step,
    asked_at: Monotonic,
    check: Check,
    pass: Pass,
}

impl Load {
    /// A load of the snapshot that was asked for at `asked_at`. It creates all buckets before anything else, or each
    /// with its first record.
    pub(super) fn new(
        digest: String,
        manifest: Manifest,
        attempt: Attempt,
        asked_at: Monotonic,
        buckets_first: bool,
        check: Check,
    ) -> Self {
        Self {
            digest,
            check,
            manifest,
            attempt,
            step: if buckets_first {
                Step::Creating(0)
            } else {
                Step::NextPage(0)
            },
            asked_at,
            pass: Pass::Check,
        }
    }

    /// The page that is to be read now, if one is.
    pub(super) fn ask(&mut self, prefix: &str) -> Option<Command> {
        let Step::NextPage(page) = self.step else {
            return None;
        };
        self.step = Step::AwaitingPage(page);
        let generation = self.manifest.generation;
        Some(Command::get(&manifest::page_key(prefix, generation, page)))
    }

    /// Whether it waits for a page.
    pub(super) fn awaits_page(&self) -> bool {
        matches!(self.step, Step::AwaitingPage(_))
    }

    /// Takes the page that was asked for.
    pub(super) fn take(&mut self, reply: Result<Reply<'_>, Failure>) -> Result<(), LoaderEvent> {
        let Step::AwaitingPage(page) = self.step else {
            return Ok(());
        };
        let digest = self.manifest.pages.get(page);
        let cursor = match reply {
            Ok(Reply::Bytes(bytes)) if digest.is_some_and(|digest| digest.matches(&bytes)) => {
                Cursor::new(bytes.into_owned()).map_err(|_| LoaderEvent::PageCorrupt)?
            }
            Ok(Reply::Bytes(_)) => return Err(LoaderEvent::PageMismatch),
            Ok(_) => return Err(LoaderEvent::PageMissing),
            Err(_) => return Err(LoaderEvent::ReadFailed),
        };
        self.step = match self.pass {
            Pass::Check => Step::Checking(page, cursor),
            Pass::Apply => Step::Applying(page, cursor),
        };
        Ok(())
    }

    /// Whether there is work that waits for nobody.
    pub(super) fn is_busy(&self) -> bool {
        !self.awaits_page()
    }

    /// Does a slice of work.
    ///
    /// # Errors
    /// Why the load ends.
    pub(super) fn slice(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
    ) -> Result<(), LoaderEvent> {
        match std::mem::replace(&mut self.step, Step::Complete) {
            Step::Creating(bucket) => self.create(store, buckets, bucket),
            Step::Checking(page, cursor) => self.check(store, buckets, page, cursor),
            Step::Applying(page, cursor) => self.apply(store, buckets, page, cursor),
            Step::Sweeping(bucket) => self.sweep(store, buckets, bucket),
            other => {
                self.step = other;
                Ok(())
            }
        }
    }

    /// What every worker is to know of it when it is complete.
    pub(super) fn live(&self, now: Monotonic, longest_slice_micros: u64) -> Live {
        Live {
            manifest: self.digest.clone(),
            generation: self.manifest.generation,
            stream_id: self.manifest.stream_id,
            etags_watched: self.manifest.etags_watched,
            lineage: self.manifest.lineage,
            records: self.manifest.records.clone(),
            loaded_at: now.as_millis(),
            verified_at: self.asked_at.as_millis(),
            contact_at: self.asked_at.as_millis(),
            longest_slice_micros,
            surfaces: self.manifest.surfaces.clone(),
        }
    }

    fn create(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        from: u32,
    ) -> Result<(), LoaderEvent> {
        let until = buckets.count().min(from.saturating_add(SLICE_CREATED));
        for index in from..until {
            // One that exists already is left alone.
            store.replace(&buckets.name(index), &[], Cas::ABSENT)?;
        }
        self.step = if until < buckets.count() {
            Step::Creating(until)
        } else {
            Step::NextPage(0)
        };
        Ok(())
    }

    fn check(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        page: usize,
        mut cursor: Cursor,
    ) -> Result<(), LoaderEvent> {
        let offset = cursor.position().offset;
        self.attempt.note(
            store,
            &attempt::name(buckets.scope()),
            Place { page, offset },
        )?;
        if check_slice(&mut cursor, self.check)? {
            self.step = Step::Checking(page, cursor);
            return Ok(());
        }
        if self.is_followed_by_page(page) {
            self.step = Step::NextPage(page + 1);
            return Ok(());
        }
        self.announce(store, buckets, false)?;
        self.pass = Pass::Apply;
        // The only page need not be read again.
        self.step = if page == 0 {
            cursor.rewind();
            Step::Applying(0, cursor)
        } else {
            Step::NextPage(0)
        };
        Ok(())
    }

    fn apply(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        page: usize,
        mut cursor: Cursor,
    ) -> Result<(), LoaderEvent> {
        let place = Place {
            page,
            offset: cursor.position().offset,
        };
        self.attempt
            .note(store, &attempt::name(buckets.scope()), place)?;
        let id = self.manifest.stream_id;
        let mut left = SLICE;
        // What is removed meanwhile must outlive the pages, however old they are.
        let tombstones_until = StreamId::default();
        if apply_slice(store, buckets, id, tombstones_until, &mut cursor, &mut left)? {
            self.step = Step::Applying(page, cursor);
        } else if self.is_followed_by_page(page) {
            self.step = Step::NextPage(page + 1);
        } else {
            self.announce(store, buckets, true)?;
            // The records did no harm; whatever happens to this VM now is not their doing.
            self.attempt.end(store, &attempt::name(buckets.scope()))?;
            self.step = Step::Sweeping(0);
        }
        Ok(())
    }

    fn is_followed_by_page(&self, page: usize) -> bool {
        page + 1 < self.manifest.pages.len()
    }

    /// Tells all workers how far the records are. Fails when they could not be told, or know of a newer
    /// snapshot: this owner was held up for longer than its lease.
    fn announce(
        &self,
        store: &impl Store,
        buckets: &Buckets,
        complete: bool,
    ) -> Result<(), LoaderEvent> {
        let id = self.manifest.stream_id;
        let mut newest = false;
        let told = Status::change(store, buckets.scope(), |status| {
            let live = status.live.as_ref().map(|live| live.stream_id);
            let applying = status.applying.as_ref().map(|next| next.stream_id);
            newest = live < Some(id) && applying <= Some(id);
            if newest {
                status.applying = Some(Applying {
                    manifest: self.digest.clone(),
                    stream_id: id,
                    complete,
                });
            }
        });
        if newest && told == Ok(Update::Written) {
            Ok(())
        } else {
            Err(LoaderEvent::LeaseLost)
        }
    }

    /// Drops what the snapshot did not renew.
    fn sweep(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        from: u32,
    ) -> Result<(), LoaderEvent> {
        let swept = self.sweep_slice(store, buckets, from);
        // Also after a failure: something may be gone.
        Revision::raise(store, buckets.scope(), Touched::ALL)?;
        swept
    }

    fn sweep_slice(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        from: u32,
    ) -> Result<(), LoaderEvent> {
        let loaded = self.manifest.stream_id;
        let graves = loaded.minus_millis(TOMBSTONE_MILLIS);
        let mut cost = 0;
        for index in from..buckets.count() {
            if cost >= SLICE_SWEPT {
                self.step = Step::Sweeping(index);
                break;
            }
            let swept = update(store, &buckets.name(index), |current| {
                cost += 1 + current.len() / SWEPT_BYTES;
                bucket::sweep(current, loaded, graves)
            })?;
            if swept == Update::Contended {
                return Err(LoaderEvent::StoreFailed);
            }
        }
        Ok(())
    }
}

/// Puts the next records of a page into their buckets, as many as what is `left` of a slice pays for; whether the
/// page goes on. Tombstones older than `tombstones_until` go from buckets that change.
///
/// # Errors
/// When shared data fails, or what follows is no record.
pub(super) fn apply_slice(
    store: &impl Store,
    buckets: &Buckets,
    id: StreamId,
    tombstones_until: StreamId,
    cursor: &mut Cursor,
    left: &mut usize,
) -> Result<bool, LoaderEvent> {
    let mut touched = Touched::default();
    let goes_on = put(
        store,
        buckets,
        (id, tombstones_until),
        (cursor, left),
        &mut touched,
    );
    if touched != Touched::default() {
        Revision::raise(store, buckets.scope(), touched)?;
    }
    goes_on
}

fn put(
    store: &impl Store,
    buckets: &Buckets,
    (id, tombstones_until): (StreamId, StreamId),
    (cursor, left): (&mut Cursor, &mut usize),
    touched: &mut Touched,
) -> Result<bool, LoaderEvent> {
    let mut position = cursor.position();
    while *left > 0 {
        let mut entries = Vec::new();
        let mut index = None;
        while *left > 0 {
            let Some((hash, record, next)) = cursor.record_at(position)? else {
                break;
            };
            let bucket = buckets.of(&hash);
            if *index.get_or_insert(bucket) != bucket {
                break;
            }
            touched.note(record);
            entries.push(Entry { hash, id, record });
            position = next;
            *left = left.saturating_sub(1);
        }
        let Some(index) = index else {
            return Ok(false);
        };
        *left = left.saturating_sub(BUCKET_COST);
        let merged = update(store, &buckets.name(index), |current| {
            bucket::merge(current, &entries, tombstones_until)
        })?;
        if merged == Update::Contended {
            return Err(LoaderEvent::StoreFailed);
        }
    }
    cursor.seek(position);
    Ok(true)
}

/// A record that `check` refuses must not reach shared data. Whether the page goes on.
fn check_slice(cursor: &mut Cursor, check: Check) -> Result<bool, CorruptRecord> {
    let mut position = cursor.position();
    for _ in 0..SLICE_CHECKED {
        let Some((hash, record, next)) = cursor.record_at(position)? else {
            return Ok(false);
        };
        crate::faults::on_record(&hash);
        check(record)?;
        position = next;
    }
    cursor.seek(position);
    Ok(true)
}

impl From<StoreError> for LoaderEvent {
    fn from(_: StoreError) -> Self {
        Self::StoreFailed
    }
}

impl From<CorruptRecord> for LoaderEvent {
    fn from(_: CorruptRecord) -> Self {
        Self::PageCorrupt
    }
}
