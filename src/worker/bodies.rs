//! Requests whose body has to be there before they are decided. The host keeps the body; here is whose it is, how long it may
//! be, and until when it is waited for.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::surfaces::{Surface, SurfaceRequest};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most requests whose bodies are awaited at a time.
const MAX_AWAITED: usize = 1_024;

/// Most of them of one tenant, once half of the room is taken: others need room as well.
const MAX_AWAITED_OF_ONE: usize = MAX_AWAITED / 8;

/// Most bytes of them all, header fields and what is there of the bodies. The host keeps these beside what it keeps for others.
const MAX_BYTES: usize = 16 << 20;

/// Most bytes of those of one tenant, once half of the room is taken.
const MAX_BYTES_OF_ONE: usize = MAX_BYTES / 4;

/// Longest time from a request's header fields to the end of its body.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request whose body is on its way.
pub struct Awaited<S: Surface> {
    /// What it asks.
    pub request: S::Request<'static>,
    /// What it takes along.
    pub carried: S::Carried,
    max_bytes: usize,
    tenant: Tenant,
    deadline: Monotonic,
    /// Bytes of it so far.
    bytes: usize,
}

/// What becomes of a request when a part of its body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartVerdict {
    /// It waits for more.
    Waits,
    /// Its body is longer than it may be.
    TooLong,
    /// There is no room for more of it.
    NoRoom,
}

/// All such requests of one worker, by their streams.
pub struct Bodies<S: Surface> {
    awaited: FxHashMap<u32, Awaited<S>>,
    /// Number and bytes of those of each tenant.
    by_tenant: FxHashMap<Tenant, (usize, usize)>,
    bytes: usize,
}

impl<S: Surface> Default for Bodies<S> {
    fn default() -> Self {
        Self {
            awaited: FxHashMap::default(),
            by_tenant: FxHashMap::default(),
            bytes: 0,
        }
    }
}

impl<S: Surface> Bodies<S> {
    /// Whether none is awaited.
    pub fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether there is no room for another one of this tenant.
    pub fn is_full(&self, request: &S::Request<'_>, tenant: Tenant) -> bool {
        let of_tenant = self.by_tenant.get(&tenant);
        let has_many = of_tenant.is_some_and(|(count, _)| *count >= MAX_AWAITED_OF_ONE);
        self.awaited.len() >= MAX_AWAITED
            || (has_many && self.awaited.len() >= MAX_AWAITED / 2)
            || self.has_no_room_for(tenant, request.weight())
    }

    fn has_no_room_for(&self, tenant: Tenant, bytes: usize) -> bool {
        let of_tenant = self.by_tenant.get(&tenant).map_or(0, |(_, bytes)| *bytes);
        let all = self.bytes.saturating_add(bytes);
        let has_much = of_tenant.saturating_add(bytes) > MAX_BYTES_OF_ONE;
        all > MAX_BYTES || (has_much && all > MAX_BYTES / 2)
    }

    fn add(&mut self, tenant: Tenant, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let (count, of_tenant) = self.by_tenant.entry(tenant).or_default();
        *count += 1;
        *of_tenant = of_tenant.saturating_add(bytes);
    }

    fn subtract(&mut self, tenant: Tenant, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some((count, of_tenant)) = self.by_tenant.get_mut(&tenant) {
            *count = count.saturating_sub(1);
            *of_tenant = of_tenant.saturating_sub(bytes);
            if *count == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }

    /// Awaits a body.
    pub fn await_body(
        &mut self,
        stream: u32,
        request: S::Request<'_>,
        carried: S::Carried,
        (max_bytes, tenant): (usize, Tenant),
        now: Monotonic,
    ) {
        let bytes = request.weight();
        let awaited = Awaited {
            request: request.into_owned(),
            carried,
            max_bytes,
            tenant,
            deadline: now.plus(PATIENCE),
            bytes,
        };
        self.take(stream);
        self.add(tenant, bytes);
        self.awaited.insert(stream, awaited);
    }

    /// Notes that so many bytes of a body are there.
    pub fn note_part(&mut self, stream: u32, bytes: usize) -> PartVerdict {
        let Some(awaited) = self.awaited.get_mut(&stream) else {
            return PartVerdict::Waits;
        };
        if bytes > awaited.max_bytes {
            return PartVerdict::TooLong;
        }
        let held = awaited.request.weight().saturating_add(bytes);
        let before = std::mem::replace(&mut awaited.bytes, held);
        let tenant = awaited.tenant;
        self.subtract(tenant, before);
        self.add(tenant, held);
        match self.has_no_room_for(tenant, 0) {
            true => PartVerdict::NoRoom,
            false => PartVerdict::Waits,
        }
    }

    /// Whether a body is awaited.
    pub fn is_awaited(&self, stream: u32) -> bool {
        self.awaited.contains_key(&stream)
    }

    /// Takes a request: its body is there, or it is not waited for any more.
    pub fn take(&mut self, stream: u32) -> Option<Awaited<S>> {
        let awaited = self.awaited.remove(&stream)?;
        self.subtract(awaited.tenant, awaited.bytes);
        Some(awaited)
    }

    /// The streams whose bodies took too long.
    pub fn overdue(&self, now: Monotonic) -> Vec<u32> {
        let is_late = |(_, awaited): &(&u32, &Awaited<S>)| now >= awaited.deadline;
        let late = self.awaited.iter().filter(is_late);
        late.map(|(stream, _)| *stream).collect()
    }
}
