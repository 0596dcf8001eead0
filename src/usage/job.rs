//! The job of the ledger: it stores what could not be stored at once, and sends what was counted.

use std::time::Duration;

use super::{Counter, Outbox, Slots, State, Tally, Unstored, UsageKeys, lease_name};
use crate::redis::{Failure, Gateway, Purpose, Reply};
use crate::shared::{BUSY, Errand, Finding, Held, Job, Machinery, Scope, Store};
use crate::time::{Monotonic, UnixMillis};

/// The script answers which batches are in: some 20 bytes for each of a command.
const LARGEST_REPLY: usize = 64 << 10;

/// For how long the wall clock is told from the monotonic one before it is read again: it may step.
const UNIX_AGE: Duration = Duration::from_secs(1);

/// How often a worker that ends tries to store what it counted.
const LAST_TRIES: usize = 16;

const TOPIC: &str = "usage";

/// The counting and sending of one worker.
pub struct UsageJob {
    lease: String,
    gateway: Gateway,
    flush_interval: Duration,
    slots: Slots,
    unstored: Unstored,
    outbox: Outbox,
    holds: bool,
    /// The last attempt to store what waits stored nothing.
    stuck: bool,
    /// The wall clock, as it was read at this time.
    unix: (UnixMillis, Monotonic),
    findings: Vec<Finding>,
}

impl UsageJob {
    /// Nothing counted yet, in slots of this scope. `proposal`: as [`Outbox::new`] says.
    pub fn new(
        scope: &Scope,
        slots: Slots,
        keys: &'static UsageKeys,
        gateway: Gateway,
        prefix: &str,
        flush_interval: Duration,
        proposal: [u8; 16],
    ) -> Self {
        Self {
            lease: lease_name(scope),
            gateway,
            flush_interval,
            unstored: Unstored::default(),
            outbox: Outbox::new(slots.clone(), keys, prefix, flush_interval, proposal),
            slots,
            holds: false,
            stuck: false,
            unix: Default::default(),
            findings: Vec::new(),
        }
    }

    /// The wall clock. When it fails, it goes on from the last time that it did not.
    pub fn unix<S, C>(&mut self, machinery: &Machinery<'_, S, C>) -> UnixMillis {
        let now = machinery.now;
        let (unix, at) = self.unix;
        let never = unix == UnixMillis::default();
        if (never || now.since(at) >= UNIX_AGE)
            && let Some(unix) = machinery.ambient.unix()
        {
            self.unix = (unix, now);
        }
        let (unix, at) = self.unix;
        unix.plus(now.since(at))
    }

    /// Counts a request.
    pub fn count<S: Store, C: From<State>>(
        &mut self,
        counter: Counter,
        machinery: &mut Machinery<'_, S, C>,
    ) {
        let mut tally = Tally::default();
        self.unstored
            .count(machinery.store, &self.slots, counter, &mut tally);
        record(&tally, machinery);
    }
}

impl<S: Store, C: From<State>> Job<S, C> for UsageJob {
    fn lease(&self) -> Option<&str> {
        Some(&self.lease)
    }

    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, C>) -> Option<Errand> {
        let store = machinery.store;
        let mut tally = Tally::default();
        self.unstored.retry(store, &self.slots, &mut tally);
        self.stuck = !self.unstored.is_empty() && tally == Tally::default();
        self.holds = held == Held::Yes;
        // A batch may be sent twice without harm: the lease only spares Redis the second time.
        let command = match self.holds {
            true => self.outbox.tick(store, machinery.now, &mut tally),
            false => None,
        };
        record(&tally, machinery);
        Some(Errand {
            gateway: self.gateway.clone(),
            command: command?,
            largest_reply: LARGEST_REPLY,
            purpose: Purpose::Usage,
            key: 0,
        })
    }

    fn reply(
        &mut self,
        _: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, C>,
    ) {
        // What was not even sent says the callouts' counter.
        let was_sent = !matches!(reply, Err(Failure::NotSent));
        let mut tally = Tally::default();
        match self.outbox.reply(machinery.store, reply, &mut tally) {
            Ok(()) => self.findings.push(Finding::Settled(TOPIC)),
            Err(failure) if was_sent => {
                let line = format!("usage is not taken: {failure}");
                self.findings.push(Finding::Trouble(TOPIC, line));
            }
            Err(_) => {}
        }
        record(&tally, machinery);
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn due_in(&self, _: Monotonic) -> Duration {
        // What cannot be stored now is tried again with each slow tick.
        let stores = !self.unstored.is_empty() && !self.stuck;
        if stores || (self.holds && self.outbox.is_busy()) {
            BUSY
        } else {
            self.flush_interval
        }
    }

    fn stop(&mut self, machinery: &mut Machinery<'_, S, C>) {
        let mut tally = Tally::default();
        for _ in 0..LAST_TRIES {
            if !self.unstored.is_empty() {
                self.unstored
                    .retry(machinery.store, &self.slots, &mut tally);
            }
        }
        record(&tally, machinery);
        self.holds = false;
    }
}

fn record<S, C: From<State>>(tally: &Tally, machinery: &mut Machinery<'_, S, C>) {
    for state in State::ALL {
        let times = tally.get(state);
        if times > 0 {
            machinery.count_many(state, times);
        }
    }
}
