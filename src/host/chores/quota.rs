//! Reads PostHog's quota set for the whole process, and keeps this worker's copy of it.

use std::time::Duration;

use super::Duty;
use crate::hash::Sha256Hash;
use crate::host::callouts::{self, Callout};
use crate::host::logger::LastProblem;
use crate::host::recorder::Recorder;
use crate::host::registry;
use crate::host::store::SharedData;
use crate::metrics::{Metric, Purpose};
use crate::redis::Failure;
use crate::shared::Scope;
use crate::shared::lease::{self, Hold};
use crate::surfaces::posthog::directory::{self, Record};
use crate::surfaces::posthog::quota;
use crate::surfaces::posthog::quota::noticed::{self, Noticed};
use crate::surfaces::posthog::quota::reader::{LARGEST_REPLY, QuotaEvent, QuotaReader, Target};
use crate::surfaces::posthog::quota::{QuotaCopy, QuotaEnd};
use crate::surfaces::posthog::read_through::table;
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// How often this worker's copy is compared with shared data: reading it copies it.
const REFRESH_INTERVAL: Duration = Duration::from_millis(900);

pub(super) struct Reading {
    owner: u64,
    reader: QuotaReader,
    copy: QuotaCopy,
    noticed: Noticed,
    refreshed_at: Option<Monotonic>,
    sent: Option<(Callout, Target)>,
    holds: bool,
    problem: LastProblem<(QuotaEvent, Option<Failure>)>,
    /// Of the latches alone: each round begins with a read that may succeed.
    latch_problem: LastProblem<Option<Failure>>,
}

impl Reading {
    pub(super) fn new(settings: &PostHogSettings, scope: &Scope, owner: u64) -> Self {
        Self {
            owner,
            reader: QuotaReader::new(
                quota::name(scope),
                settings.snapshot.prefix.clone(),
                settings.definitions.clone(),
                settings.quota.interval,
                settings.quota.free_latch,
            ),
            copy: QuotaCopy::new(settings.quota.interval),
            noticed: Noticed::default(),
            refreshed_at: None,
            sent: None,
            holds: false,
            problem: LastProblem::default(),
            latch_problem: LastProblem::default(),
        }
    }

    pub(super) fn copy(&self) -> &QuotaCopy {
        &self.copy
    }

    /// A snapshot became live: it may know the teams of more tokens.
    pub(super) fn read_soon(&mut self) {
        self.reader.read_soon();
    }

    /// Redis says that the end of a team's quota period lies ahead. Where neither the set nor this worker's memory of
    /// who left it tells why, whoever reads the list is told.
    pub(super) fn pending(&mut self, team: Tenant, end: QuotaEnd, now: Monotonic) {
        let is_limited = self.copy.ends(team, None, now).is_some();
        if !is_limited && self.copy.left(team, None).is_none() {
            self.noticed.note(team, end, now);
        }
    }

    /// A request has proven whose a limited token is, which the set does not say: whoever reads the list is told.
    pub(super) fn owner(&mut self, token: Sha256Hash, team: Tenant, now: Monotonic) {
        self.noticed.note_owner(token, team, now);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.holds && self.reader.is_busy()
    }

    pub(super) fn tick(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        if !duty.settings.quota.enabled {
            return;
        }
        if self.may_read(&duty) {
            self.read(duty, recorder);
        }
        let due = |at| duty.now.since(at) >= REFRESH_INTERVAL;
        if self.refreshed_at.is_none_or(due) {
            self.refreshed_at = Some(duty.now);
            // If shared data fails, the last set stays.
            let _ = self
                .copy
                .refresh(&SharedData, &quota::name(&duty.scopes.data), duty.now);
            self.pass_on(&duty);
        }
    }

    /// If shared data fails, what was noticed is told with the next look.
    fn pass_on(&mut self, duty: &Duty<'_>) {
        let entry = quota::noticed_name(&duty.scopes.data);
        let _ = self.noticed.tell(&SharedData, &entry);
        if self.holds
            && let Ok(told) = noticed::take(&SharedData, &entry)
        {
            if !told.ends.is_empty() {
                self.reader.notice(told.ends);
            }
            if !told.owners.is_empty() {
                self.reader.learn(told.owners);
            }
        }
    }

