//! Brings the published snapshot into shared data: a state machine that is told the time, asks for Redis
//! commands and is handed their replies.
//!
//! One VM of the process loads ([`crate::lease`]). Each call does a bounded slice of work, so that a worker which has
//! to load keeps serving. Pages are read twice: first all of them are checked and nothing is written, then
//! they are applied. While records of two snapshots lie side by side nobody is refused ([`Status::applying`]),
//! and what is no longer there is dropped when a load is complete.

use std::time::Duration;

use super::StreamId;
use super::attempt::{Attempt, Place};
use super::manifest::{self, Manifest};
use super::page::Cursor;
use super::status::{Applying, Bad, Live, Status};
use crate::config::Settings;
use crate::directory::bucket::{self, Entry};
use crate::directory::{CorruptRecord, Record, Sha256Hash};
use crate::lease::{self, Hold};
use crate::redis::{Command, Failure, Reply};
use crate::shared::{Keys, Store, StoreError, Update, update};
use crate::time::Monotonic;

/// Most records put into shared data in one slice.
const SLICE_RECORDS: usize = 256;

/// Most buckets looked at for dropped records in one slice.
const SLICE_BUCKETS: u32 = 1_024;

/// For how long a removal is remembered, in milliseconds: longer than any other source may bring it back.
const TOMBSTONE_MILLIS: u64 = 24 * 3_600 * 1_000;

/// A reply that never comes must not stop loading for good; the longest callout timeout is 30 s.
const REPLY_DEADLINE: Duration = Duration::from_secs(35);

/// What the loader did. The label of `flag_definitions_loader_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A load began.
    Started,
    /// A load ended well.
    Loaded,
    /// There is no manifest.
    ManifestMissing,
    /// The manifest cannot be used.
    ManifestInvalid,
    /// The manifest is older than what is live.
    ManifestOlder,
    /// The manifest is the live one again, after a newer snapshot was partly applied.
    RolledBack,
    /// A page is not there.
    PageMissing,
    /// A page is not the one that the manifest names.
    PageMismatch,
    /// A page cannot be read; its snapshot is not tried again.
    PageCorrupt,
    /// Redis did not answer.
    ReadFailed,
    /// Shared data failed.
    StoreFailed,
    /// Another VM has the lease now.
    LeaseLost,
    /// Two owners vanished at the same place; the snapshot is not tried again.
    MarkedBad,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::Loaded,
        Self::ManifestMissing,
        Self::ManifestInvalid,
        Self::ManifestOlder,
        Self::RolledBack,
        Self::PageMissing,
        Self::PageMismatch,
        Self::PageCorrupt,
        Self::ReadFailed,
        Self::StoreFailed,
        Self::LeaseLost,
        Self::MarkedBad,
    ];

    /// Name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Loaded => "loaded",
            Self::ManifestMissing => "manifest_missing",
            Self::ManifestInvalid => "manifest_invalid",
            Self::ManifestOlder => "manifest_older",
            Self::RolledBack => "rolled_back",
            Self::PageMissing => "page_missing",
            Self::PageMismatch => "page_mismatch",
            Self::PageCorrupt => "page_corrupt",
            Self::ReadFailed => "read_failed",
            Self::StoreFailed => "store_failed",
            Self::LeaseLost => "lease_lost",
            Self::MarkedBad => "marked_bad",
        }
    }

    /// Whether an operator should look.
    pub const fn is_problem(self) -> bool {
        !matches!(self, Self::Started | Self::Loaded)
    }
}

/// A load under way.
#[derive(Debug)]
struct Load {
    digest: String,
    manifest: Manifest,
    asked_at: Monotonic,
    attempt: Attempt,
    pass: Pass,
}

/// What is done with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Check,
    Apply,
}

#[derive(Debug)]
enum State {
    Idle,
    AwaitingManifest,
    NextPage(Box<Load>, usize),
    AwaitingPage(Box<Load>, usize),
    Checking(Box<Load>, usize, Cursor),
    Applying(Box<Load>, usize, Cursor),
    Sweeping(Box<Load>, u32),
}

