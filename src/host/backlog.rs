//! Answers that are due.
//!
//! Envoy runs each local reply after the callback that sent it, calls the VM back for that stream, and runs
//! the next reply inside: some 300 answers of one callback overflow the VM's stack and trap it. So every
//! callback gives a bounded number of answers, and the next tick gives the next ones. Envoy also copies each body
//! before the first is written, so large ones count as several answers.

use std::collections::{HashSet, VecDeque};

use super::flights::Waiter;
use crate::documents::Kept;
use crate::redis::Failure;
use crate::surfaces::posthog::definitions::{Outcome, Payload};
use crate::surfaces::posthog::read_through::Found;
use crate::surfaces::posthog::request::Request;
use crate::tenant::Tenant;

/// Most answers of one callback to streams other than its own.
pub const ANSWERS_PER_CALLBACK: usize = 64;

/// Bytes of a body for which it counts as one more answer: 64 answers of it are 16 MiB.
const BYTES_PER_ANSWER: usize = 256 << 10;

/// What a waiter is answered by.
pub enum Content {
    /// What a team's definitions are.
    Definitions(Tenant, Outcome),
    /// Who tokens and credentials are.
    Identity(Result<Found, Failure>),
    /// The waiter's time is up.
    Overdue,
}

impl Content {
    /// How many answers the answer to this request counts as, as far as that is known before it is given.
    pub fn cost(&self, request: &Request<'_>, kept: &Kept<Payload>) -> usize {
        let Self::Definitions(team, outcome) = self else {
            return 1;
        };
        let (etag, length) = match outcome {
            Outcome::Payload(payload) => (&payload.etag, Some(payload.text.len())),
            Outcome::Unchanged(etag) => (etag, None),
            Outcome::Pending(pending) => {
                let length = pending.payload.as_ref().map(|payload| payload.text.len());
                (&pending.etag, length)
            }
            _ => return 1,
        };
        let is_pending = matches!(outcome, Outcome::Pending(_));
        if !is_pending && request.if_none_match.matches(etag) {
            return 1;
        }
        let length_kept = kept.length(*team, etag, request.accepts_gzip);
        cost_of(length_kept.or(length).unwrap_or(0))
    }
}

/// How many answers one with a body of this length counts as.
pub fn cost_of(length: usize) -> usize {
    1 + length / BYTES_PER_ANSWER
}

/// Waiters that are answered by the same content.
pub struct Batch {
    /// The content.
    pub content: Content,
    /// Who gets it.
    pub waiters: Vec<Waiter>,
}

/// All answers that are due, oldest first.
#[derive(Default)]
pub struct Backlog {
    batches: VecDeque<Batch>,
    streams: HashSet<u32>,
}

impl Backlog {
    /// Adds waiters.
    pub fn push(&mut self, content: Content, waiters: Vec<Waiter>) {
        if !waiters.is_empty() {
            self.streams
                .extend(waiters.iter().map(|waiter| waiter.stream));
            self.batches.push_back(Batch { content, waiters });
        }
    }

    /// Takes the oldest batch; waiters of it that are not answered now go back with
    /// [`Backlog::put_back`].
    pub fn pop(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    /// Takes the batch that was added last; the rest of it goes back with [`Backlog::put_last`].
    pub fn pop_newest(&mut self) -> Option<Batch> {
        self.batches.pop_back()
    }

    /// Puts the rest of a batch back, behind all others.
    pub fn put_last(&mut self, batch: Batch) {
        if !batch.waiters.is_empty() {
            self.batches.push_back(batch);
        }
    }

    /// Puts the rest of a batch back in front.
    pub fn put_back(&mut self, batch: Batch) {
        if !batch.waiters.is_empty() {
            self.batches.push_front(batch);
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
        self.batches.is_empty()
    }
}
