//! The job that reads PostHog's quota set for the whole process, and keeps this worker's copy of it.

use std::time::Duration;

use super::noticed::{self, Noticed};
use super::reader::{LARGEST_REPLY, QuotaEvent, QuotaReader, Target};
use super::{QuotaCopy, QuotaEnd, lease_name, name, noticed_name};
use crate::hash::Sha256Hash;
use crate::redis::{Failure, Gateway, Purpose, Reply};
use crate::shared::{BUSY, Errand, Finding, Held, IDLE, Job, Machinery, Scope, Store};
use crate::surfaces::posthog::directory::{self, Record};
use crate::surfaces::posthog::pipeline::Tables;
use crate::surfaces::posthog::read_through::table;
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// How often this worker's copy is compared with shared data: reading it copies it.
const REFRESH_INTERVAL: Duration = Duration::from_millis(900);

const SET: &str = "quota set";

/// Of the latches alone: each round begins with a read that may succeed.
const LATCHES: &str = "latches";

/// The reader and the copy of one worker.
pub struct QuotaJob {
    lease: String,
    entry: String,
    noticed_entry: String,
    is_on: bool,
    has_latches: bool,
    lists: Gateway,
    payloads: Gateway,
    /// For how long a looked-up token counts, where there is a look-up.
    looked_up_for: Option<Duration>,
    tables: Tables,
    reader: QuotaReader,
    copy: QuotaCopy,
    noticed: Noticed,
    refreshed_at: Option<Monotonic>,
    holds: bool,
    /// What the last command was for, and its number: a reply to an earlier one is not handed in.
    asked: (u64, Target),
    findings: Vec<Finding>,
}

impl QuotaJob {
    /// Nothing read yet.
    pub fn new(settings: &PostHogSettings, scope: &Scope, tables: &Tables) -> Self {
        let read_through = &settings.read_through;
        Self {
            lease: lease_name(scope),
            entry: name(scope),
            noticed_entry: noticed_name(scope),
            is_on: settings.quota.enabled,
            has_latches: settings.quota.free_latch,
            lists: settings.redis.quota.clone(),
            payloads: settings.redis.definitions.clone(),
            looked_up_for: read_through.enabled.then_some(read_through.ttl),
            tables: tables.clone(),
            reader: QuotaReader::new(
                name(scope),
                settings.snapshot.prefix.clone(),
                settings.definitions.clone(),
                settings.quota.interval,
                settings.quota.free_latch,
            ),
            copy: QuotaCopy::new(settings.quota.interval),
            noticed: Noticed::default(),
            refreshed_at: None,
            holds: false,
            asked: (0, Target::Quota),
            findings: Vec::new(),
        }
    }

    /// Whose quota is used up.
    pub const fn copy(&self) -> &QuotaCopy {
        &self.copy
    }

    /// A snapshot became live: it may know the teams of more tokens.
    pub fn read_soon(&mut self) {
        self.reader.read_soon();
    }

    /// Redis says that the end of a team's quota period lies ahead. Where neither the set nor this worker's memory of
    /// who left it tells why, whoever reads the list is told.
    pub fn pending(&mut self, team: Tenant, end: QuotaEnd, now: Monotonic) {
        if !self.is_on || !self.has_latches {
            return;
        }
        let is_limited = self.copy.ends(team, None, now).is_some();
        if !is_limited && self.copy.left(team, None).is_none() {
            self.noticed.note(team, end, now);
        }
    }

    /// A request has proven whose a limited token is, which the set does not say: whoever reads the list is told.
    pub fn owner(&mut self, token: Sha256Hash, team: Tenant, now: Monotonic) {
        if self.has_latches {
            self.noticed.note_owner(token, team, now);
        }
    }

    /// If shared data fails, what was noticed is told with the next look.
    fn pass_on(&mut self, store: &impl Store) {
        let _ = self.noticed.tell(store, &self.noticed_entry);
        if self.holds
            && let Ok(told) = noticed::take(store, &self.noticed_entry)
        {
            if !told.ends.is_empty() {
                self.reader.notice(told.ends);
            }
            if !told.owners.is_empty() {
                self.reader.learn(told.owners);
            }
        }
    }

    /// Leaves reading to others; a reply that is still to come is not handed in.
    fn leave(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.asked.0 += 1;
        self.reader.stop();
    }

    fn report(&mut self, events: &[QuotaEvent], cause: Option<Failure>) {
        for event in events {
            let topic = match event {
                QuotaEvent::LatchFailed => LATCHES,
                _ => SET,
            };
            if !event.is_problem() {
                self.findings.push(Finding::Settled(topic));
                continue;
            }
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            let line = format!("reading the quota set: {}{cause}", event.label());
            self.findings.push(Finding::Trouble(topic, line));
        }
    }
}

impl<S: Store, C> Job<S, C> for QuotaJob {
    fn lease(&self) -> Option<&str> {
        Some(&self.lease)
    }

    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, C>) -> Option<Errand> {
        let (store, now) = (machinery.store, machinery.now);
        let mut errand = None;
        if held == Held::Yes {
            self.holds = true;
            let mut events = Vec::new();
            let (tables, looked_up_for) = (&self.tables, self.looked_up_for);
            let resolve = |hash: &_| team_of(hash, store, tables, looked_up_for, now);
            let command = self.reader.tick(store, now, resolve, &mut events);
            self.report(&events, None);
            if let Some((target, command)) = command {
                self.asked = (self.asked.0 + 1, target);
                errand = Some(Errand {
                    gateway: match target {
                        Target::Quota => self.lists.clone(),
                        Target::Definitions => self.payloads.clone(),
                    },
                    command,
                    largest_reply: LARGEST_REPLY,
                    purpose: Purpose::Quota,
                    key: self.asked.0,
                });
            }
        } else {
            self.leave();
        }
        let due = |at| now.since(at) >= REFRESH_INTERVAL;
        if self.refreshed_at.is_none_or(due) {
            self.refreshed_at = Some(now);
            // If shared data fails, the last set stays.
            let _ = self.copy.refresh(store, &self.entry, now);
            self.pass_on(store);
        }
        errand
    }

    fn reply(
        &mut self,
        key: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, C>,
    ) {
        let (asked, target) = self.asked;
        if key != asked {
            return;
        }
        let cause = reply.as_ref().err().copied();
        let mut events = Vec::new();
        self.reader.reply(machinery.store, reply, &mut events);
        let latched = target == Target::Definitions && cause != Some(Failure::NotSent);
        if latched && !events.contains(&QuotaEvent::LatchFailed) {
            self.findings.push(Finding::Settled(LATCHES));
        }
        self.report(&events, cause);
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn due_in(&self, now: Monotonic) -> Duration {
        if self.holds && (self.reader.is_busy() || self.reader.is_due(now)) {
            BUSY
        } else {
            IDLE
        }
    }

    fn stop(&mut self, _: &mut Machinery<'_, S, C>) {
        self.holds = false;
        self.forget();
    }
}

/// The team of a project token: by the snapshot, or by what a request for it has looked up.
fn team_of(
    token: &Sha256Hash,
    store: &impl Store,
    tables: &Tables,
    looked_up_for: Option<Duration>,
    now: Monotonic,
) -> Option<Tenant> {
    let known = directory::find(store, &tables.buckets, token);
    let record = match (known, looked_up_for) {
        (Ok(None), Some(ttl)) => {
            let known = table::find(store, &tables.identities, token, now, ttl);
            known.ok().flatten().map(|known| known.record)
        }
        (known, _) => known.ok().flatten(),
    };
    match record {
        Some(Record::Team(team)) => Some(team.id),
        _ => None,
    }
}