/// The loader of one root context.
#[derive(Debug)]
pub struct Loader {
    owner: u64,
    prefix: String,
    poll_interval: Duration,
    keys: Keys,
    state: State,
    next_poll: Monotonic,
    asked_at: Monotonic,
    stepped_aside: bool,
    longest_slice: Duration,
}

/// What stops a slice.
enum Stop {
    Store,
    Corrupt,
}

impl From<Stop> for Event {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Store => Self::StoreFailed,
            Stop::Corrupt => Self::PageCorrupt,
        }
    }
}

impl From<StoreError> for Stop {
    fn from(_: StoreError) -> Self {
        Self::Store
    }
}

impl From<CorruptRecord> for Stop {
    fn from(_: CorruptRecord) -> Self {
        Self::Corrupt
    }
}

impl Loader {
    /// A loader that has done nothing yet. `owner` tells it from all other loaders of the process; not 0.
    pub fn new(settings: &Settings, owner: u64) -> Self {
        Self {
            owner: owner.max(1),
            prefix: settings.snapshot.prefix.clone(),
            poll_interval: settings.snapshot.poll_interval,
            keys: Keys::new(settings),
            state: State::Idle,
            next_poll: Monotonic::default(),
            asked_at: Monotonic::default(),
            stepped_aside: false,
            longest_slice: Duration::ZERO,
        }
    }

    /// Whether there is work that should not wait for the next poll.
    pub fn is_busy(&self) -> bool {
        matches!(
            self.state,
            State::NextPage(..) | State::Checking(..) | State::Applying(..) | State::Sweeping(..)
        )
    }

    /// Tells how long the last slice held the VM.
    pub fn took(&mut self, time: Duration) {
        self.longest_slice = self.longest_slice.max(time);
    }

    /// Does a slice of work; returns a command to send, if one is due. Its reply goes to
    /// [`Loader::reply`].
    pub fn tick(
        &mut self,
        store: &impl Store,
        now: Monotonic,
        serves_requests: bool,
        events: &mut Vec<Event>,
    ) -> Option<Command> {
        if let State::AwaitingManifest | State::AwaitingPage(..) = self.state
            && now.since(self.asked_at) > REPLY_DEADLINE
        {
            self.abandon(store, Event::ReadFailed, events);
        }
        match lease::acquire(store, &self.keys.lease(), self.owner, serves_requests, now) {
            // It let the others go first before it took the lease.
            Ok(Hold::Taken) => self.stepped_aside |= serves_requests,
            Ok(Hold::Renewed) => {}
            Ok(Hold::Denied) => {
                if !matches!(self.state, State::Idle) {
                    self.state = State::Idle;
                    events.push(Event::LeaseLost);
                    // It was held up, not gone.
                    if Attempt::withdraw(store, &self.keys, self.owner).is_err() {
                        events.push(Event::StoreFailed);
                    }
                }
                return None;
            }
            Err(_) => {
                self.abandon(store, Event::StoreFailed, events);
                return None;
            }
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle if serves_requests && !self.stepped_aside => {
                self.stepped_aside = true;
                // If it cannot be released, this VM goes on loading.
                let _ = lease::release(store, &self.keys.lease(), self.owner, now);
                None
            }
            State::Idle if now >= self.next_poll => {
                self.next_poll = now.plus(self.poll_interval);
                self.asked_at = now;
                self.state = State::AwaitingManifest;
                Some(Command::get(&manifest::key(&self.prefix)))
            }
            State::NextPage(load, page) => {
                let generation = load.manifest.generation;
                self.asked_at = now;
                self.state = State::AwaitingPage(load, page);
                Some(Command::get(&manifest::page_key(
                    &self.prefix,
                    generation,
                    page,
                )))
            }
            State::Checking(load, page, cursor) => {
                self.check(store, load, page, cursor, events);
                None
            }
            State::Applying(load, page, cursor) => {
                self.apply(store, load, page, cursor, events);
                None
            }
            State::Sweeping(load, bucket) => {
                self.sweep(store, load, bucket, now, events);
                None
            }
            waiting => {
                self.state = waiting;
                None
            }
        }
    }

