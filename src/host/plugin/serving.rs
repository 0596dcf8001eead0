//! From a request to its answer: decide, wait for a shared callout, answer.

use std::time::Duration;

use super::{BACKLOG_TICK, FAST_TICK, Plugin};
use crate::definitions::confirmed::{self, Confirmed};
use crate::definitions::{Need, Outcome};
use crate::directory::TeamId;
use crate::host::abi;
use crate::host::backlog::{ANSWERS_PER_CALLBACK, Batch, Content};
use crate::host::callouts;
use crate::host::flights::{Flight, Join, MAX_WAITERS};
use crate::host::respond::respond;
use crate::metrics::{Metric, Purpose};
use crate::pipeline::{self, Context, Fetch, Observed, Step};
use crate::redis::Failure;
use crate::reply::Why;
use crate::request::{FORWARD_REASON_HEADER, Request};
use crate::snapshot::status::{Freshness, Status};
use crate::time::Monotonic;

/// How often a problem with a payload is logged at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Most callouts of one team at a time that differ in the ETag which the client holds.
const NEEDS_PER_TEAM: usize = 8;

/// Most callouts that one tick sends again.
const SENT_AGAIN_PER_TICK: usize = 16;

/// Room for the framing around a payload in a callout's reply.
const FRAMING: usize = 1 << 10;

impl Plugin {
    /// Decides a new request. `true` pauses it: it was answered, or it waits.
    pub fn on_request(&mut self, stream: u32, request: Request) -> bool {
        self.serves_requests = true;
        let now = self.now();
        let freshness = self.freshness(now);
        let mut observed = Observed::default();
        let mut step = self.decide(&request, freshness, now, &mut observed);
        if is_refusal(&step) {
            step = self.decide_again(&request, now, &mut observed);
        }
        self.observe(&observed);
        match step {
            Step::Fetch(fetch) => self.fetch(stream, request, fetch, now),
            step => self.act(step, Pending::No),
        }
    }

