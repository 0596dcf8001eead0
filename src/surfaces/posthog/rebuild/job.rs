//! Tells PostHog that payloads are missing: the job.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Signal, SignalQueue, first, forget, slots};
use crate::recent::OncePerSecond;
use crate::redis::{Failure, Gateway, Purpose, Reply};
use crate::shared::{BUSY, Errand, Finding, Held, IDLE, Job, Machinery, Scope, Store, Table};
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most signals of one tick, and most that are under way.
const SIGNALS_PER_TICK: usize = 8;

const LARGEST_REPLY: usize = 4 << 10;

const TOPIC: &str = "rebuild";

/// The signals of one worker.
pub struct RebuildJob {
    signal: Signal,
    repeat_after: Duration,
    gateway: Gateway,
    slots: Table,
    waiting: SignalQueue,
    /// What is under way: its number, the team, and when that was claimed.
    claimed: VecDeque<(u64, Tenant, Monotonic)>,
    signals: u64,
    /// How many teams were looked at in the tick of this time.
    looked: (Monotonic, usize),
    logged: OncePerSecond,
    findings: Vec<Finding>,
}

impl RebuildJob {
    /// Nothing signalled yet.
    pub fn new(settings: &PostHogSettings, scope: &Scope) -> Self {
        Self {
            signal: settings.rebuild.signal.clone(),
            repeat_after: settings.rebuild.repeat_after,
            gateway: settings.redis.definitions.clone(),
            slots: slots(scope),
            waiting: SignalQueue::default(),
            claimed: VecDeque::new(),
            signals: 0,
            looked: (Monotonic::default(), 0),
            logged: OncePerSecond::default(),
            findings: Vec::new(),
        }
    }

    /// Asks for a rebuild of a team's payload, with the next tick. Without room the next miss of this team signals.
    pub fn push(&mut self, team: Tenant) {
        self.waiting.push(team);
    }

    /// The command for a team that waits; `None` when it is not to be signalled now.
    fn signal<S: Store, C>(
        &mut self,
        team: Tenant,
        machinery: &Machinery<'_, S, C>,
    ) -> Option<Errand> {
        let Machinery { store, now, .. } = *machinery;
        let ambient = machinery.ambient;
        if self.signal == Signal::Off {
            return None;
        }
        let unix = ambient.unix()?;
        let (task, delivery) = (ambient.random_bytes(), ambient.random_bytes());
        let command = self
            .signal
            .command(team, unix.as_millis(), task, delivery)?;
        if first(store, &self.slots, team, now, self.repeat_after) != Ok(true) {
            return None;
        }
        self.signals += 1;
        self.claimed.push_back((self.signals, team, now));
        Some(Errand {
            gateway: self.gateway.clone(),
            command,
            largest_reply: LARGEST_REPLY,
            purpose: Purpose::Rebuild,
            key: self.signals,
        })
    }
}

impl<S: Store, C> Job<S, C> for RebuildJob {
    fn parallel(&self) -> usize {
        SIGNALS_PER_TICK
    }

    fn tick(&mut self, _: Held, machinery: &mut Machinery<'_, S, C>) -> Option<Errand> {
        if self.looked.0 != machinery.now {
            self.looked = (machinery.now, 0);
        }
        while self.looked.1 < SIGNALS_PER_TICK {
            let team = self.waiting.pop()?;
            self.looked.1 += 1;
            if let Some(errand) = self.signal(team, machinery) {
                return Some(errand);
            }
        }
        None
    }

    fn reply(
        &mut self,
        key: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, C>,
    ) {
        let place = self.claimed.iter().position(|(signal, ..)| *signal == key);
        let Some((_, team, claimed_at)) = place.and_then(|place| self.claimed.remove(place)) else {
            return;
        };
        let Err(failure) = reply else { return };
        // What was not even sent says the callouts' counter.
        if failure != Failure::NotSent && self.logged.admits(machinery.now) {
            let line = format!("team {team}: its rebuild could not be asked for: {failure}");
            self.findings.push(Finding::Settled(TOPIC));
            self.findings.push(Finding::Trouble(TOPIC, line));
        }
        // What Redis refuses once it refuses again, with every miss.
        if !failure.is_refusal() {
            // The next miss signals again; if shared data fails, that is after `repeat_after`.
            let _ = forget(machinery.store, &self.slots, team, claimed_at);
        }
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn due_in(&self, _: Monotonic) -> Duration {
        if self.waiting.is_empty() { IDLE } else { BUSY }
    }

    fn stop(&mut self, _: &mut Machinery<'_, S, C>) {
        self.claimed.clear();
    }
}
