//! Tells PostHog that payloads are missing.

use std::collections::HashMap;

use super::Duty;
use crate::host::abi;
use crate::host::callouts::{self, Callout};
use crate::host::logger::Pace;
use crate::host::random;
use crate::host::recorder::Recorder;
use crate::host::store::SharedData;
use crate::metrics::{Metric, Purpose};
use crate::redis::Failure;
use crate::shared::{Scope, Table};
use crate::surfaces::posthog::rebuild::{self, Signal, SignalQueue};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most signals of one tick, and most that are under way.
const SIGNALS_PER_TICK: usize = 8;

const LARGEST_REPLY: usize = 4 << 10;

pub(super) struct Signalling {
    slots: Table,
    queue: SignalQueue,
    sent: HashMap<u32, (Callout, Tenant, Monotonic)>,
    logged: Pace,
}

impl Signalling {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            slots: rebuild::slots(scope),
            queue: SignalQueue::default(),
            sent: HashMap::new(),
            logged: Pace::default(),
        }
    }

    pub(super) fn push(&mut self, team: Tenant) {
        // Without room the next miss of this team signals.
        self.queue.push(team);
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn tick(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        // A reply that never comes must not hold up others for good; timeouts are 30 s at most.
        let deadline = std::time::Duration::from_secs(35);
        self.sent
            .retain(|_, (_, _, at)| duty.now.since(*at) < deadline);
        for _ in self.sent.len()..SIGNALS_PER_TICK {
            let Some(team) = self.queue.pop() else {
                return;
            };
            self.signal(team, duty, recorder);
        }
    }

    fn signal(&mut self, team: Tenant, duty: Duty<'_>, recorder: &mut Recorder) {
        let rebuild = &duty.settings.rebuild;
        if rebuild.signal == Signal::Off {
            return;
        }
        let Ok(unix) = abi::unix() else {
            return;
        };
        let first = rebuild::first(
            &SharedData,
            &self.slots,
            team,
            duty.now,
            rebuild.repeat_after,
        );
        if first != Ok(true) {
            return;
        }
        let command =
            rebuild
                .signal
                .command(team, unix.as_millis(), random::bytes(), random::bytes());
        let sent = match &command {
            Some(command) => callouts::send(&duty.settings.redis.definitions, command),
            None => Err(Failure::NotSent),
        };
        match sent {
            Ok(callout) => {
                self.sent.insert(callout.token, (callout, team, duty.now));
            }
            Err(failure) => {
                recorder.count(Metric::Callout(Purpose::Rebuild, Err(failure)));
                self.forget(team, duty.now);
            }
        }
    }

    pub(super) fn on_reply(
        &mut self,
        token: u32,
        body_size: usize,
        duty: Duty<'_>,
        recorder: &mut Recorder,
    ) -> bool {
        let Some((callout, team, claimed_at)) = self.sent.remove(&token) else {
            return false;
        };
        let received = callouts::receive(body_size, LARGEST_REPLY);
        let reply = received.reply(&duty.settings.redis.definitions, &callout);
        recorder.count(callouts::metric(Purpose::Rebuild, &reply));
        if let Err(failure) = reply {
            if self.logged.admits(duty.now) {
                log::warn!("team {team}: its rebuild could not be asked for: {failure}");
            }
            // What Redis refuses once it refuses again, with every miss.
            if !failure.is_refusal() {
                self.forget(team, claimed_at);
            }
        }
        true
    }

    /// The next miss signals again.
    fn forget(&self, team: Tenant, claimed_at: Monotonic) {
        // If shared data fails, that is after `repeat_after`.
        let _ = rebuild::forget(&SharedData, &self.slots, team, claimed_at);
    }
}
