//! What requests wait for: shared callouts, and their answers when those come back.

use std::time::Duration;

use super::serving::{Asked, Pending};
use super::{BACKLOG_TICK, FAST_TICK, Plugin};
use crate::documents::Confirmed;
use crate::host::abi;
use crate::host::backlog::{self, ANSWERS_PER_CALLBACK, Batch, Content};
use crate::host::callouts::{self, Callout};
use crate::host::flights::{Flight, Join, MAX_WAITERS, Waiter};
use crate::metrics::{Metric, Purpose};
use crate::redis::{self, Failure, Reply};
use crate::surfaces::Reason;
use crate::surfaces::posthog::definitions::encoding::{self, Decoded, MISSING};
use crate::surfaces::posthog::definitions::{Absent, Outcome};
use crate::surfaces::posthog::pipeline::{self, Fetch, Observed};
use crate::surfaces::posthog::read_through::{self, Miss, table};
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most callouts that one tick sends again.
const SENT_AGAIN_PER_TICK: usize = 16;

/// Room for the framing around a value in a callout's reply.
const FRAMING: usize = 1 << 12;

/// Largest reply of a look-up: team metadata is some 10 KB, a credential less.
const LARGEST_IDENTITY: usize = 2 << 20;

/// Who is answered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Who waits longest.
    Oldest,
    /// Who has just become due, so that a small number does not wait for a crowd.
    Newest,
}

impl Plugin {
    /// Whether a request waits for a callout.
    pub fn is_waiting(&self, stream: u32) -> bool {
        self.flights.is_waiting(stream) || self.backlog.is_waiting(stream)
    }

    /// A stream is gone.
    pub fn on_stream_done(&mut self, stream: u32) {
        self.backlog.leave(stream);
        self.flights.leave(stream);
    }

    /// Makes a request wait for what it needs. `true` when it stays paused.
    pub(super) fn fetch(&mut self, asked: Asked<'_>, fetch: Fetch, now: Monotonic) -> bool {
        let none = Observed::default();
        let (settings, pending) = (&self.settings.posthog, asked.pending);
        if self.flights.is_full(&asked.request) || self.backlog.len() >= MAX_WAITERS {
            let request = &asked.request;
            let step = pipeline::undecided(request, settings, Reason::Overloaded);
            return self.act(step, request, &none, pending);
        }
        if let Fetch::Identity(_, team) = &fetch
            && !self.flights.has(&fetch)
            && let Err(retry_after) = self.lookups.spend(&settings.read_through, *team, now)
        {
            let step = pipeline::look_up_limited(&asked.request, retry_after);
            return self.act(step, &asked.request, &none, pending);
        }
        // Time for one callout and for a second one, after a leader left.
        let patience = self.timeout(&fetch) * 2 + Duration::from_millis(100);
        let Asked {
            stream,
            request,
            token,
            ..
        } = asked;
        if self
            .flights
            .join(stream, request, token, fetch.clone(), now, patience)
            == Join::Lead
        {
            // As the root's callout Envoy delivers it in any case, and the SDK forgets its token.
            let _ = abi::set_effective_context(self.id);
            let known = self.known(&fetch);
            let sent = self.send(&fetch);
            let _ = abi::set_effective_context(stream);
            match sent {
                Ok(callout) => self.flights.sent(&fetch, callout, self.active, known, now),
                Err(failure) => {
                    self.count_unsent(&fetch, failure);
                    // Nobody else is aboard yet.
                    let alone = self.flights.take(&fetch);
                    let waiter = alone.and_then(|mut flight| flight.waiters.pop());
                    return waiter.is_some_and(|waiter| {
                        let request = waiter.request;
                        let reason = match fetch {
                            Fetch::Object(_) => Reason::ObjectStore,
                            _ => Reason::Redis,
                        };
                        let step = pipeline::undecided(&request, &self.settings.posthog, reason);
                        self.act(step, &request, &none, pending)
                    });
                }
            }
        }
        self.hurry(FAST_TICK);
        true
    }

