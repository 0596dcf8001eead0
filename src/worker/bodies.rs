//! Requests whose body has to be there before they are decided. The host keeps the body; here is whose it is, how long it may
//! be, and until when it is waited for.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::surfaces::{Surface, SurfaceRequest};
use crate::time::Monotonic;

/// Most requests whose bodies are awaited at a time.
const MAX_AWAITED: usize = 1_024;

/// Longest time in which nothing of a body comes.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request whose body is on its way.
pub struct Awaited<S: Surface> {
    /// What it asks.
    pub request: S::Request<'static>,
    /// What it takes along.
    pub carried: S::Carried,
    /// Most bytes of its body.
    pub max_bytes: usize,
    deadline: Monotonic,
}

/// All such requests of one worker, by their streams.
pub struct Bodies<S: Surface> {
    awaited: FxHashMap<u32, Awaited<S>>,
}

impl<S: Surface> Default for Bodies<S> {
    fn default() -> Self {
        Self {
            awaited: FxHashMap::default(),
        }
    }
}

impl<S: Surface> Bodies<S> {
    /// Whether none is awaited.
    pub fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether there is no room for another one.
    pub fn is_full(&self) -> bool {
        self.awaited.len() >= MAX_AWAITED
    }

    /// Awaits a body.
    pub fn await_body(
        &mut self,
        stream: u32,
        request: S::Request<'_>,
        carried: S::Carried,
        max_bytes: usize,
        now: Monotonic,
    ) {
        let awaited = Awaited {
            request: request.into_owned(),
            carried,
            max_bytes,
            deadline: now.plus(PATIENCE),
        };
        self.awaited.insert(stream, awaited);
    }

    /// Notes that so many bytes of a body are there: whether it is longer than it may be.
    pub fn is_too_long(&mut self, stream: u32, bytes: usize, now: Monotonic) -> bool {
        let Some(awaited) = self.awaited.get_mut(&stream) else {
            return false;
        };
        awaited.deadline = now.plus(PATIENCE);
        bytes > awaited.max_bytes
    }

    /// Whether a body is awaited.
    pub fn is_awaited(&self, stream: u32) -> bool {
        self.awaited.contains_key(&stream)
    }

    /// Takes a request: its body is there, or it is not waited for any more.
    pub fn take(&mut self, stream: u32) -> Option<Awaited<S>> {
        self.awaited.remove(&stream)
    }

    /// The streams of which nothing came for too long.
    pub fn overdue(&self, now: Monotonic) -> Vec<u32> {
        let is_late = |(_, awaited): &(&u32, &Awaited<S>)| now >= awaited.deadline;
        let late = self.awaited.iter().filter(is_late);
        late.map(|(stream, _)| *stream).collect()
    }
}
