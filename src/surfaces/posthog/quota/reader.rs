//! Reads the list of limited teams on a timer, and keeps their latches: a state machine that is told the time,
//! asks for Redis commands and is handed their replies, like the snapshot's loader.
//!
//! One VM of the process reads; the caller holds a lease. A round is: the list → the teams of its tokens, a
//! slice per tick → the set into shared data → the latches, a batch per command. A team that left the list is
//! kept as owed in the set until its latch was told, so that neither a failing Redis nor a VM that vanishes
//! leaves SDKs without flags.

use std::collections::HashMap;
use std::time::Duration;

use super::scores::{self, Scores};
use super::{Clock, MAX_MEMBERS, Member, Owed, QuotaEnd, QuotaSet, grace};
use crate::hash::Sha256Hash;
use crate::labels::labels;
use crate::redis::{Command, Failure, Reply};
use crate::shared::{Store, StoreError, Update, update};
use crate::surfaces::posthog::definitions::latch::{self, Limit};
use crate::surfaces::posthog::definitions::settings::Definitions;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most tokens whose team is looked up in one slice.
const SLICE: usize = 1_024;

/// When a first read that failed is tried again, at the latest.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// After how long a latch is of no use any more; it has expired in Redis, too.
const LATCH_MILLIS: u64 = 7 * 24 * 3_600 * 1_000;

/// Largest reply to the reader, in bytes: 10 000 members of 200 bytes with their scores.
pub const LARGEST_REPLY: usize = 3 << 20;

/// Which Redis a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one with the list of limited teams.
    Quota,
    /// The one with the payloads. The command writes.
    Definitions,
}

/// What the reader did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaEvent {
    /// A set is in shared data.
    Read,
    /// There are more limited teams than are known.
    Truncated,
    /// Redis did not answer; the last set stays.
    ReadFailed,
    /// Redis answered something else than the list; the last set stays.
    ReadMalformed,
    /// Latches could not be written; they are written with the next read.
    LatchFailed,
    /// Shared data failed; the last set stays.
    StoreFailed,
}

labels! {
    QuotaEvent {
        Read: "read",
        Truncated: "truncated",
        ReadFailed: "read_failed",
        ReadMalformed: "read_malformed",
        LatchFailed: "latch_failed",
        StoreFailed: "store_failed",
    }
}