    /// Sends again what was lost with its leader. A few at a time: those callouts are still under way, and the
    /// circuit breaker counts both. What Envoy does not take now stays for the next tick, until it is overdue.
    pub(super) fn send_grounded(&mut self, now: Monotonic) {
        let grounded = self.flights.grounded();
        for fetch in grounded.into_iter().take(SENT_AGAIN_PER_TICK) {
            let known = self.known(&fetch);
            match self.send(&fetch) {
                Ok(callout) => self.flights.sent(&fetch, callout, self.id, known, now),
                // The next one may be for another store.
                Err(failure) => self.count_unsent(&fetch, failure),
            }
        }
    }

    /// A reply to one of these callouts is being delivered. `context` is the one it is delivered to.
    pub(super) fn on_flight(
        &mut self,
        flight: Flight,
        callout: &Callout,
        context: u32,
        body_size: usize,
    ) {
        let now = self.now();
        // Seen by an operator who asks for it, and by the benchmark.
        let began = log::log_enabled!(log::Level::Debug).then(abi::now);
        let most = self.largest_reply(&flight.fetch);
        let received = callouts::receive(body_size, most);
        let content = match &flight.fetch {
            Fetch::Definitions(need) => {
                let reply = received.reply(&self.settings.posthog.redis.definitions, callout);
                self.recorder
                    .count(callouts::metric(Purpose::Definitions, &reply));
                let outcome = Outcome::of(need, reply, &self.settings.posthog.definitions);
                Content::Definitions(need.team, outcome)
            }
            Fetch::Object(object) => {
                let coding = callouts::receive_coding();
                let answer = received.object(&coding);
                let outcome = object.outcome(answer, self.settings.posthog.definitions.most());
                let result = match (answer, &outcome) {
                    (Err(failure), _) => Err(failure),
                    (Ok(answer), Outcome::Absent(Absent::ObjectStore)) => {
                        Err(object_failure(answer.status))
                    }
                    _ => Ok(()),
                };
                self.recorder
                    .count(callouts::metric(Purpose::ObjectStore, &result));
                Content::Definitions(object.team, outcome)
            }
            Fetch::Identity(need, _) => {
                let reply = received.reply(&self.settings.posthog.redis.identity, callout);
                Content::Identity(self.learn(need, &flight, reply, now))
            }
        };
        if let Content::Definitions(team, outcome) = &content {
            self.remember(*team, &flight, outcome, now);
            self.report(*team, outcome);
        }
        self.backlog.push(content, flight.waiters);
        self.answer_due(Turn::Newest);
        if let Some(Ok(began)) = began
            && let Ok(ended) = abi::now()
        {
            let micros = ended.saturating_sub(began).as_micros();
            log::debug!("a reply of {body_size} bytes was read and answered in {micros} us");
        }
        // The host goes on in the context that it called.
        let _ = abi::set_effective_context(context);
    }

    /// Gives the next answers that are due. Only once in a callback: see [`crate::host::backlog`].
    pub(super) fn answer_due(&mut self, turn: Turn) {
        let mut left = ANSWERS_PER_CALLBACK;
        let mut turn = turn;
        while left > 0
            && let Some(mut batch) = match turn {
                Turn::Oldest => self.backlog.pop(),
                Turn::Newest => self.backlog.pop_newest(),
            }
        {
            left = self.answer(&mut batch, left);
            let is_cut = !batch.waiters.is_empty();
            match turn {
                Turn::Oldest => self.backlog.put_back(batch),
                Turn::Newest => self.backlog.put_last(batch),
            }
            if is_cut {
                break;
            }
            turn = Turn::Oldest;
        }
        if !self.backlog.is_empty() {
            self.hurry(BACKLOG_TICK);
        }
    }