    fn decide<'a>(
        &self,
        request: &'a Request,
        freshness: Freshness,
        now: Monotonic,
        observed: &mut Observed,
    ) -> Step<'a> {
        let context = Context {
            settings: &self.settings,
            keys: &self.keys,
            store: &self.store,
            freshness,
            now,
        };
        *observed = Observed::default();
        pipeline::start(request, &context, observed)
    }

    /// Looks again before a refusal is sent, because SDKs drop their flags on 401: what this worker knows of
    /// the snapshot may be a tick old, and its records may be changing between two look-ups.
    fn decide_again<'a>(
        &self,
        request: &'a Request,
        now: Monotonic,
        observed: &mut Observed,
    ) -> Step<'a> {
        let read = || Status::read(&self.store, &self.keys);
        // Without a clock nothing is known to be fresh.
        let (Ok(_), Ok(before)) = (abi::monotonic(), read()) else {
            return pipeline::undecided(request, &self.settings, Why::SharedData);
        };
        let freshness = before.freshness(now, &self.settings.snapshot);
        let step = self.decide(request, freshness, now, observed);
        if !is_refusal(&step) {
            return step;
        }
        match read() {
            Ok(after) if after.names_the_same_records_as(&before) => step,
            Ok(_) => pipeline::undecided(request, &self.settings, Why::SnapshotAging),
            Err(_) => pipeline::undecided(request, &self.settings, Why::SharedData),
        }
    }

    /// Answers a request whose headers could not even be read.
    pub fn on_unreadable_request(&mut self) -> bool {
        let request = Request::parse([]);
        let step = pipeline::undecided(&request, &self.settings, Why::SharedData);
        self.act(step, Pending::No)
    }

    /// Whether a request waits for a callout.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.flights.is_waiting(stream) || self.backlog.is_waiting(stream)
    }

    /// A stream is gone.
    pub fn on_stream_done(&mut self, stream: u32) {
        self.backlog.leave(stream);
        self.flights.leave(stream);
    }

    /// A callout was answered. `context` is the one it is delivered to.
    pub fn on_callout(&mut self, context: u32, token: u32, body_size: usize) {
        if self.loading.awaits(token) {
            self.loading
                .on_reply(&self.settings, body_size, &mut self.recorder);
            if self.loading.is_busy() {
                self.set_tick(FAST_TICK);
            }
        } else if let Some(flight) = self.flights.land(token) {
            self.on_definitions_reply(flight, body_size);
            // The host goes on in the context that it called.
            let _ = abi::set_effective_context(context);
        }
    }

    /// Sends again what was lost with its leader. A few at a time: those callouts are still under way, and the
    /// circuit breaker counts both. What Envoy does not take now stays for the next tick, until it is overdue.
    pub(super) fn send_grounded(&mut self, now: Monotonic) {
        for fetch in self
            .flights
            .grounded()
            .into_iter()
            .take(SENT_AGAIN_PER_TICK)
        {
            let need: Need = fetch.need;
            let command = need.command(&self.settings.definitions);
            match callouts::send(&self.settings.redis, &command) {
                Ok(token) => self.flights.sent(&need, token, self.id, now),
                Err(failure) => {
                    self.recorder
                        .count(Metric::Callout(Purpose::Definitions, Err(failure)));
                    return;
                }
            }
        }
    }

    /// Gives the next answers that are due. Only once in a callback: see [`super::backlog`].
    pub(super) fn answer_due(&mut self) {
        let mut left = ANSWERS_PER_CALLBACK;
        while left > 0
            && let Some(mut batch) = self.backlog.pop()
        {
            let rest = batch.waiters.split_off(left.min(batch.waiters.len()));
            left -= batch.waiters.len();
            self.answer(&batch);
            batch.waiters = rest;
            self.backlog.put_back(batch);
        }
        if !self.backlog.is_empty() {
            self.set_tick(BACKLOG_TICK);
        }
    }

    fn fetch(&mut self, stream: u32, request: Request, mut fetch: Fetch, now: Monotonic) -> bool {
        if self.flights.is_full(&request) || self.backlog.len() >= MAX_WAITERS {
            let step = pipeline::undecided(&request, &self.settings, Why::Overloaded);
            return self.act(step, Pending::No);
        }
        // Each ETag that clients hold is a need of its own. One team must not take all callouts with them.
        if self.flights.of_team(fetch.need.team) >= NEEDS_PER_TEAM {
            fetch.need.held = None;
        }
        // Time for one callout and for a second one, after a leader left.
        let patience = self.settings.redis.timeout * 2 + Duration::from_millis(100);
        let need = fetch.need.clone();
        if self.flights.join(stream, request, fetch, now, patience) == Join::Lead {
            let command = need.command(&self.settings.definitions);
            // As the root's callout Envoy delivers it in any case, and the SDK forgets its token.
            let _ = abi::set_effective_context(self.id);
            let sent = callouts::send(&self.settings.redis, &command);
            let _ = abi::set_effective_context(stream);
            match sent {
                Ok(token) => self.flights.sent(&need, token, stream, now),
                Err(failure) => {
                    self.recorder
                        .count(Metric::Callout(Purpose::Definitions, Err(failure)));
                    // Nobody else is aboard yet.
                    let alone = self.flights.take(&need);
                    let waiter = alone.and_then(|mut flight| flight.waiters.pop());
                    return waiter.is_some_and(|waiter| {
                        self.resume(&waiter.request, &Outcome::Failed(failure), Pending::No)
                    });
                }
            }
        }
        if self.backlog.is_empty() {
            self.set_tick(FAST_TICK);
        }
        true
    }

    fn on_definitions_reply(&mut self, flight: Flight, body_size: usize) {
        let most = usize::try_from(self.settings.definitions.max_bytes).unwrap_or(usize::MAX);
        let received = callouts::receive(body_size, most.saturating_add(FRAMING));
        let reply = received.reply(&self.settings.redis);
        self.recorder
            .count(callouts::metric(Purpose::Definitions, &reply));
        let outcome = Outcome::of(reply, &self.settings.definitions);
        self.remember(&flight, &outcome);
        self.report(flight.fetch.need.team, &outcome);
        self.backlog
            .push(Content::Received(received), flight.waiters);
        self.answer_due();
    }

    fn answer(&mut self, batch: &Batch) {
        let outcome = match &batch.content {
            Content::Received(received) => {
                let reply = received.reply(&self.settings.redis);
                Some(Outcome::of(reply, &self.settings.definitions))
            }
            Content::Overdue => None,
        };
        for waiter in &batch.waiters {
            // A stream that is gone leaves nobody to answer.
            let here = self.backlog.leave(waiter.stream);
            if !here || abi::set_effective_context(waiter.stream).is_err() {
                continue;
            }
            let request = &waiter.request;
            match &outcome {
                Some(outcome) => self.resume(request, outcome, Pending::Yes),
                None => {
                    let step = pipeline::undecided(request, &self.settings, Why::Timeout);
                    self.act(step, Pending::Yes)
                }
            };
        }
    }

    /// Goes on with a request whose read came back, in the effective context.
    fn resume(&mut self, request: &Request, outcome: &Outcome<'_>, pending: Pending) -> bool {
        let mut observed = Observed::default();
        let step = pipeline::resume(request, &self.settings, outcome, &mut observed);
        self.observe(&observed);
        self.act(step, pending)
    }

    /// Keeps the ETag that a callout brought, as of when it was sent.
    fn remember(&mut self, flight: &Flight, outcome: &Outcome<'_>) {
        let (Outcome::Same(etag)
        | Outcome::Full {
            etag: Some(etag), ..
        }) = outcome
        else {
            return;
        };
        let confirmed = Confirmed {
            etag: etag.clone(),
            at: flight.sent_at,
        };
        let team = flight.fetch.need.team;
        let before = flight.fetch.known.as_ref();
        // If shared data fails, the next request asks again.
        let _ = confirmed::store(&self.store, &self.keys, team, before, &confirmed);
    }

    /// Logs what an operator has to look at, once a second at most: SDKs ask again and again.
    fn report(&mut self, team: TeamId, outcome: &Outcome<'_>) {
        let problem = match outcome {
            Outcome::Undecodable => "the payload is not plain JSON".to_owned(),
            Outcome::Failed(
                failure @ (Failure::TooBig | Failure::Refused | Failure::Malformed),
            ) => failure.to_string(),
            _ => return,
        };
        let recent = |at| self.now.since(at) < REPORT_INTERVAL;
        if !self.reported_at.is_some_and(recent) {
            self.reported_at = Some(self.now);
            log::warn!("team {team}: {problem}");
        }
    }

    /// Carries a decision out in the effective context. `true` when the request stays paused.
    fn act(&mut self, step: Step<'_>, pending: Pending) -> bool {
        match step {
            Step::Reply(reply) => match respond(&reply) {
                Ok(()) => {
                    self.recorder.count(Metric::Answer(reply.answer));
                    true
                }
                Err(status) => {
                    log::error!("an answer could not be sent: {status}");
                    false
                }
            },
            Step::Forward(why) => {
                self.recorder.count(Metric::Forwarded(why));
                let _ = abi::set_request_header(FORWARD_REASON_HEADER, why.label());
                if pending == Pending::Yes {
                    let _ = abi::continue_request();
                }
                false
            }
            // Only `start` asks for a read, and it is carried out there.
            Step::Fetch(_) => false,
        }
    }

    fn observe(&mut self, observed: &Observed) {
        let Observed { auth, etag, cache } = observed;
        if let Some(method) = auth {
            self.recorder.count(Metric::Auth(*method));
        }
        if let Some(result) = etag {
            self.recorder.count(Metric::ETag(*result));
        }
        if let Some(result) = cache {
            self.recorder.count(Metric::Cache(*result));
        }
    }
}

/// Whether this answer could make an SDK drop its flags, and follows from what the snapshot says.
fn is_refusal(step: &Step<'_>) -> bool {
    matches!(step, Step::Reply(reply) if reply.answer.rests_on_snapshot())
}

/// Whether a request was paused by an earlier callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    No,
    Yes,
}
