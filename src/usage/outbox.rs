//! Brings what was counted to Redis: a state machine that is told the time, asks for Redis commands and is
//! handed their replies.
//!
//! A round looks at all slots, freezes what they counted, and sends it in commands of bounded size, one after the
//! other. Whatever is not acknowledged stays in shared data and is sent again, unchanged, in a later round, by
//! this VM or another one: any number of them may do this at once.

use std::time::Duration;

use super::batch::{self, Applied, Cargo, UsageKeys};
use super::ledger::{self, Slots};
use super::{State, Tally};
use crate::hash::Sha256Hash;
use crate::redis::{Command, Failure, Reply};
use crate::shared::{Store, StoreError, Update, update};
use crate::time::Monotonic;

/// Most slots looked at in one tick: about 0.3 ms when they are empty.
const SLICE: u16 = 256;

/// Hex digits of a process id.
const ID_DIGITS: usize = 32;

/// What all VMs of a process that share slots call themselves towards Redis: 32 hex digits.
///
/// The first of them decides. The proposal is mixed with the names of the slots, so that it may serve several
/// sets of slots. `None` when other VMs were in the way: ask again.
///
/// # Errors
/// When shared data fails.
fn process_id(
    store: &impl Store,
    slots: &Slots,
    proposal: [u8; 16],
) -> Result<Option<String>, StoreError> {
    let own = Sha256Hash::of(&[&proposal, slots.prefix().as_bytes()].concat()).to_hex();
    let own = own.get(..ID_DIGITS).unwrap_or(&own).to_owned();
    let mut known = None;
    let written = update(store, &slots.process(), |bytes| {
        known = std::str::from_utf8(bytes)
            .ok()
            .filter(|id| id.len() == ID_DIGITS)
            .map(str::to_owned);
        known.is_none().then(|| own.clone().into_bytes())
    })?;
    Ok(match written {
        Update::Written => Some(own),
        Update::Unchanged => known,
        Update::Contended => None,
    })
}

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Looking at slots.
    Collecting,
    /// A command is on its way.
    Awaiting,
    /// The round was given up; the next one is an interval away.
    Failed,
}

/// The sending of one worker.
#[derive(Debug)]
pub struct Outbox {
    slots: Slots,
    names: &'static UsageKeys,
    prefix: String,
    interval: Duration,
    proposal: [u8; 16],
    sequences: Option<String>,
    phase: Phase,
    due: Monotonic,
    asked: bool,
    next: u16,
    left: u16,
    cargo: Cargo,
    awaited: Vec<(u16, u64)>,
    more: bool,
    missed: bool,
}

impl Outbox {
    /// An outbox that has done nothing yet. `names` are those of the hashes, `prefix` is that of the filter's own keys in Redis. `proposal` is
    /// what the process is told apart by, if this VM is its first: it must be random, since two processes with
    /// one id would lose counts.
    pub fn new(
        slots: Slots,
        names: &'static UsageKeys,
        prefix: &str,
        interval: Duration,
        proposal: [u8; 16],
    ) -> Self {
        Self {
            slots,
            names,
            prefix: prefix.to_owned(),
            interval,
            proposal,
            sequences: None,
            phase: Phase::Idle,
            due: Monotonic::default(),
            asked: false,
            next: 0,
            left: 0,
            cargo: Cargo::default(),
            awaited: Vec::new(),
            more: false,
            missed: true,
        }
    }

    /// Whether there is work that should not wait for the next interval.
    pub fn is_busy(&self) -> bool {
        self.phase == Phase::Collecting || (self.asked && self.phase == Phase::Idle)
    }

    /// Does a slice of work; returns a command to send, if one is due. Its reply goes to [`Outbox::reply`].
    pub fn tick(
        &mut self,
        store: &impl Store,
        now: Monotonic,
        tally: &mut Tally,
    ) -> Option<Command> {
        if self.phase == Phase::Failed {
            self.phase = Phase::Idle;
            self.due = now.plus(self.interval);
        }
        if self.phase == Phase::Idle && (self.asked || now >= self.due) {
            self.begin(store, now);
        }
        if self.phase == Phase::Collecting {
            self.collect(store, tally)
        } else {
            None
        }
    }

    fn begin(&mut self, store: &impl Store, now: Monotonic) {
        self.asked = false;
        if self.sequences.is_none() {
            let id = process_id(store, &self.slots, self.proposal);
            let Ok(Some(id)) = id else {
                return self.fail();
            };
            self.sequences = Some(batch::sequences_key(&self.prefix, &id));
        }
        self.due = now.plus(self.interval);
        self.left = self.slots.count();
        self.more = false;
        self.missed = false;
        self.phase = Phase::Collecting;
    }

    fn collect(&mut self, store: &impl Store, tally: &mut Tally) -> Option<Command> {
        for _ in 0..SLICE.min(self.left) {
            let slot = self.next;
            self.next = (slot + 1).checked_rem(self.slots.count()).unwrap_or(0);
            self.left -= 1;
            let Ok(look) = ledger::freeze(store, &self.slots, slot) else {
                self.missed = true;
                continue;
            };
            self.more |= look.more;
            let Some(batch) = look.batch else {
                continue;
            };
            if look.again {
                tally.add(State::Resent, batch.requests());
            }
            if !self.cargo.load(self.names, &self.prefix, &batch) {
                let full = std::mem::take(&mut self.cargo);
                self.cargo.load(self.names, &self.prefix, &batch);
                return self.send(full);
            }
        }
        if self.left > 0 {
            return None;
        }
        if !self.cargo.is_empty() {
            let rest = std::mem::take(&mut self.cargo);
            return self.send(rest);
        }
        self.phase = Phase::Idle;
        // More than one batch holds: an outage is over. Not while shared data fails: that would never end.
        self.asked |= self.more && !self.missed;
        None
    }

    fn send(&mut self, cargo: Cargo) -> Option<Command> {
        let sequences = self.sequences.as_deref()?;
        self.phase = Phase::Awaiting;
        self.awaited = cargo.batches().to_vec();
        Some(cargo.command(sequences))
    }

    /// Takes the reply to a command that [`Outbox::tick`] returned, and forgets what is in Redis now. The reply
    /// says itself which batches are in, so a late one is never taken for that of a later command.
    ///
    /// # Errors
    /// Why nothing was acknowledged; all of it is sent again after the interval.
    pub fn reply(
        &mut self,
        store: &impl Store,
        reply: Result<Reply<'_>, Failure>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let applied = reply.and_then(|reply| Applied::read(&reply).ok_or(Failure::Malformed));
        let applied = match applied {
            Ok(applied) => applied,
            Err(failure) => {
                if self.phase == Phase::Awaiting {
                    self.fail();
                }
                return Err(failure);
            }
        };
        tally.add(State::Refused, applied.refused);
        for (slot, sequence) in &applied.batches {
            match ledger::acknowledge(store, &self.slots, *slot, *sequence) {
                Ok(Some(requests)) => tally.add(State::Sent, requests),
                // It stays and is sent again; the script knows it.
                Ok(None) | Err(_) => self.missed = true,
            }
        }
        if self.phase == Phase::Awaiting && applied.batches == self.awaited {
            self.phase = Phase::Collecting;
        }
        Ok(())
    }

    /// Gives the round up. The next one goes on behind what failed, so that this cannot keep the rest back.
    fn fail(&mut self) {
        self.phase = Phase::Failed;
        self.cargo = Cargo::default();
        self.asked = false;
        self.missed = true;
    }
}

#[cfg(test)]
mod tests;