    /// Answers waiters of a batch until all have their answer, or those cost as much as `left`. What is left
    /// then is returned.
    fn answer(&mut self, batch: &mut Batch, mut left: usize) -> usize {
        let waiters = std::mem::take(&mut batch.waiters);
        let mut waiters = waiters.into_iter();
        while left > 0
            && let Some(waiter) = waiters.next()
        {
            let cost = batch.content.cost(&waiter.request, &self.kept);
            // What costs more than all of a callback has one of its own.
            if cost > left && left < ANSWERS_PER_CALLBACK {
                batch.waiters.push(waiter);
                break;
            }
            self.sent_bytes = 0;
            self.answer_waiter(&batch.content, waiter);
            left = left.saturating_sub(cost.max(backlog::cost_of(self.sent_bytes)));
        }
        batch.waiters.extend(waiters);
        left
    }

    fn answer_waiter(&mut self, content: &Content, waiter: Waiter) {
        let now = self.now;
        // A stream that is gone leaves nobody to answer.
        let here = self.backlog.leave(waiter.stream);
        if !here || abi::set_effective_context(waiter.stream).is_err() {
            return;
        }
        let asked = Asked {
            stream: waiter.stream,
            request: waiter.request,
            token: waiter.token,
            pending: Pending::Yes,
        };
        let step = match content {
            Content::Definitions(team, outcome) => {
                self.resume(asked, *team, outcome, now);
                return;
            }
            Content::Identity(Ok(found)) => {
                self.begin(asked, Some(found), now);
                return;
            }
            Content::Identity(Err(failure)) => {
                pipeline::without_identity(&asked.request, &self.settings.posthog, *failure)
            }
            Content::Overdue => {
                pipeline::undecided(&asked.request, &self.settings.posthog, Reason::Timeout)
            }
        };
        self.act(step, &asked.request, &Observed::default(), Pending::Yes);
    }

    fn send(&self, fetch: &Fetch) -> Result<Callout, Failure> {
        let PostHogSettings {
            redis, definitions, ..
        } = &self.settings.posthog;
        match fetch {
            Fetch::Definitions(need) => {
                let command = need.command(definitions, &self.settings.posthog.snapshot.prefix);
                callouts::send(&redis.definitions, &command)
            }
            Fetch::Identity(need, _) => {
                let command = need.command(&definitions.key_prefix, &definitions.cache_version);
                callouts::send(&redis.identity, &command)
            }
            Fetch::Object(object) => match &definitions.object_store {
                Some(store) => {
                    callouts::get_object(&store.cluster, &object.path(store), store.timeout)
                }
                None => Err(Failure::NotSent),
            },
        }
    }

    fn timeout(&self, fetch: &Fetch) -> Duration {
        let PostHogSettings {
            redis, definitions, ..
        } = &self.settings.posthog;
        match fetch {
            Fetch::Definitions(_) => redis.definitions.timeout,
            Fetch::Identity(..) => redis.identity.timeout,
            Fetch::Object(_) => definitions
                .object_store
                .as_ref()
                .map_or(redis.definitions.timeout, |store| store.timeout),
        }
    }

    fn largest_reply(&self, fetch: &Fetch) -> usize {
        let PostHogSettings {
            redis, definitions, ..
        } = &self.settings.posthog;
        let (dialect, length) = match fetch {
            Fetch::Definitions(_) => (redis.definitions.dialect, definitions.most()),
            Fetch::Identity(..) => (redis.identity.dialect, LARGEST_IDENTITY),
            Fetch::Object(_) => return definitions.most(),
        };
        redis::wire_size(dialect, length).saturating_add(FRAMING)
    }

    fn count_unsent(&mut self, fetch: &Fetch, failure: Failure) {
        let purpose = match fetch {
            Fetch::Definitions(_) => Purpose::Definitions,
            Fetch::Identity(..) => Purpose::Identity,
            Fetch::Object(_) => Purpose::ObjectStore,
        };
        self.recorder.count(Metric::Callout(purpose, Err(failure)));
    }