    /// Stops without harm: ends the load, if there is one, and lets another VM load at once.
    pub fn stop(&mut self, store: &impl Store, now: Monotonic, events: &mut Vec<Event>) {
        if !matches!(self.state, State::Idle) {
            self.abandon(store, Event::LeaseLost, events);
        }
        // If it cannot be released, it runs out.
        let _ = lease::release(store, &self.keys.lease(), self.owner, now);
    }

    /// Takes the reply to the command that [`Loader::tick`] returned.
    pub fn reply(
        &mut self,
        store: &impl Store,
        reply: Result<Reply<'_>, Failure>,
        events: &mut Vec<Event>,
    ) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::AwaitingManifest => match reply {
                Ok(Reply::Bytes(json)) => self.manifest(store, &json, events),
                Ok(_) => {
                    self.saw_manifest(store, false);
                    events.push(Event::ManifestMissing);
                }
                Err(_) => events.push(Event::ReadFailed),
            },
            State::AwaitingPage(mut load, page) => {
                let digest = load.manifest.pages.get(page);
                let outcome = match reply {
                    Ok(Reply::Bytes(bytes)) if digest.is_some_and(|d| d.matches(&bytes)) => {
                        Cursor::new(bytes.into_owned()).map_err(|_| Event::PageCorrupt)
                    }
                    Ok(Reply::Bytes(_)) => Err(Event::PageMismatch),
                    Ok(_) => Err(Event::PageMissing),
                    Err(_) => Err(Event::ReadFailed),
                };
                if outcome.is_ok() {
                    self.saw_redis(store);
                }
                match outcome {
                    Ok(cursor) if load.pass == Pass::Check => {
                        self.state = State::Checking(load, page, cursor);
                    }
                    Ok(cursor) => self.state = State::Applying(load, page, cursor),
                    Err(event) => self.end(store, &mut load, event, events),
                }
            }
            // A late reply of a load that was given up.
            other => self.state = other,
        }
    }

    /// During a long load no manifest is read, and the live snapshot must not expire of that.
    fn saw_redis(&self, store: &impl Store) {
        let at = self.asked_at.as_millis();
        // If it cannot be stored, the next page tries again.
        let _ = Status::change(store, &self.keys, |status| {
            if let Some(live) = &mut status.live {
                live.contact_at = live.contact_at.max(at);
            }
        });
    }

    /// Notes whether there is a manifest at all.
    fn saw_manifest(&self, store: &impl Store, there: bool) {
        let known = Status::read(store, &self.keys).unwrap_or_default();
        if known.unpublished == there {
            // If it cannot be stored, the next poll tries again.
            let _ = Status::change(store, &self.keys, |status| status.unpublished = !there);
        }
    }

    fn manifest(&mut self, store: &impl Store, json: &[u8], events: &mut Vec<Event>) {
        self.saw_manifest(store, true);
        let digest = Sha256Hash::of(json).to_hex();
        let at = self.asked_at;
        let Ok(status) = Status::read(store, &self.keys) else {
            events.push(Event::StoreFailed);
            return;
        };
        let live = status.live.as_ref();
        let current = live.is_some_and(|live| live.manifest == digest);
        // With newer records already in shared data the live snapshot is not the current one again.
        let verified = current && status.applying.is_none();
        // Whatever the manifest says, Redis was there and showed one.
        let seen = Status::change(store, &self.keys, |status| {
            if let Some(live) = &mut status.live {
                live.contact_at = live.contact_at.max(at.as_millis());
                if live.manifest == digest && verified {
                    live.verified_at = live.verified_at.max(at.as_millis());
                }
            }
        });
        if seen.is_err() {
            events.push(Event::StoreFailed);
            return;
        }
        if verified || status.shuns(&digest, at) {
            return;
        }
        let Ok(manifest) = Manifest::parse(json) else {
            events.push(Event::ManifestInvalid);
            return;
        };
        if current {
            events.push(Event::RolledBack);
            return;
        }
        let applying = status.applying.as_ref();
        let older = live.is_some_and(|live| manifest.stream_id <= live.stream_id)
            || applying.is_some_and(|next| manifest.stream_id < next.stream_id);
        if older {
            events.push(Event::ManifestOlder);
            return;
        }
        match Attempt::begin(store, &self.keys, self.owner, &digest) {
            Ok(attempt) => {
                let mut load = Box::new(Load {
                    digest,
                    manifest,
                    asked_at: at,
                    attempt,
                    pass: Pass::Check,
                });
                if load.attempt.is_bad() {
                    self.end(store, &mut load, Event::MarkedBad, events);
                } else {
                    events.push(Event::Started);
                    self.longest_slice = Duration::ZERO;
                    self.state = State::NextPage(load, 0);
                }
            }
            Err(_) => events.push(Event::StoreFailed),
        }
    }

    /// Looks at all records of a page. It is a quick walk without host calls, so a page is one slice.
    fn check(
        &mut self,
        store: &impl Store,
        mut load: Box<Load>,
        page: usize,
        cursor: Cursor,
        events: &mut Vec<Event>,
    ) {
        let place = Place { page, offset: 0 };
        let checked = load
            .attempt
            .note(store, &self.keys, place)
            .map_err(Stop::from)
            .and_then(|()| check_page(&cursor).map_err(Stop::from));
        match checked {
            Err(stop) => self.end(store, &mut load, stop.into(), events),
            Ok(()) if page + 1 < load.manifest.pages.len() => {
                self.state = State::NextPage(load, page + 1);
            }
            Ok(()) => {
                if !self.announce(store, &load, false) {
                    self.end(store, &mut load, Event::LeaseLost, events);
                    return;
                }
                load.pass = Pass::Apply;
                // The only page need not be read again.
                self.state = if page == 0 {
                    State::Applying(load, 0, cursor)
                } else {
                    State::NextPage(load, 0)
                };
            }
        }
    }

    fn apply(
        &mut self,
        store: &impl Store,
        mut load: Box<Load>,
        page: usize,
        mut cursor: Cursor,
        events: &mut Vec<Event>,
    ) {
        let place = Place {
            page,
            offset: cursor.position().offset,
        };
        let slice = load
            .attempt
            .note(store, &self.keys, place)
            .map_err(Stop::from)
            .and_then(|()| apply_slice(store, &self.keys, load.manifest.stream_id, &mut cursor));
        match slice {
            Err(stop) => self.end(store, &mut load, stop.into(), events),
            Ok(true) => self.state = State::Applying(load, page, cursor),
            Ok(false) if page + 1 < load.manifest.pages.len() => {
                self.state = State::NextPage(load, page + 1);
            }
            Ok(false) if self.announce(store, &load, true) => {
                // The records did no harm; whatever happens to this VM now is not their doing.
                match load.attempt.end(store, &self.keys) {
                    Ok(()) => self.state = State::Sweeping(load, 0),
                    Err(_) => self.end(store, &mut load, Event::StoreFailed, events),
                }
            }
            Ok(false) => self.end(store, &mut load, Event::LeaseLost, events),
        }
    }

    /// Tells all workers how far the records are. `false` when they could not be told, or know of a newer
    /// snapshot: this owner was held up for longer than its lease.
    fn announce(&self, store: &impl Store, load: &Load, complete: bool) -> bool {
        let id = load.manifest.stream_id;
        let mut newest = false;
        let told = Status::change(store, &self.keys, |status| {
            let live = status.live.as_ref().map(|live| live.stream_id);
            let applying = status.applying.as_ref().map(|next| next.stream_id);
            newest = live < Some(id) && applying <= Some(id);
            if newest {
                status.applying = Some(Applying {
                    manifest: load.digest.clone(),
                    stream_id: id,
                    complete,
                });
            }
        });
        newest && told == Ok(Update::Written)
    }

    fn sweep(
        &mut self,
        store: &impl Store,
        mut load: Box<Load>,
        from: u32,
        now: Monotonic,
        events: &mut Vec<Event>,
    ) {
        let to = from.saturating_add(SLICE_BUCKETS).min(self.keys.buckets());
        let loaded = load.manifest.stream_id;
        let graves = loaded.minus_millis(TOMBSTONE_MILLIS);
        for index in from..to {
            let swept = update(store, &self.keys.bucket(index), |current| {
                bucket::sweep(current, loaded, graves)
            });
            if !matches!(swept, Ok(Update::Written | Update::Unchanged)) {
                self.end(store, &mut load, Event::StoreFailed, events);
                return;
            }
        }
        if to < self.keys.buckets() {
            self.state = State::Sweeping(load, to);
            return;
        }
        let live = Live {
            manifest: load.digest.clone(),
            generation: load.manifest.generation,
            stream_id: loaded,
            etags_watched: load.manifest.etags_watched,
            records: load.manifest.records,
            loaded_at: now.as_millis(),
            verified_at: load.asked_at.as_millis(),
            contact_at: load.asked_at.as_millis(),
            longest_slice_micros: u64::try_from(self.longest_slice.as_micros()).unwrap_or(u64::MAX),
        };
        let written = Status::change(store, &self.keys, |status| {
            // An owner that was held up for longer than its lease must not bring an older snapshot back.
            let newest = status.live.as_ref().map(|known| known.stream_id);
            if newest.is_none_or(|newest| newest < loaded) {
                status.live = Some(live.clone());
                status.bad = None;
            }
            status
                .applying
                .take_if(|applying| applying.manifest == load.digest);
        });
        let event = match written {
            Ok(Update::Written) => Event::Loaded,
            _ => Event::StoreFailed,
        };
        // What was verified when the load began may have aged meanwhile: ask again at once.
        self.next_poll = now;
        self.end(store, &mut load, event, events);
    }

    /// Ends a load; the VM came to no harm.
    fn end(&mut self, store: &impl Store, load: &mut Load, event: Event, events: &mut Vec<Event>) {
        self.state = State::Idle;
        events.push(event);
        let mut stored = load.attempt.end(store, &self.keys);
        if matches!(event, Event::PageCorrupt | Event::MarkedBad) {
            stored = stored.and_then(|()| {
                Status::change(store, &self.keys, |status| {
                    status.bad = Some(Bad {
                        manifest: load.digest.clone(),
                        at: self.asked_at.as_millis(),
                    });
                })
                .map(drop)
            });
        }
        if stored.is_err() && event != Event::StoreFailed {
            events.push(Event::StoreFailed);
        }
    }

    fn abandon(&mut self, store: &impl Store, event: Event, events: &mut Vec<Event>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::AwaitingManifest => events.push(event),
            State::NextPage(mut load, _)
            | State::AwaitingPage(mut load, _)
            | State::Checking(mut load, ..)
            | State::Applying(mut load, ..)
            | State::Sweeping(mut load, _) => self.end(store, &mut load, event, events),
        }
    }
}

