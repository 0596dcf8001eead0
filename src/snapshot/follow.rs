//! How far the stream of changes was followed, and what that proves.
//!
//! Each change names the one before it. As long as the chain is unbroken since the snapshot, a watermark proves that
//! everything up to its moment is known. Once a change is missing, further ones still do good, since every record
//! is ordered by its id, but nothing is proven until a snapshot is loaded that is as of later than the gap.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::{Change, Watermark};
use super::manifest::Manifest;
use super::status::Live;
use crate::records::StreamId;
use crate::time::Monotonic;

/// The place in the stream of one Envoy process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The chain that is followed, see [`Manifest::lineage`]; never 0.
    pub lineage: u64,
    /// As of when the snapshot is from which the chain is followed.
    pub since: StreamId,
    /// The last change that was applied, or `since`.
    pub position: StreamId,
    /// Highest fencing number seen.
    pub fence: u64,
    /// A change is missing: only a snapshot as of this id or later has what it brought.
    pub gap: Option<StreamId>,
    /// As of when every ETag is known, in [`Monotonic`] milliseconds.
    pub etags_at: Option<u64>,
    /// As of when all records are known, in [`Monotonic`] milliseconds.
    pub records_at: Option<u64>,
    /// What the clock of Redis said, in Unix milliseconds, when it was asked at a [`Monotonic`] millisecond.
    pub clock: (u64, u64),
}

/// How a change fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is the next one.
    Next,
    /// At least one before it is missing. It is good to apply all the same.
    AfterGap,
    /// Its writer had lost its lock: it must not be applied.
    Fenced,
    /// It was applied before.
    Known,
}

/// As of when the published ETags are known to be current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Only what is as of this id or later was renewed by the snapshot or a change.
    pub since: StreamId,
    /// The moment.
    pub at: Monotonic,
    /// What the clock of Redis said, in Unix milliseconds, when it was asked at this moment.
    pub clock: (u64, Monotonic),
}

impl Confirmation {
    /// When a record of this id was published, or a little before.
    pub fn moment(&self, id: StreamId) -> Monotonic {
        let (redis_now, asked_at) = self.clock;
        let age = redis_now.saturating_sub(id.millis);
        Monotonic::from_millis(asked_at.as_millis().saturating_sub(age))
    }
}

impl Follow {
    /// The place of somebody who begins to load this snapshot; `None` when no changes follow it.
    pub fn begin(manifest: &Manifest) -> Option<Self> {
        (manifest.lineage != 0).then_some(Self {
            lineage: manifest.lineage,
            since: manifest.stream_id,
            position: manifest.stream_id,
            fence: 0,
            gap: None,
            etags_at: None,
            records_at: None,
            clock: (0, 0),
        })
    }

    /// Whether the chain is followed from this snapshot, and that is complete.
    pub fn leads_from(&self, live: &Live) -> bool {
        self.lineage == live.lineage && self.since <= live.stream_id
    }

    /// Takes the next change of the stream, or sees that it is not the next.
    pub fn link(&mut self, change: &Change) -> Link {
        if change.id <= self.position {
            return Link::Known;
        }
        let linked = change.previous == self.position;
        let fenced = change.fence < self.fence;
        self.position = change.id;
        self.fence = self.fence.max(change.fence);
        if fenced {
            self.miss(change.id);
            Link::Fenced
        } else if linked {
            Link::Next
        } else {
            // The one before it is the last that is missing.
            self.miss(change.previous);
            Link::AfterGap
        }
    }

    /// Notes that a change is missing which a snapshot as of `id` would have.
    pub fn miss(&mut self, id: StreamId) {
        self.gap = self.gap.max(Some(id));
        (self.etags_at, self.records_at) = (None, None);
    }

    /// Compares with the newest id of the stream; `false` when the stream lost what was applied here: it was
    /// flushed, or fell back to an older state.
    pub fn agrees_with(&mut self, newest: Option<StreamId>) -> bool {
        let agrees = match newest {
            Some(newest) => newest >= self.position,
            // Nothing was written since the snapshot.
            None => self.position == self.since,
        };
        if !agrees {
            self.miss(self.position.next());
        }
        agrees
    }

    /// Takes a watermark. `redis_now` is what Redis' clock said in the same reply, in Unix milliseconds, and
    /// `asked_at` when the question was sent: Redis' moments lie at least as long ago as counted from there.
    pub fn mark(&mut self, mark: Watermark, redis_now: u64, asked_at: Monotonic) {
        self.clock = (redis_now, asked_at.as_millis());
        if self.gap.is_some() {
            return;
        }
        // A moment that is still to come means that Redis' clock was set back: it proves nothing.
        let ours = |at: u64| asked_at.as_millis().checked_sub(redis_now.checked_sub(at)?);
        self.etags_at = self.etags_at.max(ours(mark.etags_at));
        if let Some(at) = mark.records_at {
            self.records_at = self.records_at.max(ours(at));
        }
    }