impl QuotaEvent {
    /// Whether an operator should look.
    pub const fn is_problem(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// Tokens on their way to a set.
#[derive(Debug)]
struct Resolving {
    clock: Clock,
    tokens: Vec<(Sha256Hash, QuotaEnd)>,
    members: Vec<Member>,
}

/// Limits on their way to Redis.
#[derive(Debug)]
struct Latching {
    limits: Vec<Limit>,
    told: usize,
    clock: Option<Clock>,
}

impl Latching {
    fn left(&self) -> &[Limit] {
        self.limits.get(self.told..).unwrap_or_default()
    }
}

#[derive(Debug)]
enum State {
    Idle,
    AwaitingList,
    Resolving(Resolving),
    NextLatches(Latching),
    AwaitingLatches(Latching),
}

/// The reader of one worker.
#[derive(Debug)]
pub struct QuotaReader {
    entry: String,
    prefix: String,
    definitions: Definitions,
    interval: Duration,
    free_latch: bool,
    state: State,
    asked_at: Monotonic,
    next_read: Monotonic,
    has_read: bool,
    /// Teams with a latch whose end lies ahead, though the set did not have them. They count as lifted where the next
    /// list does not have them either.
    noticed: Vec<Owed>,
    /// The same, since before the list was asked for.
    doubted: Vec<Owed>,
    /// Teams of limited tokens, as requests have proven them, until a set has them.
    owners: HashMap<Sha256Hash, Tenant>,
}

impl QuotaReader {
    /// A reader that has done nothing yet. `entry` names the set in shared data, `prefix` is that of the
    /// filter's own keys in Redis.
    pub fn new(
        entry: String,
        prefix: String,
        definitions: Definitions,
        interval: Duration,
        free_latch: bool,
    ) -> Self {
        Self {
            entry,
            prefix,
            definitions,
            interval,
            free_latch,
            state: State::Idle,
            asked_at: Monotonic::default(),
            next_read: Monotonic::default(),
            has_read: false,
            noticed: Vec::new(),
            doubted: Vec::new(),
            owners: HashMap::new(),
        }
    }

    /// Whether there is work that should not wait for the next read.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Resolving(_) | State::NextLatches(_))
    }

    /// Whether the list is to be read with the next tick.
    pub fn is_due(&self, now: Monotonic) -> bool {
        matches!(self.state, State::Idle) && now >= self.next_read
    }

    /// Reads again with the next tick, as when a snapshot became live: it knows more teams.
    pub fn read_soon(&mut self) {
        self.next_read = Monotonic::default();
    }

    /// Workers saw latches whose ends lie ahead, of teams that are not in the set: another Envoy has read that they are
    /// limited, or left them so when it stopped. Reads with the next tick.
    pub fn notice(&mut self, ends: impl IntoIterator<Item = (Tenant, QuotaEnd)>) {
        let ends = ends.into_iter().map(|(team, end)| Owed { team, end });
        self.noticed.extend(ends);
        self.noticed.truncate(MAX_MEMBERS);
        self.read_soon();
    }

    /// Requests have proven whose these limited tokens are, which the directory does not know. Reads with the next tick.
    pub fn learn(&mut self, owners: impl IntoIterator<Item = (Sha256Hash, Tenant)>) {
        let room = MAX_MEMBERS.saturating_sub(self.owners.len());
        self.owners.extend(owners.into_iter().take(room));
        self.read_soon();
    }

    /// Leaves reading to another VM; whatever is under way is dropped. A reply that is still to come must not be
    /// handed in.
    pub fn stop(&mut self) {
        self.state = State::Idle;
        self.read_soon();
    }

    /// Does a slice of work; returns a command to send, if one is due. Its reply goes to
    /// [`QuotaReader::reply`]. `resolve` finds the team of a token in the directory.
    pub fn tick(
        &mut self,
        store: &impl Store,
        now: Monotonic,
        resolve: impl FnMut(&Sha256Hash) -> Option<Tenant>,
        events: &mut Vec<QuotaEvent>,
    ) -> Option<(Target, Command)> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle if now >= self.next_read => {
                self.next_read = now.plus(self.interval);
                self.asked_at = now;
                self.doubted.append(&mut self.noticed);
                self.doubted.truncate(MAX_MEMBERS);
                self.state = State::AwaitingList;
                Some((Target::Quota, scores::command()))
            }
            State::Resolving(resolving) => {
                self.resolve(store, resolving, resolve, events);
                None
            }
            State::NextLatches(latching) => {
                let limits = latching.left();
                let command = latch::command(
                    &self.definitions,
                    &self.prefix,
                    grace(self.interval),
                    limits,
                );
                self.asked_at = now;
                self.state = State::AwaitingLatches(latching);
                Some((Target::Definitions, command))
            }
            waiting => {
                self.state = waiting;
                None
            }
        }
    }

    /// Takes the reply to the command that [`QuotaReader::tick`] returned.
    pub fn reply(
        &mut self,
        store: &impl Store,
        reply: Result<Reply<'_>, Failure>,
        events: &mut Vec<QuotaEvent>,
    ) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::AwaitingList => {
                let scores = reply.map_err(|_| QuotaEvent::ReadFailed).and_then(|reply| {
                    Scores::of(&reply, self.asked_at).ok_or(QuotaEvent::ReadMalformed)
                });
                match scores {
                    Ok(scores) => {
                        if scores.members.len() >= MAX_MEMBERS {
                            events.push(QuotaEvent::Truncated);
                        }
                        self.state = State::Resolving(Resolving {
                            clock: scores.clock,
                            members: Vec::with_capacity(scores.members.len()),
                            tokens: scores.members,
                        });
                    }
                    Err(event) => self.read_failed(event, events),
                }
            }
            State::AwaitingLatches(mut latching) => {
                let clock = reply.ok().and_then(|reply| match *reply.strings()? {
                    [b"latch", seconds, micros, _] => scores::clock(seconds, micros, self.asked_at),
                    _ => None,
                });
                let Some(clock) = clock else {
                    events.push(QuotaEvent::LatchFailed);
                    self.told(store, &latching, events);
                    return;
                };
                latching.clock = Some(clock);
                latching.told += latching.left().len().min(latch::BATCH);
                if latching.left().is_empty() {
                    self.told(store, &latching, events);
                } else {
                    self.state = State::NextLatches(latching);
                }
            }
            // A late reply of a round that was given up.
            other => self.state = other,
        }
    }

    fn read_failed(&mut self, event: QuotaEvent, events: &mut Vec<QuotaEvent>) {
        events.push(event);
        if !self.has_read {
            let retry = self.asked_at.plus(FIRST_RETRY);
            self.next_read = self.next_read.min(retry);
        }
    }

    fn resolve(
        &mut self,
        store: &impl Store,
        mut resolving: Resolving,
        mut find: impl FnMut(&Sha256Hash) -> Option<Tenant>,
        events: &mut Vec<QuotaEvent>,
    ) {
        let done = resolving.members.len();
        let slice = resolving.tokens.iter().skip(done).take(SLICE);
        resolving.members.extend(slice.map(|(hash, end)| Member {
            hash: *hash,
            // 0 stands for a team that is not known.
            team: find(hash).filter(|team| team.0 != 0),
            end: *end,
        }));
        if resolving.members.len() < resolving.tokens.len() {
            self.state = State::Resolving(resolving);
            return;
        }
        match self.publish(store, resolving.clock, &resolving.members) {
            Ok(Some(limits)) => {
                self.doubted.clear();
                self.owners.clear();
                self.has_read = true;
                events.push(QuotaEvent::Read);
                if self.free_latch && !limits.is_empty() {
                    self.state = State::NextLatches(Latching {
                        limits,
                        told: 0,
                        clock: None,
                    });
                }
            }
            // Another VM has read since this one asked.
            Ok(None) => {}
            Err(_) => self.read_failed(QuotaEvent::StoreFailed, events),
        }
    }

    /// Puts a set into shared data; what its latches must be told, or `None` when a newer set is there.
    fn publish(
        &self,
        store: &impl Store,
        clock: Clock,
        members: &[Member],
    ) -> Result<Option<Vec<Limit>>, StoreError> {
        let mut set = QuotaSet::default();
        let written = update(store, &self.entry, |stored| {
            let previous = QuotaSet::decode(stored).unwrap_or_default();
            if previous.read_at() > Some(clock.asked_at) {
                return None;
            }
            // A team that was known once stays known, or its limit would count as lifted.
            let known = |member: &Member| {
                let hash = &member.hash;
                let proven = || self.owners.get(hash).copied().filter(|team| team.0 != 0);
                let team = member.team.or_else(|| previous.team_of(hash));
                Member {
                    team: team.or_else(proven),
                    ..*member
                }
            };
            set = QuotaSet::new(clock, members.iter().map(known).collect());
            set.definitions_clock = previous.definitions_clock;
            set.owed = if self.free_latch {
                owed(&previous, self.doubted(&set), &set)
            } else {
                Vec::new()
            };
            Some(set.encode())
        })?;
        match written {
            Update::Written => {}
            Update::Unchanged => return Ok(None),
            // Only this VM and at most one before it write here; the next round tries again.
            Update::Contended => return Ok(None),
        }
        let limited = set.teams.iter().map(|(team, end)| (*team, *end, false));
        let gone = set.owed.iter().map(|owed| (owed.team, owed.end, true));
        let limit = |(team, end, gone)| Limit { team, end, gone };
        // Of a limit that was shortened the new end comes last: the latch must not end before that.
        Ok(Some(gone.chain(limited).map(limit).collect()))
    }

    /// Who may be lifted by what workers saw. Nobody while the team of a limited token is not known: it could be theirs.
    fn doubted(&self, set: &QuotaSet) -> &[Owed] {
        let is_known = |member: &Member| member.team.is_some();
        match set.members.iter().all(is_known) {
            true => &self.doubted,
            false => &[],
        }
    }

    /// Notes in the set what Redis was told, and its clock.
    fn told(&self, store: &impl Store, latching: &Latching, events: &mut Vec<QuotaEvent>) {
        let Some(clock) = latching.clock else {
            return;
        };
        let told: HashMap<Tenant, QuotaEnd> = latching
            .limits
            .iter()
            .take(latching.told)
            .filter(|limit| limit.gone)
            .map(|limit| (limit.team, limit.end))
            .collect();
        let written = update(store, &self.entry, |stored| {
            let mut set = QuotaSet::decode(stored).ok()?;
            set.clock?;
            set.definitions_clock = Some(clock);
            set.owed
                .retain(|owed| told.get(&owed.team) != Some(&owed.end));
            Some(set.encode())
        });
        if written.is_err() {
            events.push(QuotaEvent::StoreFailed);
        }
    }
}

/// The teams that were limited, owed or doubted, and in the next set are not, or not for so long: a worker that has not
/// copied it may answer 402 when the others' limits have ended. Of a team that comes twice the later end counts.
fn owed(previous: &QuotaSet, doubted: &[Owed], next: &QuotaSet) -> Vec<Owed> {
    let now = next.clock.map_or(0, |clock| clock.millis);
    let before = previous.teams.iter().map(|(team, end)| Owed {
        team: *team,
        end: *end,
    });
    let mut all: Vec<Owed> = before
        .chain(previous.owed.iter().chain(doubted).copied())
        .filter(|owed| next.team_ends(owed.team) < Some(owed.end))
        .filter(|owed| owed.end.as_millis().saturating_add(LATCH_MILLIS) > now)
        .collect();
    all.sort_unstable_by_key(|owed| (owed.team, std::cmp::Reverse(owed.end)));
    all.dedup_by_key(|owed| owed.team);
    all.truncate(MAX_MEMBERS);
    all
}

#[cfg(test)]
mod tests;
