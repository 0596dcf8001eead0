//! What the watcher knows of itself, for `/metrics` and `/healthz`. Written by the watcher's threads, read by
//! whoever serves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flag_definitions_filter::records::StreamId;

use super::state::PublishedState;
use crate::sources::left_out::Skipped;
use crate::sources::polls::Polls;

/// Shared by all threads.
#[derive(Debug, Default)]
pub struct WatchStatus(Mutex<Figures>);

/// Figures of one moment. Counters start at 0 with the program and only go up.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Whether this instance holds the lock; otherwise it waits for the one that does, or for Redis.
    pub active: bool,
    /// When the loop of the one that holds the lock last came round.
    pub turned: Option<Instant>,
    /// Generation of the current snapshot; 0 before it is known.
    pub generation: u64,
    /// The lineage that is being continued; 0 before there is one.
    pub lineage: u64,
    /// Id of the last entry written, or of the snapshot when none followed it.
    pub last_id: Option<StreamId>,
    /// What is published, by kind.
    pub records: RecordFigures,
    /// When the last successful full read of the database began.
    pub last_read: Option<Instant>,
    /// Whether the database announces its changes to us at present.
    pub listening: bool,
    /// How long the last complete check of all ETags took.
    pub sweep: Option<Duration>,
    /// Teams with an ETag in the last complete check.
    pub etags_known: u64,
    /// When the check began that the last watermark tells of.
    pub watermark: Option<Instant>,
    /// Removals held back at present, because one full read lacked too many records.
    pub held_back: u64,
    /// Rows that the last full read left out, by reason.
    pub skipped: Skipped,
    /// Published changes of records that are no versions, without removals.
    pub upserts: u64,
    /// Published removals of such records.
    pub removals: u64,
    /// Published changes of ETags and other versions, removals among them.
    pub etag_changes: u64,
    /// Requests that were served and counted for a report.
    pub usage: UsageFigures,
    /// Documents written to Redis.
    pub documents: u64,
    /// Snapshots written.
    pub snapshots: u64,
    /// Lineages begun: each makes every filter load the snapshot anew.
    pub lineages: u64,
    /// Teams that Redis itself named as changed (keyspace notifications).
    pub hints: u64,
    /// Failures, by dependency.
    pub errors: Errors,
    /// What comes of the polls of each source of documents that polls.
    pub polls: Vec<Arc<Polls>>,
}

/// Requests that were served and counted for a report, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFigures {
    /// Taken by the upstream.
    pub sent: u64,
    /// Dropped: the upstream refused them.
    pub refused: u64,
    /// Dropped: they could not be sent for a day.
    pub expired: u64,
    /// Dropped: they are of no tenant that is reported.
    pub unknown: u64,
}

/// Failures, by dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Of the Redis that holds the snapshot.
    pub redis: u64,
    /// Of the Redis that holds the definitions.
    pub definitions_redis: u64,
    /// Of the database.
    pub postgres: u64,
    /// Of the source document.
    pub file: u64,
}

/// Number of published records by the label of their kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFigures(pub Vec<(&'static str, u64)>);

impl Default for RecordFigures {
    /// None of any kind.
    fn default() -> Self {
        Self(PublishedState::default().labelled_counts())
    }
}

impl WatchStatus {
    /// The figures of now.
    pub fn figures(&self) -> Figures {
        self.lock().clone()
    }

    /// Changes some figures at once.
    pub fn update(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock());
    }

    // A thread that panicked while it held the lock left figures, not half of one.
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