    fn read(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        let mut events = Vec::new();
        let resolve = |hash: &_| team_of(hash, &duty);
        let command = self
            .reader
            .tick(&SharedData, duty.now, resolve, &mut events);
        let mut cause = None;
        if let Some((target, command)) = command {
            match callouts::send(redis(duty.settings, target), &command) {
                Ok(callout) => self.sent = Some((callout, target)),
                Err(failure) => {
                    recorder.count(Metric::Callout(Purpose::Quota, Err(failure)));
                    self.reader.reply(&SharedData, Err(failure), &mut events);
                    cause = Some(failure);
                }
            }
        }
        self.report(&events, cause);
    }

    pub(super) fn on_reply(
        &mut self,
        token: u32,
        body_size: usize,
        duty: Duty<'_>,
        recorder: &mut Recorder,
    ) -> bool {
        let Some((callout, target)) = self.sent.take_if(|(sent, _)| sent.token == token) else {
            return false;
        };
        let received = callouts::receive(body_size, LARGEST_REPLY);
        let reply = received.reply(redis(duty.settings, target), &callout);
        recorder.count(callouts::metric(Purpose::Quota, &reply));
        let cause = reply.as_ref().err().copied();
        let mut events = Vec::new();
        self.reader.reply(&SharedData, reply, &mut events);
        if target == Target::Definitions && !events.contains(&QuotaEvent::LatchFailed) {
            self.latch_problem.clear();
        }
        self.report(&events, cause);
        true
    }

    pub(super) fn stop(&mut self, duty: Duty<'_>) {
        self.leave(&quota::lease_name(&duty.scopes.data), duty.now);
    }

    fn may_read(&mut self, duty: &Duty<'_>) -> bool {
        let name = quota::lease_name(&duty.scopes.data);
        let superseded = registry::is_superseded(duty.context, &name);
        let held = self.holds;
        self.holds = !superseded
            && matches!(
                lease::acquire(
                    &SharedData,
                    &name,
                    self.owner,
                    duty.serves_requests,
                    duty.now
                ),
                Ok(Hold::Taken | Hold::Renewed)
            );
        if held && !self.holds {
            self.leave(&name, duty.now);
        }
        self.holds
    }

    fn leave(&mut self, name: &str, now: Monotonic) {
        self.holds = false;
        self.sent = None;
        self.reader.stop();
        // If it cannot be released, it runs out.
        let _ = lease::release(&SharedData, name, self.owner, now);
    }

    fn report(&mut self, events: &[QuotaEvent], cause: Option<Failure>) {
        for event in events {
            let is_new = match event {
                QuotaEvent::LatchFailed => self.latch_problem.is_new(cause),
                event if event.is_problem() => self.problem.is_new((*event, cause)),
                _ => {
                    self.problem.clear();
                    false
                }
            };
            if is_new {
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                log::warn!("reading the quota set: {}{cause}", event.label());
            }
        }
    }
}

/// The team of a project token: by the snapshot, or by what a request for it has looked up.
fn team_of(token: &Sha256Hash, duty: &Duty<'_>) -> Option<Tenant> {
    let read_through = &duty.settings.read_through;
    let record = match directory::find(&SharedData, &duty.tables.buckets, token) {
        Ok(None) if read_through.enabled => {
            let slots = &duty.tables.identities;
            let known = table::find(&SharedData, slots, token, duty.now, read_through.ttl);
            known.ok().flatten().map(|known| known.record)
        }
        known => known.ok().flatten(),
    };
    match record {
        Some(Record::Team(team)) => Some(team.id),
        _ => None,
    }
}

fn redis(settings: &PostHogSettings, target: Target) -> &crate::redis::Gateway {
    match target {
        Target::Quota => &settings.redis.quota,
        Target::Definitions => &settings.redis.definitions,
    }
}
