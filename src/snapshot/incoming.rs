//! Changes on their way into shared data, a bounded slice at a time.

use std::collections::VecDeque;

use super::attempt;
use super::attempt::{Attempt, Place};
use super::change::{self, Change, Content, Watermark};
use super::event::LoaderEvent;
use super::follow::{Follow, Link};
use super::load::{SLICE, TOMBSTONE_MILLIS, apply_slice};
use super::page::Cursor;
use super::poll::{MAX_CHANGES, Poll};
use crate::records::{Buckets, Check, CorruptRecord, StreamId};
use crate::shared::Store;
use crate::time::Monotonic;

/// What the note of a change costs, in records.
const CHANGE_COST: usize = 16;

/// What one poll brought.
#[derive(Debug)]
pub(super) struct Incoming {
    owner: u64,
    check: Check,
    /// The place in the stream, once all of it is applied.
    pub(super) follow: Follow,
    changes: VecDeque<Result<Change, CorruptRecord>>,
    applying: Option<(StreamId, Cursor, Attempt)>,
    /// A snapshot is being put in, whose pages may hold what was removed since.
    beside_load: bool,
    newest: Option<StreamId>,
    /// There are more changes than one poll brings.
    pub(super) more: bool,
    /// The newest watermark, and the id of its entry.
    mark: Option<(StreamId, Watermark)>,
    /// Redis' clock, in Unix milliseconds.
    pub(super) redis_now: u64,
    asked_at: Monotonic,
}

impl Incoming {
    /// What a poll brought to somebody who stands at `follow`.
    pub(super) fn new(
        (owner, check): (u64, Check),
        follow: Follow,
        poll: Poll<'_>,
        asked_at: Monotonic,
        beside_load: bool,
    ) -> Self {
        Self {
            owner,
            check,
            follow,
            more: poll.changes.len() >= MAX_CHANGES,
            changes: poll.changes.into(),
            applying: None,
            beside_load,
            newest: poll.newest,
            mark: None,
            redis_now: poll.redis_now,
            asked_at,
        }
    }

    /// Applies a slice; `true` when all is applied.
    ///
    /// # Errors
    /// When shared data fails: then the changes are read again.
    pub(super) fn slice(
        &mut self,
        store: &impl Store,
        buckets: &Buckets,
        events: &mut Vec<LoaderEvent>,
    ) -> Result<bool, LoaderEvent> {
        let entry = attempt::change_name(buckets.scope());
        let mut left = SLICE;
        while left > 0 {
            if let Some((id, mut cursor, mut attempt)) = self.applying.take() {
                // Loads may be weeks apart: changes drop what outlived its use.
                let tombstones_until = if self.beside_load {
                    StreamId::default()
                } else {
                    id.minus_millis(TOMBSTONE_MILLIS)
                };
                if apply_slice(store, buckets, id, tombstones_until, &mut cursor, &mut left)? {
                    self.applying = Some((id, cursor, attempt));
                } else {
                    attempt.end(store, &entry)?;
                }
                continue;
            }
            left = left.saturating_sub(CHANGE_COST);
            let Some(change) = self.changes.pop_front() else {
                return Ok(self.settle(events));
            };
            let Ok(change) = change else {
                // What it says of itself cannot be read, so neither can its place.
                self.corrupt(self.follow.position.next(), events);
                continue;
            };
            match self.follow.link(&change) {
                Link::Known => continue,
                Link::Fenced => {
                    events.push(LoaderEvent::ChangeFenced);
                    continue;
                }
                Link::AfterGap => events.push(LoaderEvent::ChangeMissing),
                Link::Next => {}
            }
            match change.content {
                Content::Watermark(mark) => self.mark = Some((change.id, mark)),
                Content::Records(bytes) => {
                    self.begin(store, &entry, change.id, bytes, events)?;
                }
            }
        }
        Ok(false)
    }

    /// Notes what comes next, since it may trap this VM, and looks at it.
    fn begin(
        &mut self,
        store: &impl Store,
        entry: &str,
        id: StreamId,
        bytes: Vec<u8>,
        events: &mut Vec<LoaderEvent>,
    ) -> Result<(), LoaderEvent> {
        let mut attempt = Attempt::begin(store, entry, self.owner, &id.to_string())?;
        if attempt.is_bad() {
            // Stays bad: the next owner shall not try either.
            self.corrupt(id, events);
            return Ok(());
        }
        attempt.note(store, entry, Place::default())?;
        match change::records(bytes, self.check) {
            Ok(cursor) => self.applying = Some((id, cursor, attempt)),
            Err(CorruptRecord) => {
                attempt.end(store, entry)?;
                self.corrupt(id, events);
            }
        }
        Ok(())
    }

    fn corrupt(&mut self, id: StreamId, events: &mut Vec<LoaderEvent>) {
        events.push(LoaderEvent::ChangeCorrupt);
        self.follow.miss(id);
    }

    /// Everything is applied: what does that prove?
    fn settle(&mut self, events: &mut Vec<LoaderEvent>) -> bool {
        if !self.follow.agrees_with(self.newest) {
            events.push(LoaderEvent::ChangeMissing);
        }
        if let Some((_, mark)) = self.mark {
            self.follow.mark(mark, self.redis_now, self.asked_at);
        }
        true
    }

    /// When the newest watermark was written, in milliseconds of Redis' clock.
    pub(super) fn marked_at(&self) -> Option<u64> {
        self.mark.map(|(id, _)| id.millis)
    }
}
