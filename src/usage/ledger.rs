//! What was counted and is not in Redis yet, in a fixed number of shared-data slots.
//!
//! Layout of a slot, little-endian: `u64` sequence of the last batch, `u32` number of frozen counters; then the
//! counters, the frozen ones first, each `u32` tenant, `u8` source, `u32` field, `u32` count. No bytes at all are
//! the empty slot. Freezing moves the border between frozen and open counters and raises the sequence;
//! acknowledging takes the frozen counters away. Both are one write of one entry.

use crate::records::{CorruptRecord, Reader};
use crate::shared::{Store, StoreError, Update, numbered, update, update_in_place};
use crate::tenant::Tenant;

/// Number of slots of one process, unless it is [`Slots::limited_to`] less.
pub const SLOTS: u16 = 1_024;

/// Most counters in one batch: small enough that a batch always fits into a command of its own.
pub const BATCH_COUNTERS: usize = 128;

const HEADER: usize = 12;
const KEY: usize = 9;
const COUNTER: usize = KEY + 4;

/// Most counters in a slot: 64 KiB. With a field every two minutes that is a week without Redis for one tenant and source.
const MAX_COUNTERS: usize = (64 * 1024 - HEADER) / COUNTER;

/// Names of the slots in shared data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    prefix: String,
    count: u16,
}

impl Slots {
    /// Slots whose names begin with `prefix`. It must differ between configurations that send usage to
    /// different places: a batch sent to one Redis is not known to another.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            count: SLOTS,
        }
    }

    /// So many of them, 1 at least: where tenants are few, and entries of shared data are dear.
    pub fn limited_to(self, count: u16) -> Self {
        let count = count.max(1);
        Self { count, ..self }
    }

    /// How many there are.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// The slot that counts a tenant. Tenants are numbered in sequence or at random, so the remainder spreads them evenly.
    pub fn slot_of(&self, tenant: Tenant) -> u16 {
        // Lossless: the remainder is below the count.
        tenant.0.checked_rem(u32::from(self.count)).unwrap_or(0) as u16
    }

    /// What all names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The entry of a slot.
    pub fn slot(&self, slot: u16) -> String {
        numbered(&[&self.prefix, "u:"], u32::from(slot))
    }

    /// The entry of the process id.
    pub fn process(&self) -> String {
        format!("{}u:process", self.prefix)
    }
}

/// Requests of one tenant, source and field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Whose requests.
    pub tenant: Tenant,
    /// Where they came from: a code of the surface's.
    pub source: u8,
    /// The field that they are added to: a time of the surface's, the newer the higher.
    pub field: u32,
    /// How many requests.
    pub count: u32,
}

impl Counter {
    fn key(&self) -> [u8; KEY] {
        let [a, b, c, d] = self.tenant.0.to_le_bytes();
        let [e, f, g, h] = self.field.to_le_bytes();
        [a, b, c, d, self.source, e, f, g, h]
    }

    fn read(bytes: &[u8; COUNTER]) -> Result<Self, CorruptRecord> {
        let mut input = Reader(bytes);
        Ok(Self {
            tenant: Tenant(input.u32()?),
            source: input.byte()?,
            field: input.u32()?,
            count: input.u32()?,
        })
    }
}

/// Frozen counters: what is sent under one number, unchanged until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its slot.
    pub slot: u16,
    /// Its number in the slot, from 1.
    pub sequence: u64,
    /// What it holds, at most [`BATCH_COUNTERS`].
    pub counters: Vec<Counter>,
}

impl Batch {
    /// Number of requests in it.
    pub fn requests(&self) -> u64 {
        sum(&self.counters)
    }
}

fn sum(counters: &[Counter]) -> u64 {
    counters
        .iter()
        .map(|counter| u64::from(counter.count))
        .sum()
}

/// What became of an attempt to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is in shared data.
    Stored,
    /// Nothing changed: other workers were first, each time. It can be tried again.
    Contended,
    /// Nothing changed, and trying again is of no use: the slot is full or cannot be read.
    NoRoom,
}

/// Adds to a counter of its tenant's slot.
///
/// In a full slot, a field that is not there yet is added to the newest field of the same tenant and source: the
/// sum stays right and the time is a little off.
///
/// # Errors
/// When shared data fails; then nothing changed.
pub fn count(store: &impl Store, slots: &Slots, counter: &Counter) -> Result<Counted, StoreError> {
    let name = slots.slot(slots.slot_of(counter.tenant));
    let written = update_in_place(store, &name, |bytes| add(bytes, counter))?;
    Ok(match written {
        Update::Written => Counted::Stored,
        Update::Contended => Counted::Contended,
        Update::Unchanged => Counted::NoRoom,
    })
}

/// What [`freeze`] found in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is to be sent.
    pub batch: Option<Batch>,
    /// Whether it was frozen before, so that it may have been sent before.
    pub again: bool,
    /// Whether there are more counters than the batch holds.
    pub more: bool,
}

