//! What belongs to one plugin configuration in one VM: settings, loader, waiting requests, counts.

use std::time::Duration;

use super::abi;
use super::callouts;
use super::flights::{Flight, Flights, Join, Waiter};
use super::loading::Loading;
use super::recorder::Recorder;
use super::registry;
use super::respond::respond;
use super::store::SharedData;
use crate::config::{Role, Settings};
use crate::definitions::confirmed::{self, Confirmed};
use crate::definitions::{Need, Outcome};
use crate::directory::TeamId;
use crate::metrics::{Metric, Purpose};
use crate::pipeline::{self, Context, Fetch, Observed, Step};
use crate::redis::Failure;
use crate::reply::{Reply, Why};
use crate::request::{FORWARD_REASON_HEADER, Request};
use crate::shared::Keys;
use crate::snapshot::status::{Freshness, Status};
use crate::time::Monotonic;

/// Tick while somebody waits or a load is under way.
const FAST_TICK: Duration = Duration::from_millis(10);

/// Tick until the first snapshot is there.
const START_TICK: Duration = Duration::from_millis(100);

/// Longest tick: it renews the lease and looks for a new status.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// How long what is known of the snapshot may be old before a tick reads it again.
const STATUS_AGE: Duration = Duration::from_millis(200);

/// How often Envoy's counters are brought up to date.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// Room for the framing around a payload in a callout's reply.
const FRAMING: usize = 1 << 10;

/// What a valid configuration brings to life.
pub struct Plugin {
    id: u32,
    /// The configuration.
    pub settings: Settings,
    /// Names in shared data.
    pub keys: Keys,
    /// Shared data.
    pub store: SharedData,
    status: Status,
    status_read_at: Option<Monotonic>,
    loading: Loading,
    flights: Flights,
    recorder: Recorder,
    started_at: Option<Monotonic>,
    flushed_at: Monotonic,
    tick: Option<Duration>,
    serves_requests: bool,
    now: Monotonic,
}

impl Plugin {
    /// A plugin that has done nothing yet.
    pub fn new(id: u32, settings: Settings) -> Self {
        Self {
            id,
            keys: Keys::new(&settings),
            store: SharedData,
            status: Status::default(),
            status_read_at: None,
            loading: Loading::new(&settings),
            flights: Flights::default(),
            recorder: Recorder::default(),
            started_at: None,
            flushed_at: Monotonic::default(),
            tick: None,
            serves_requests: false,
            now: Monotonic::default(),
            settings,
        }
    }

    /// Defines the metrics and begins to tick.
    pub fn start(&mut self) -> Result<(), abi::Status> {
        self.recorder.define()?;
        self.set_tick(START_TICK);
        Ok(())
    }

    /// The time; when the clock fails, the last time that it did not.
    pub fn now(&mut self) -> Monotonic {
        if let Ok(now) = abi::monotonic() {
            self.now = now;
        }
        self.now
    }

    /// What is known of the snapshot. Without a live one, shared data is asked each time: it may have come.
    fn freshness(&mut self, now: Monotonic) -> Freshness {
        if self.status.live.is_none() {
            self.read_status(now);
        }
        self.status.freshness(now, &self.settings.snapshot)
    }

    fn read_status(&mut self, now: Monotonic) {
        if let Ok(status) = Status::read(&self.store, &self.keys) {
            self.status = status;
            self.status_read_at = Some(now);
        }
    }

    /// Decides a new request. `true` pauses it: it was answered, or it waits.
    pub fn on_request(&mut self, stream: u32, request: Request) -> bool {
        self.serves_requests = true;
        let now = self.now();
        let freshness = self.freshness(now);
        let mut observed = Observed::default();
        let context = Context {
            settings: &self.settings,
            keys: &self.keys,
            store: &self.store,
            freshness,
            now,
        };
        let fetch = match pipeline::start(&request, &context, &mut observed) {
            Step::Fetch(fetch) => fetch,
            Step::Reply(reply) if reply.answer.rests_on_snapshot() => {
                let step = self.refuse(&request, reply, now);
                self.observe(&observed);
                return self.act(step, Pending::No);
            }
            step => {
                self.observe(&observed);
                return self.act(step, Pending::No);
            }
        };
        self.observe(&observed);
        self.fetch(stream, request, fetch, now)
    }

    /// Looks again before a refusal is sent: what this worker knows of the snapshot may be a tick old, and
    /// SDKs drop their flags on 401.
    fn refuse<'a>(&self, request: &'a Request, reply: Reply<'a>, now: Monotonic) -> Step<'a> {
        let why = match Status::read(&self.store, &self.keys) {
            Ok(status) => match status.freshness(now, &self.settings.snapshot) {
                Freshness::Current => return Step::Reply(reply),
                Freshness::Aging => Why::SnapshotAging,
                Freshness::Expired => Why::SnapshotExpired,
                Freshness::Missing => Why::SnapshotMissing,
            },
            Err(_) => Why::SharedData,
        };
        pipeline::undecided(request, &self.settings, why)
    }

    /// Answers a request whose headers could not even be read.
    pub fn on_unreadable_request(&mut self) -> bool {
        let request = Request::parse([]);
        let step = pipeline::undecided(&request, &self.settings, Why::SharedData);
        self.act(step, Pending::No)
    }

