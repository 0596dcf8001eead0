//! Requests that need the same read share one callout.
//!
//! A request that needs a tenant's document joins a read of it that is under way, whatever the client holds. Only a request
//! that was not served by such a read needs one in which nothing is held. So of one tenant at most two are under way.
//!
//! A shell may lose a reply, because the context that it belongs to is gone. Then the read is sent again on the next tick, and
//! whoever waits waits on.

use std::collections::HashMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::calls::Call;
use super::host::CallId;
use crate::redis::Purpose;
use crate::surfaces::{Read, SentRead, Surface, SurfaceRequest};
use crate::time::Monotonic;

/// Most requests of one worker that may wait at a time.
pub const MAX_WAITERS: usize = 8_192;

/// Most bytes that waiting requests may keep: a VM never gives memory back.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// A paused request.
#[derive(Debug)]
pub struct Waiter<S: Surface> {
    /// Its stream.
    pub stream: u32,
    /// What it asks.
    pub request: S::Request<'static>,
    /// What it takes along.
    pub carried: S::Carried,
    deadline: Monotonic,
}

impl<S: Surface> Waiter<S> {
    fn weight(&self) -> usize {
        let carried = S::carried_weight(&self.carried);
        self.request.weight().saturating_add(carried)
    }
}

/// A read under way, or about to be sent again.
pub struct Flight<S: Surface> {
    /// What is read.
    pub read: S::Read,
    /// The requests that wait for it.
    pub waiters: Vec<Waiter<S>>,
    /// `None`: not sent yet, or its reply is lost.
    callout: Option<ReadCallout<S::Known>>,
    /// The surface works on it by itself: nothing is sent.
    is_own: bool,
}

/// The callout of a read.
pub struct ReadCallout<K> {
    /// The callout.
    pub call: Call,
    /// Largest reply that is read, in bytes.
    pub largest_reply: usize,
    /// What it counts as.
    pub purpose: Purpose,
    /// When it was sent, and what was known then.
    pub sent: SentRead<K>,
}

/// What has to be done for a request that joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Nothing: the read is under way.
    UnderWay,
    /// The read has to be sent.
    Send,
}

/// All reads of one worker.
pub struct SingleFlight<S: Surface> {
    flights: HashMap<S::Read, Flight<S>>,
    /// Of each read with nothing held the one in which something is.
    conditional: HashMap<S::Read, S::Read>,
    calls: FxHashMap<CallId, S::Read>,
    streams: FxHashMap<u32, S::Read>,
    bytes: usize,
    /// Reads of the surface's own that nobody waits for any more.
    abandoned: Vec<S::Read>,
}

impl<S: Surface> Default for SingleFlight<S> {
    fn default() -> Self {
        Self {
            flights: HashMap::new(),
            conditional: HashMap::new(),
            calls: FxHashMap::default(),
            streams: FxHashMap::default(),
            bytes: 0,
            abandoned: Vec::new(),
        }
    }
}

impl<S: Surface> SingleFlight<S> {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether a stream waits.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Whether there is no room for another request. One alone always has room.
    pub fn is_full(&self, request: &S::Request<'_>, carried: &S::Carried) -> bool {
        let weight = request.weight().saturating_add(S::carried_weight(carried));
        let has_bytes = self.bytes == 0 || self.bytes.saturating_add(weight) <= MAX_WAITING_BYTES;
        self.streams.len() >= MAX_WAITERS || !has_bytes
    }

    /// Whether this read is under way, or about to be sent.
    pub fn has(&self, read: &S::Read) -> bool {
        self.flights.contains_key(read)
    }

    /// The read that a request joins which needs this one: one of the same document that is under way, or this. What is
    /// read with nothing held serves everybody.
    pub fn joined_by(&self, read: S::Read) -> S::Read {
        let Some(unconditional) = read.unconditional() else {
            return read;
        };
        if self.has(&unconditional) {
            return unconditional;
        }
        self.conditional
            .get(&unconditional)
            .cloned()
            .unwrap_or(read)
    }

