//! Counts billed answers, and sends the counts.

use std::time::Duration;

use super::Duty;
use crate::host::abi;
use crate::host::callouts::{self, Callout};
use crate::host::logger::LastProblem;
use crate::host::random;
use crate::host::recorder::Recorder;
use crate::host::registry;
use crate::host::store::SharedData;
use crate::metrics::{Metric, Purpose};
use crate::redis::Failure;
use crate::shared::Scope;
use crate::shared::lease::{self, Hold};
use crate::surfaces::posthog::billing::{self, Client};
use crate::surfaces::posthog::request::Request;
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};
use crate::usage;
use crate::usage::{Outbox, Slots, State, Tally, Unstored};

/// The script answers which batches are in: some 20 bytes for each of a command.
const LARGEST_REPLY: usize = 64 << 10;

/// For how long the wall clock is told from the monotonic one before it is read again: it may step.
const UNIX_AGE: Duration = Duration::from_secs(1);

/// How often a root context that ends tries to store what it counted.
const LAST_TRIES: usize = 16;

pub(super) struct Sending {
    owner: u64,
    slots: Slots,
    unstored: Unstored,
    outbox: Outbox,
    sent: Option<Callout>,
    holds: bool,
    /// The last attempt to store what waits stored nothing.
    stuck: bool,
    /// The wall clock, as it was read at this time.
    unix: (UnixMillis, Monotonic),
    problem: LastProblem<Failure>,
}

impl Sending {
    pub(super) fn new(settings: &PostHogSettings, scope: &Scope, owner: u64) -> Self {
        let slots = Slots::new(scope.as_str());
        Self {
            owner,
            unstored: Unstored::default(),
            outbox: Outbox::new(
                slots.clone(),
                &billing::KEYS,
                &settings.snapshot.prefix,
                settings.usage.flush_interval,
                random::bytes(),
            ),
            slots,
            sent: None,
            holds: false,
            stuck: false,
            unix: Default::default(),
            problem: LastProblem::default(),
        }
    }

    pub(super) fn count(
        &mut self,
        team: Tenant,
        request: &Request<'_>,
        now: Monotonic,
        recorder: &mut Recorder,
    ) {
        let (unix, at) = self.unix;
        let never = unix == UnixMillis::default();
        // When the clock fails, it goes on from the last time that it did not.
        if (never || now.since(at) >= UNIX_AGE)
            && let Ok(unix) = abi::unix()
        {
            self.unix = (unix, now);
        }
        let (unix, at) = self.unix;
        let unix = unix.plus(now.since(at));
        let headers = &request.client;
        let client = Client::of(headers.user_agent.as_deref(), headers.sec_fetch);
        let mut tally = Tally::default();
        let counter = billing::request(team, client, unix);
        self.unstored
            .count(&SharedData, &self.slots, counter, &mut tally);
        record(&tally, recorder);
    }

    pub(super) fn is_busy(&self) -> bool {
        // What cannot be stored now is tried again with each slow tick.
        (!self.unstored.is_empty() && !self.stuck) || (self.holds && self.outbox.is_busy())
    }

    pub(super) fn tick(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        let mut tally = Tally::default();
        self.unstored.retry(&SharedData, &self.slots, &mut tally);
        self.stuck = !self.unstored.is_empty() && tally == Tally::default();
        self.holds = duty.settings.usage.enabled && self.may_send(&duty);
        // A batch may be sent twice without harm: the lease only spares Redis the second time.
        if self.holds
            && let Some(command) = self.outbox.tick(&SharedData, duty.now, &mut tally)
        {
            match callouts::send(&duty.settings.redis.usage, &command) {
                Ok(callout) => self.sent = Some(callout),
                Err(failure) => {
                    recorder.count(Metric::Callout(Purpose::Usage, Err(failure)));
                    let _ = self.outbox.reply(&SharedData, Err(failure), &mut tally);
                }
            }
        }
        record(&tally, recorder);
    }

    pub(super) fn on_reply(
        &mut self,
        token: u32,
        body_size: usize,
        duty: Duty<'_>,
        recorder: &mut Recorder,
    ) -> bool {
        let Some(callout) = self.sent.take_if(|sent| sent.token == token) else {
            return false;
        };
        let received = callouts::receive(body_size, LARGEST_REPLY);
        let reply = received.reply(&duty.settings.redis.usage, &callout);
        recorder.count(callouts::metric(Purpose::Usage, &reply));
        let mut tally = Tally::default();
        match self.outbox.reply(&SharedData, reply, &mut tally) {
            Ok(()) => self.problem.clear(),
            Err(failure) if self.problem.is_new(failure) => {
                log::warn!("usage is not taken: {failure}");
            }
            Err(_) => {}
        }
        record(&tally, recorder);
        true
    }

    pub(super) fn stop(&mut self, duty: Duty<'_>, recorder: &mut Recorder) {
        let mut tally = Tally::default();
        for _ in 0..LAST_TRIES {
            if !self.unstored.is_empty() {
                self.unstored.retry(&SharedData, &self.slots, &mut tally);
            }
        }
        record(&tally, recorder);
        self.release(&usage::lease_name(&duty.scopes.usage), duty.now);
    }

    fn may_send(&mut self, duty: &Duty<'_>) -> bool {
        let name = usage::lease_name(&duty.scopes.usage);
        if registry::is_superseded(duty.context, duty.scopes.usage.as_str()) {
            if self.holds {
                self.release(&name, duty.now);
            }
            return false;
        }
        let hold = lease::acquire(
            &SharedData,
            &name,
            self.owner,
            duty.serves_requests,
            duty.now,
        );
        matches!(hold, Ok(Hold::Taken | Hold::Renewed))
    }

    fn release(&self, name: &str, now: Monotonic) {
        // If it cannot be released, it runs out.
        let _ = lease::release(&SharedData, name, self.owner, now);
    }
}

fn record(tally: &Tally, recorder: &mut Recorder) {
    for state in State::ALL {
        recorder.count_many(Metric::Usage(state), tally.get(state));
    }
}