/// Reads a slot's batch; where there is none, the oldest open counters become one.
///
/// # Errors
/// When shared data fails.
pub fn freeze(store: &impl Store, slots: &Slots, slot: u16) -> Result<Look, StoreError> {
    let mut look = Look::default();
    let written = update(store, &slots.slot(slot), |bytes| {
        look = Look::default();
        // What cannot be read is left alone: a new sequence from 1 would be taken for old batches.
        let mut content = Content::parse(bytes).ok()?;
        let all = content.counters.len();
        look.again = content.frozen > 0;
        if !look.again {
            content.frozen = all.min(BATCH_COUNTERS);
            content.sequence = content.sequence.saturating_add(1);
        }
        look.more = all > content.frozen;
        let frozen = content.counters.get(..content.frozen)?;
        let counters: Result<Vec<_>, _> = frozen.iter().map(Counter::read).collect();
        look.batch = Some(Batch {
            slot,
            sequence: content.sequence,
            counters: counters.ok().filter(|counters| !counters.is_empty())?,
        });
        (!look.again).then(|| content.encode())
    })?;
    if written == Update::Contended {
        look = Look {
            more: true,
            ..Look::default()
        };
    }
    Ok(look)
}

/// Takes a slot's batch away if it is the one of this number; how many requests were taken away. `None` when
/// other workers were first, each time: then the batch stays, and is sent again.
///
/// # Errors
/// When shared data fails; then the batch stays as well.
pub fn acknowledge(
    store: &impl Store,
    slots: &Slots,
    slot: u16,
    sequence: u64,
) -> Result<Option<u64>, StoreError> {
    let mut requests = 0;
    let written = update(store, &slots.slot(slot), |bytes| {
        requests = 0;
        let content = Content::parse(bytes).ok()?;
        if content.frozen == 0 || content.sequence != sequence {
            return None;
        }
        let (frozen, open) = content.counters.split_at_checked(content.frozen)?;
        requests = requests_in(frozen);
        let rest = Content {
            frozen: 0,
            counters: open,
            ..content
        };
        Some(rest.encode())
    })?;
    Ok((written != Update::Contended).then_some(requests))
}

/// Number of requests that are counted and not acknowledged, in all slots.
#[cfg(test)]
pub fn unsent(store: &impl Store, slots: &Slots) -> Result<u64, StoreError> {
    let mut requests = 0u64;
    for slot in 0..slots.count() {
        let bytes = store.read(&slots.slot(slot))?.value;
        if let Ok(content) = Content::parse(&bytes) {
            requests = requests.saturating_add(requests_in(content.counters));
        }
    }
    Ok(requests)
}

fn requests_in(counters: &[[u8; COUNTER]]) -> u64 {
    let counters: Vec<Counter> = counters.iter().flat_map(Counter::read).collect();
    sum(&counters)
}

/// A slot's bytes, read in place.
#[derive(Clone, Copy, Debug, Default)]
struct Content<'a> {
    sequence: u64,
    frozen: usize,
    counters: &'a [[u8; COUNTER]],
}

impl<'a> Content<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, CorruptRecord> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut input = Reader(bytes);
        let sequence = input.u64()?;
        let frozen = usize::try_from(input.u32()?).map_err(|_| CorruptRecord)?;
        let (counters, rest) = input.0.as_chunks();
        if !rest.is_empty() || frozen > counters.len() || frozen > BATCH_COUNTERS {
            return Err(CorruptRecord);
        }
        Ok(Self {
            sequence,
            frozen,
            counters,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.counters.len() * COUNTER);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        // Lossless: at most BATCH_COUNTERS.
        bytes.extend_from_slice(&(self.frozen as u32).to_le_bytes());
        bytes.extend_from_slice(self.counters.as_flattened());
        bytes
    }
}

/// Adds to one counter of a slot; `None` when there is no room for it, or the slot cannot be read.
fn add(bytes: &mut Vec<u8>, counter: &Counter) -> Option<()> {
    if bytes.is_empty() {
        bytes.reserve_exact(HEADER + COUNTER);
        bytes.resize(HEADER, 0);
    }
    let content = Content::parse(bytes).ok()?;
    let key = counter.key();
    let open = content.counters.get(content.frozen..)?;
    // From the end: the field of the present was added last.
    let mut place = open.iter().rposition(|entry| entry.starts_with(&key));
    if place.is_none() && content.counters.len() >= MAX_COUNTERS {
        place = Some(newest_of(open, counter)?);
    }
    match place {
        Some(place) => {
            let at = HEADER + (content.frozen + place) * COUNTER + KEY;
            let count = bytes.get_mut(at..)?.first_chunk_mut()?;
            *count = u32::from_le_bytes(*count)
                .checked_add(counter.count)?
                .to_le_bytes();
        }
        None => {
            bytes.reserve_exact(COUNTER);
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&counter.count.to_le_bytes());
        }
    }
    Some(())
}

/// Place of the newest open field of the same tenant and source.
fn newest_of(open: &[[u8; COUNTER]], wanted: &Counter) -> Option<usize> {
    open.iter()
        .enumerate()
        .filter_map(|(place, entry)| Some((place, Counter::read(entry).ok()?)))
        .filter(|(_, entry)| entry.tenant == wanted.tenant && entry.source == wanted.source)
        .max_by_key(|(_, entry)| entry.field)
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests;