    /// What is known of the ETag that a callout will bring.
    fn known(&self, fetch: &Fetch) -> Option<Confirmed> {
        let (Fetch::Definitions(_) | Fetch::Object(_), Some(team)) = (fetch, fetch.team()) else {
            return None;
        };
        self.confirmations.read(&self.store, team).ok().flatten()
    }

    /// Keeps what a look-up found; what it did not find is remembered for a moment.
    fn learn(
        &mut self,
        need: &read_through::Lookup,
        flight: &Flight,
        reply: Result<Reply<'_>, Failure>,
        now: Monotonic,
    ) -> Result<read_through::Found, Failure> {
        self.recorder
            .count(callouts::metric(Purpose::Identity, &reply));
        let text = |stored: &[u8]| match encoding::decode(stored, LARGEST_IDENTITY) {
            Ok(Decoded::Text(text)) => Some(text.into_owned()),
            // The sentinel is a value, too: the reader knows it.
            Ok(Decoded::Missing) => Some(MISSING.to_vec()),
            Err(_) => None,
        };
        let found = read_through::read(need, flight.sent_at, reply, text);
        match &found {
            Ok(found) => {
                let slots = &self.tables.identities;
                let kept = self.settings.posthog.read_through.ttl;
                // If shared data fails, the next request looks up again.
                let _ = table::keep(&self.store, slots, &found.records, now, kept);
                let unreadable = found.unreadable.metadata || found.unreadable.credential;
                if unreadable && self.logged.look_ups.admits(now) {
                    log::warn!("a looked-up team or credential cannot be read");
                }
                if let Some(miss) = found.lacks(need) {
                    self.misses.note(need.asked(), miss, now);
                }
            }
            Err(failure) => self.misses.note(need.asked(), Miss::failed(*failure), now),
        }
        found
    }

    /// Keeps the ETag that a callout brought, as of when it was sent, and the body; and that it brought none.
    fn remember(&mut self, team: Tenant, flight: &Flight, outcome: &Outcome, now: Monotonic) {
        let etag = match outcome {
            Outcome::Unchanged(etag) => etag,
            Outcome::Payload(payload) => {
                self.kept.put(team, payload);
                &payload.etag
            }
            Outcome::Pending(pending) => {
                if let Some(payload) = &pending.payload {
                    self.kept.put(team, payload);
                }
                let read_at = self.chores.quota().set().read_at();
                self.pending_ends
                    .found(team, pending, read_at, flight.sent_at, now);
                let settings = &self.settings.posthog;
                self.chores.quota_pending(settings, team, pending.end, now);
                return;
            }
            Outcome::Absent(absent) => {
                self.absent.note(team, *absent, now);
                return;
            }
            Outcome::InObjectStore(_) => return,
        };
        self.pending_ends.settled(team);
        let confirmed = Confirmed {
            etag: etag.clone(),
            at: flight.sent_at,
        };
        let before = flight.known.as_ref();
        self.confirmations
            .note(&self.store, team, before, &confirmed);
    }

    /// Logs what an operator has to look at, once a second at most: SDKs ask again and again.
    fn report(&mut self, team: Tenant, outcome: &Outcome) {
        let Outcome::Absent(absent) = outcome else {
            return;
        };
        let problem = match absent {
            Absent::Undecodable(error) => error.to_string(),
            Absent::TooBig => Failure::TooBig.to_string(),
            Absent::Failed(
                failure @ (Failure::Refused | Failure::Malformed | Failure::Misdirected),
            ) => failure.to_string(),
            _ => return,
        };
        if self.logged.payloads.admits(self.now) {
            log::warn!("team {team}: {problem}");
        }
    }
}

/// What an unusable answer of the object store counts as.
fn object_failure(status: Option<&[u8]>) -> Failure {
    match status {
        Some(b"504") => Failure::Timeout,
        None | Some(b"500" | b"502" | b"503") => Failure::Unavailable,
        Some(b"401" | b"403") => Failure::Refused,
        Some(_) => Failure::Malformed,
    }
}
