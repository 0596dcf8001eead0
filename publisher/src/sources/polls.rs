//! What came of the polls of an upstream, in figures.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Why a poll failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollFailure {
    /// The answer was not complete in time.
    Timeout,
    /// No connection came about, or it broke.
    Connection,
    /// The upstream answered with another status than was asked for.
    Status,
    /// It sends the key elsewhere, or in circles.
    Address,
    /// What came cannot be read.
    Content,
    /// What came was read, and filters would not take it.
    Refused,
    /// A fault of this program.
    Fault,
}

impl PollFailure {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Connection,
        Self::Status,
        Self::Address,
        Self::Content,
        Self::Refused,
        Self::Fault,
    ];

    /// The value of a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Status => "status",
            Self::Address => "address",
            Self::Content => "content",
            Self::Refused => "refused",
            Self::Fault => "fault",
        }
    }
}

/// Shared by a source and whoever shows its figures.
#[derive(Debug, Default)]
pub struct Polls(Mutex<PollFigures>);

/// Figures of one moment. Counters start at 0 with the program and only go up.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollFigures {
    failed: [u64; PollFailure::ALL.len()],
    /// When all of the upstream had been polled well last.
    pub completed: Option<Instant>,
}

impl PollFigures {
    /// Those of several upstreams: the sums, and when the one was polled well that was longest ago.
    pub fn together(several: impl Iterator<Item = Self>) -> Self {
        let add = |mut sum: Self, next: Self| {
            for (failed, more) in sum.failed.iter_mut().zip(next.failed) {
                *failed += more;
            }
            let both = sum.completed.zip(next.completed);
            sum.completed = both.map(|(one, other)| one.min(other));
            sum
        };
        several.reduce(add).unwrap_or_default()
    }

    /// How many polls failed for this reason.
    pub fn failed(&self, failure: PollFailure) -> u64 {
        self.failed
            .get(failure as usize)
            .copied()
            .unwrap_or_default()
    }
}

impl Polls {
    /// The figures of now.
    pub fn figures(&self) -> PollFigures {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll failed.
    pub fn note_failure(&self, failure: PollFailure) {
        self.update(|figures| {
            if let Some(count) = figures.failed.get_mut(failure as usize) {
                *count += 1;
            }
        });
    }

    /// All of the upstream was polled well by now.
    pub fn note_round(&self, now: Instant) {
        self.update(|figures| figures.completed = Some(now));
    }

    fn update(&self, change: impl FnOnce(&mut PollFigures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
