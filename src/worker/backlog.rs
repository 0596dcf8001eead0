//! Answers that are due.
//!
//! Envoy runs each local reply after the callback that sent it, calls the VM back for that stream, and runs
//! the next reply inside: some 300 answers of one callback overflow the VM's stack and trap it. So every
//! callback gives a bounded number of answers, and the next tick gives the next ones. Envoy also copies each body
//! before the first is written, so large ones count as several answers.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::single_flight::Waiter;
use crate::surfaces::Surface;

/// Most answers of one callback to streams other than its own.
pub const ANSWERS_PER_CALLBACK: usize = 64;

/// Bytes of a body for which it counts as one more answer: 64 answers of it are 16 MiB.
const BYTES_PER_ANSWER: usize = 256 << 10;

/// Tick while answers are due.
pub const TICK: Duration = Duration::from_millis(1);

/// How many answers one with a body of this length counts as.
pub const fn cost_of(length: usize) -> usize {
    1 + length / BYTES_PER_ANSWER
}

/// What a waiter is answered by.
pub enum Cause<S: Surface> {
    /// What its read brought.
    Landed(S::Landed),
    /// Its time is up.
    Overdue,
}

/// Waiters that are answered for the same cause.
pub struct DueAnswers<S: Surface> {
    /// The cause.
    pub cause: Cause<S>,
    /// The waiters.
    pub waiters: Vec<Waiter<S>>,
}

/// All answers that are due, oldest first.
pub struct Backlog<S: Surface> {
    due: VecDeque<DueAnswers<S>>,
    streams: HashSet<u32>,
}

impl<S: Surface> Default for Backlog<S> {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            streams: HashSet::new(),
        }
    }
}

impl<S: Surface> Backlog<S> {
    /// Adds waiters.
    pub fn push(&mut self, cause: Cause<S>, waiters: Vec<Waiter<S>>) {
        if !waiters.is_empty() {
            self.streams
                .extend(waiters.iter().map(|waiter| waiter.stream));
            self.due.push_back(DueAnswers { cause, waiters });
        }
    }

    /// Takes those that are due for longest; whoever is not answered now goes back with
    /// [`Backlog::put_back`].
    pub fn pop(&mut self) -> Option<DueAnswers<S>> {
        self.due.pop_front()
    }

    /// Takes those that were added last; the rest of them goes back with [`Backlog::put_last`].
    pub fn pop_newest(&mut self) -> Option<DueAnswers<S>> {
        self.due.pop_back()
    }

    /// Puts the rest back, behind all others.
    pub fn put_last(&mut self, rest: DueAnswers<S>) {
        if !rest.waiters.is_empty() {
            self.due.push_back(rest);
        }
    }

    /// Puts the rest back in front.
    pub fn put_back(&mut self, rest: DueAnswers<S>) {
        if !rest.waiters.is_empty() {
            self.due.push_front(rest);
        }
    }

    /// Notes that a stream was answered or is gone; `false` when it was not waiting here.
    pub fn leave(&mut self, stream: u32) -> bool {
        !self.streams.is_empty() && self.streams.remove(&stream)
    }

    /// Whether a stream waits for its answer.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.streams.contains(&stream)
    }

    /// Number of streams that wait.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}