    /// As of when published ETags are confirmed, if they are.
    pub fn confirmation(&self) -> Option<Confirmation> {
        Some(Confirmation {
            since: self.since,
            at: Monotonic::from_millis(self.etags_at?),
            clock: (self.clock.0, Monotonic::from_millis(self.clock.1)),
        })
    }

    /// How long ago all records were known; `None` when they never were, or a change is missing.
    pub fn records_age(&self, now: Monotonic) -> Option<Duration> {
        Some(now.since(Monotonic::from_millis(self.records_at?)))
    }

    /// How long ago the moment of the newest watermark was.
    pub fn watermark_age(&self, now: Monotonic) -> Option<Duration> {
        Some(now.since(Monotonic::from_millis(self.etags_at?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Content;
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn id(millis: u64) -> StreamId {
        StreamId {
            millis,
            sequence: 0,
        }
    }

    fn follow() -> Follow {
        Follow {
            lineage: 1,
            since: id(100),
            position: id(100),
            fence: 0,
            gap: None,
            etags_at: None,
            records_at: None,
            clock: (0, 0),
        }
    }

    const MARK: Watermark = Watermark {
        etags_at: 10_000,
        records_at: Some(9_000),
    };

    fn change(previous: u64, at: u64, fence: u64) -> Change {
        Change {
            id: id(at),
            previous: id(previous),
            fence,
            content: Content::Watermark(MARK),
        }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn a_watermark_counts_on_our_clock_from_when_the_question_was_sent() {
        let mut follow = follow();
        follow.mark(MARK, 10_400, at(50_000));
        let confirmation = follow.confirmation().unwrap();
        assert_eq!(confirmation.at, at(49_600));
        assert_eq!(confirmation.moment(id(10_300)), at(49_900));
        assert_eq!(
            follow.records_age(at(50_000)),
            Some(Duration::from_millis(1_400))
        );
        // An older one takes nothing back.
        follow.mark(MARK, 12_000, at(50_100));
        assert_eq!(follow.confirmation().unwrap().at, at(49_600));
    }

    #[test]
    fn a_watermark_that_is_ahead_of_redis_proves_nothing() {
        let mut follow = follow();
        follow.mark(MARK, 9_999, at(50_000));
        assert_eq!(follow.confirmation(), None);
        assert_eq!(
            follow.records_age(at(50_000)),
            Some(Duration::from_millis(999))
        );
    }

    #[test]
    fn a_publisher_that_lost_its_database_confirms_etags_alone() {
        let mut follow = follow();
        let mark = Watermark {
            records_at: None,
            ..MARK
        };
        follow.mark(mark, 10_000, at(50_000));
        assert!(follow.confirmation().is_some());
        assert_eq!(follow.records_age(at(50_000)), None);
    }

    #[test]
    fn after_a_missing_change_nothing_is_proven() {
        let mut follow = follow();
        assert_eq!(follow.link(&change(100, 110, 1)), Link::Next);
        follow.mark(MARK, 10_000, at(50_000));
        assert_eq!(follow.link(&change(120, 130, 1)), Link::AfterGap);
        assert_eq!((follow.gap, follow.position), (Some(id(120)), id(130)));
        assert_eq!(follow.link(&change(130, 140, 1)), Link::Next);
        follow.mark(MARK, 10_000, at(50_000));
        assert_eq!(follow.confirmation(), None);
        assert_eq!(follow.records_age(at(50_000)), None);
    }

    #[test]
    fn a_writer_that_lost_its_lock_is_told_apart() {
        let mut follow = follow();
        assert_eq!(follow.link(&change(100, 110, 2)), Link::Next);
        assert_eq!(follow.link(&change(110, 120, 1)), Link::Fenced);
        assert_eq!(follow.gap, Some(id(120)));
        assert_eq!(follow.link(&change(120, 120, 2)), Link::Known);
    }

    #[test]
    fn a_stream_that_lost_what_was_applied_is_seen() {
        let mut fresh = follow();
        assert!(fresh.agrees_with(None) && fresh.agrees_with(Some(id(100))));
        assert!(fresh.agrees_with(Some(id(200))));
        let mut ahead = follow();
        ahead.link(&change(100, 110, 1));
        assert!(!ahead.clone().agrees_with(None));
        assert!(!ahead.agrees_with(Some(id(109))));
        assert!(ahead.gap > Some(id(110)));
    }
}