/// Puts the next records of a page into their buckets; whether the page goes on.
fn apply_slice(
    store: &impl Store,
    keys: &Keys,
    id: StreamId,
    cursor: &mut Cursor,
) -> Result<bool, Stop> {
    let mut position = cursor.position();
    let mut left = SLICE_RECORDS;
    while left > 0 {
        let mut entries = Vec::new();
        let mut index = None;
        while left > 0 {
            let Some((hash, record, next)) = cursor.record_at(position)? else {
                break;
            };
            let bucket = keys.bucket_of(&hash);
            if *index.get_or_insert(bucket) != bucket {
                break;
            }
            entries.push(Entry { hash, id, record });
            position = next;
            left -= 1;
        }
        let Some(index) = index else {
            return Ok(false);
        };
        let merged = update(store, &keys.bucket(index), |current| {
            bucket::merge(current, &entries)
        })?;
        if merged == Update::Contended {
            return Err(Stop::Store);
        }
    }
    cursor.seek(position);
    Ok(true)
}

/// A record that cannot be decoded must not reach shared data.
fn check_page(cursor: &Cursor) -> Result<(), CorruptRecord> {
    let mut position = cursor.position();
    while let Some((hash, record, next)) = cursor.record_at(position)? {
        crate::faults::on_record(&hash);
        Record::decode(record)?;
        position = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