    /// Adds a request. It waits `patience` at most.
    pub fn join(
        &mut self,
        stream: u32,
        request: S::Request<'_>,
        carried: S::Carried,
        read: S::Read,
        now: Monotonic,
        patience: Duration,
    ) -> Join {
        let waiter = Waiter {
            stream,
            request: request.into_owned(),
            carried,
            deadline: now.plus(patience),
        };
        self.bytes = self.bytes.saturating_add(waiter.weight());
        self.streams.insert(stream, read.clone());
        if let Some(flight) = self.flights.get_mut(&read) {
            flight.waiters.push(waiter);
            return Join::UnderWay;
        }
        if let Some(unconditional) = conditional(&read) {
            self.conditional.insert(unconditional, read.clone());
        }
        self.flights.insert(
            read.clone(),
            Flight {
                read,
                waiters: vec![waiter],
                callout: None,
                is_own: false,
            },
        );
        Join::Send
    }

    /// Notes that a read was sent.
    pub fn sent(&mut self, read: &S::Read, callout: ReadCallout<S::Known>) {
        if let Some(flight) = self.flights.get_mut(read) {
            self.calls.insert(callout.call.id, read.clone());
            flight.callout = Some(callout);
        }
    }

    /// Notes that the surface works on a read by itself.
    pub fn is_own(&mut self, read: &S::Read) {
        if let Some(flight) = self.flights.get_mut(read) {
            flight.is_own = true;
        }
    }

    /// Takes the read that a reply belongs to, and its callout.
    pub fn land(&mut self, call: CallId) -> Option<(Flight<S>, ReadCallout<S::Known>)> {
        let read = self.calls.remove(&call)?;
        let mut flight = self.take(&read)?;
        let callout = flight.callout.take()?;
        Some((flight, callout))
    }

    /// Takes a read that could not be sent, or that the surface is done with.
    pub fn take(&mut self, read: &S::Read) -> Option<Flight<S>> {
        let flight = self.remove(read)?;
        for waiter in &flight.waiters {
            self.streams.remove(&waiter.stream);
            self.bytes = self.bytes.saturating_sub(waiter.weight());
        }
        Some(flight)
    }

    fn remove(&mut self, read: &S::Read) -> Option<Flight<S>> {
        if let Some(unconditional) = conditional(read)
            && self.conditional.get(&unconditional) == Some(read)
        {
            self.conditional.remove(&unconditional);
        }
        let flight = self.flights.remove(read)?;
        if let Some(callout) = &flight.callout {
            self.calls.remove(&callout.call.id);
        }
        Some(flight)
    }

    /// The reply to a callout will not come: its read has to be sent again.
    pub fn lost(&mut self, call: CallId) {
        if let Some(read) = self.calls.remove(&call)
            && let Some(flight) = self.flights.get_mut(&read)
        {
            flight.callout = None;
        }
    }

    /// A stream is gone. Whoever waited with it waits on.
    pub fn leave(&mut self, stream: u32) {
        // Most streams never waited.
        if self.streams.is_empty() {
            return;
        }
        let Some(read) = self.streams.remove(&stream) else {
            return;
        };
        let Some(flight) = self.flights.get_mut(&read) else {
            return;
        };
        for waiter in flight
            .waiters
            .extract_if(.., |waiter| waiter.stream == stream)
        {
            self.bytes = self.bytes.saturating_sub(waiter.weight());
        }
        if flight.waiters.is_empty() && self.remove(&read).is_some_and(|flight| flight.is_own) {
            self.abandoned.push(read);
        }
    }

    /// The reads of the surface's own that were left by all who waited.
    pub fn take_abandoned(&mut self) -> Vec<S::Read> {
        std::mem::take(&mut self.abandoned)
    }

    /// Reads that have to be sent again.
    pub fn unsent(&self) -> Vec<S::Read> {
        self.flights
            .values()
            .filter(|flight| flight.callout.is_none() && !flight.is_own)
            .map(|flight| flight.read.clone())
            .collect()
    }

    /// Takes the waiters whose time is up. Their reads go on for the others.
    pub fn overdue(&mut self, now: Monotonic) -> Vec<Waiter<S>> {
        let mut overdue = Vec::new();
        for flight in self.flights.values_mut() {
            overdue.extend(
                flight
                    .waiters
                    .extract_if(.., |waiter| now >= waiter.deadline),
            );
        }
        for waiter in &overdue {
            self.bytes = self.bytes.saturating_sub(waiter.weight());
            self.leave(waiter.stream);
        }
        overdue
    }
}

/// The same read with nothing held, of one in which something is.
fn conditional<R: Read>(read: &R) -> Option<R> {
    read.unconditional()
        .filter(|unconditional| unconditional != read)
}

#[cfg(test)]
mod tests;