    fn fetch(&mut self, stream: u32, request: Request, fetch: Fetch, now: Monotonic) -> bool {
        // Time for one callout and for a second one, after a leader left.
        let patience = self.settings.redis.timeout * 2 + Duration::from_millis(100);
        let need = fetch.need.clone();
        let join = self
            .flights
            .join(stream, request.clone(), fetch, now, patience);
        match join {
            Join::Full => {
                let step = pipeline::undecided(&request, &self.settings, Why::Overloaded);
                return self.act(step, Pending::No);
            }
            Join::Lead => {
                let command = need.command(&self.settings.definitions);
                match callouts::send(&self.settings.redis, &command) {
                    Ok(token) => self.flights.sent(&need, token, stream, now),
                    Err(failure) => {
                        self.flights.leave(stream);
                        self.recorder
                            .count(Metric::Callout(Purpose::Definitions, Err(failure)));
                        let mut observed = Observed::default();
                        let outcome = Outcome::Failed(failure);
                        let step =
                            pipeline::resume(&request, &self.settings, &outcome, &mut observed);
                        self.observe(&observed);
                        return self.act(step, Pending::No);
                    }
                }
            }
            Join::Aboard => {}
        }
        self.set_tick(FAST_TICK);
        true
    }

    /// Whether a request waits for a callout.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.flights.is_waiting(stream)
    }

    /// A stream is gone.
    pub fn on_stream_done(&mut self, stream: u32) {
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
            self.on_definitions_reply(&flight, body_size);
            // The host goes on in the context that it called.
            let _ = abi::set_effective_context(context);
        }
    }

    fn on_definitions_reply(&mut self, flight: &Flight, body_size: usize) {
        let most = usize::try_from(self.settings.definitions.max_bytes).unwrap_or(usize::MAX);
        let received = callouts::receive(body_size, most.saturating_add(FRAMING));
        let reply = received.reply(&self.settings.redis);
        let result = reply.as_ref().map(drop).map_err(|failure| *failure);
        self.recorder
            .count(Metric::Callout(Purpose::Definitions, result));
        let outcome = Outcome::of(reply, &self.settings.definitions);
        self.remember(flight, &outcome);
        self.report(flight.fetch.need.team, &outcome);
        self.answer_all(&flight.waiters, &outcome);
    }

    fn answer_all(&mut self, waiters: &[Waiter], outcome: &Outcome<'_>) {
        for waiter in waiters {
            // A stream that is gone leaves nobody to answer.
            if abi::set_effective_context(waiter.stream).is_ok() {
                let mut observed = Observed::default();
                let request = &waiter.request;
                let step = pipeline::resume(request, &self.settings, outcome, &mut observed);
                self.observe(&observed);
                self.act(step, Pending::Yes);
            }
        }
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

    fn report(&self, team: TeamId, outcome: &Outcome<'_>) {
        match outcome {
            Outcome::Undecodable => log::warn!("team {team}: the payload is not plain JSON"),
            Outcome::Failed(
                failure @ (Failure::TooBig | Failure::Refused | Failure::Malformed),
            ) => {
                log::warn!("team {team}: {failure}");
            }
            _ => {}
        }
    }

    /// Regular work.
    pub fn on_tick(&mut self) {
        if self.settings.role != Role::Filter {
            return;
        }
        let now = self.now();
        self.answer_overdue(now);
        self.send_grounded(now);
        self.load(now);
        let old = self
            .status_read_at
            .is_none_or(|read_at| now.since(read_at) >= STATUS_AGE);
        if old {
            self.read_status(now);
        }
        if now.since(self.flushed_at) >= FLUSH_INTERVAL {
            self.flushed_at = now;
            self.flush();
        }
        self.set_tick(if self.loading.is_busy() || !self.flights.is_empty() {
            FAST_TICK
        } else if self.status.live.is_none() {
            START_TICK
        } else {
            SLOW_TICK.min(self.settings.snapshot.poll_interval)
        });
    }

    fn answer_overdue(&mut self, now: Monotonic) {
        for waiter in self.flights.overdue(now) {
            if abi::set_effective_context(waiter.stream).is_ok() {
                let step = pipeline::undecided(&waiter.request, &self.settings, Why::Timeout);
                self.act(step, Pending::Yes);
            }
        }
        let _ = abi::set_effective_context(self.id);
    }

    fn send_grounded(&mut self, now: Monotonic) {
        for fetch in self.flights.grounded() {
            let need: Need = fetch.need;
            let command = need.command(&self.settings.definitions);
            match callouts::send(&self.settings.redis, &command) {
                Ok(token) => self.flights.sent(&need, token, self.id, now),
                Err(failure) => {
                    self.recorder
                        .count(Metric::Callout(Purpose::Definitions, Err(failure)));
                    if let Some(flight) = self.flights.take(&need) {
                        self.answer_all(&flight.waiters, &Outcome::Failed(failure));
                        let _ = abi::set_effective_context(self.id);
                    }
                }
            }
        }
    }

    fn load(&mut self, now: Monotonic) {
        if registry::is_superseded(self.id, self.keys.scope()) {
            return;
        }
        let serves = self.serves_requests;
        let loaded = self
            .loading
            .tick(&self.settings, now, serves, &mut self.recorder);
        if loaded {
            self.read_status(now);
            if let Some(live) = &self.status.live {
                log::info!(
                    "snapshot {} loaded, as of {}: {} teams, longest slice {} us",
                    live.generation,
                    live.stream_id,
                    live.records.teams,
                    live.longest_slice_micros
                );
            }
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

    /// Brings Envoy's counters up to date.
    pub fn flush(&mut self) {
        let now = self.now;
        // Without a snapshot the gauge must not look like a fresh one.
        let since_start = now.since(*self.started_at.get_or_insert(now));
        let live = self.status.live.as_ref();
        let age = live.map_or(since_start, |live| live.age(now));
        self.recorder.flush(age.as_secs());
    }

    fn set_tick(&mut self, period: Duration) {
        if self.tick != Some(period) && abi::set_tick_period(period).is_ok() {
            self.tick = Some(period);
        }
    }
}

/// Whether a request was paused by an earlier callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    No,
    Yes,
}
