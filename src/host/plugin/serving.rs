//! From a request to its answer: decide, and carry the decision out. What must be read first is [`super::fetching`].

use super::{FAST_TICK, Plugin};
use crate::hash::Sha256Hash;
use crate::host::abi;
use crate::http::{Method, Response};
use crate::metrics::Metric;
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::definitions::Outcome;
use crate::surfaces::posthog::pipeline::{self, Context, Observed, PostHogStep};
use crate::surfaces::posthog::read_through::Found;
use crate::surfaces::posthog::request::{FORWARD_REASON_HEADER, Request};
use crate::surfaces::{Reason, Step};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// A request in the effective context.
pub(super) struct Asked<'a> {
    /// Its stream.
    pub stream: u32,
    /// What it asks.
    pub request: Request<'a>,
    /// Hash of its team's public token, once that is known.
    pub token: Option<Sha256Hash>,
    /// Whether an earlier callback paused it.
    pub pending: Pending,
}

/// Whether a request was paused by an earlier callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    No,
    Yes,
}

impl Plugin {
    /// Decides a new request. `true` pauses it: it was answered, or it waits.
    pub fn on_request(&mut self, stream: u32, request: Request<'_>) -> bool {
        self.serves_requests = true;
        self.active = stream;
        let now = self.now();
        let asked = Asked {
            stream,
            request,
            token: None,
            pending: Pending::No,
        };
        self.begin(asked, None, now)
    }

    /// Answers a request whose headers could not even be read.
    pub fn on_unreadable_request(&mut self) -> bool {
        let request = Request::unread();
        let step = pipeline::undecided(&request, &self.settings.posthog, Reason::SharedData);
        self.act(step, &request, &Observed::default(), Pending::No)
    }

    /// Decides a request, with what was looked up for it.
    pub(super) fn begin(
        &mut self,
        asked: Asked<'_>,
        found: Option<&Found>,
        now: Monotonic,
    ) -> bool {
        let freshness = self.freshness(now);
        let mut observed = Observed::default();
        let mut step = self.decide(&asked.request, found, freshness, now, &mut observed);
        if is_refusal(&step) {
            step = self.decide_again(&asked.request, found, now, &mut observed);
        }
        match step {
            Step::Read(fetch) => {
                self.observe(&observed);
                let fetch = self.flights.joined_by(fetch);
                let token = observed.token;
                self.fetch(Asked { token, ..asked }, fetch, now)
            }
            step => {
                self.observe(&observed);
                self.act(step, &asked.request, &observed, asked.pending)
            }
        }
    }

    /// Goes on with a request whose definitions came back.
    pub(super) fn resume(
        &mut self,
        asked: Asked<'_>,
        team: Tenant,
        outcome: &Outcome,
        now: Monotonic,
    ) -> bool {
        let mut observed = Observed::default();
        let freshness = Freshness::Missing;
        let step = pipeline::resume(
            &asked.request,
            team,
            asked.token.as_ref(),
            &mut self.context(None, freshness, now),
            outcome,
            &mut observed,
        );
        self.observe(&observed);
        if observed.rebuild {
            self.chores.rebuild(team);
        }
        match step {
            Step::Read(fetch) => self.fetch(asked, fetch, now),
            step => self.act(step, &asked.request, &observed, asked.pending),
        }
    }

    fn context<'a>(
        &'a mut self,
        found: Option<&'a Found>,
        freshness: Freshness,
        now: Monotonic,
    ) -> Context<'a, crate::host::store::SharedData> {
        Context {
            settings: &self.settings.posthog,
            tables: &self.tables,
            store: &self.store,
            freshness,
            confirmation: self.status.confirmation(),
            now,
            memory: &mut self.memory,
            limiter: &mut self.limiter,
            quota: self.chores.quota(),
            confirmations: &mut self.confirmations,
            pending_ends: &mut self.pending_ends,
            kept: &mut self.kept,
            absent: &self.absent,
            misses: &self.misses,
            found,
        }
    }

    fn decide<'a>(
        &mut self,
        request: &'a Request<'a>,
        found: Option<&Found>,
        freshness: Freshness,
        now: Monotonic,
        observed: &mut Observed,
    ) -> PostHogStep<'a> {
        *observed = Observed::default();
        pipeline::start(request, &mut self.context(found, freshness, now), observed)
    }

    /// Looks again before a refusal is sent, because SDKs drop their flags on 401: what this worker knows of
    /// the snapshot may be a tick old, and its records may be changing between two look-ups.
    fn decide_again<'a>(
        &mut self,
        request: &'a Request<'a>,
        found: Option<&Found>,
        now: Monotonic,
        observed: &mut Observed,
    ) -> PostHogStep<'a> {
        let read = |plugin: &Self| Status::read(&plugin.store, &plugin.scopes.data);
        // Without a clock nothing is known to be fresh.
        let (Ok(_), Ok(before)) = (abi::monotonic(), read(self)) else {
            return pipeline::undecided(request, &self.settings.posthog, Reason::SharedData);
        };
        let freshness = before.freshness(now, &self.settings.posthog.snapshot);
        let step = self.decide(request, found, freshness, now, observed);
        if !is_refusal(&step) {
            return step;
        }
        match read(self) {
            Ok(after) if after.names_the_same_records_as(&before) => step,
            Ok(_) => pipeline::undecided(request, &self.settings.posthog, Reason::SnapshotAging),
            Err(_) => pipeline::undecided(request, &self.settings.posthog, Reason::SharedData),
        }
    }

    /// Carries a decision out in the effective context. `true` when the request stays paused.
    pub(super) fn act(
        &mut self,
        step: PostHogStep<'_>,
        request: &Request<'_>,
        observed: &Observed,
        pending: Pending,
    ) -> bool {
        match step {
            // The answer that says so has no large body itself.
            Step::Reply(reply, _) if !self.may_leave(request, &reply) => {
                let step = pipeline::undecided(request, &self.settings.posthog, Reason::Overloaded);
                let unbilled = Observed {
                    billed: false,
                    ..observed.clone()
                };
                self.act(step, request, &unbilled, pending)
            }
            Step::Reply(reply, answer) => match self.responder.respond(&reply) {
                Ok(()) => {
                    self.sent_bytes = reply.body.bytes().len();
                    self.sent(answer, request, observed);
                    if self.kept.is_busy() || self.outflow.is_busy() {
                        self.hurry(FAST_TICK);
                    }
                    true
                }
                Err(status) => {
                    if self.logged.unsent.admits(self.now) {
                        log::error!("an answer could not be sent: {status}");
                    }
                    false
                }
            },
            Step::Forward(reason) => {
                self.recorder.count(Metric::Forwarded(reason));
                let _ = abi::set_request_header(FORWARD_REASON_HEADER, reason.label());
                if pending == Pending::Yes {
                    let _ = abi::continue_request();
                }
                false
            }
            // What must be read first never comes here.
            Step::Read(_) => false,
        }
    }

    /// Whether an answer may be given to Envoy now. Always, when it has no large body.
    fn may_leave(&mut self, request: &Request<'_>, reply: &Response<'_>) -> bool {
        // Envoy takes the body off.
        if request.method == Method::Head {
            return true;
        }
        let per_second = self.settings.posthog.definitions.large_bytes_per_second;
        let length = reply.body.bytes().len();
        self.outflow.admits(length, per_second, self.now)
    }

    /// An answer is on its way: counts it, bills it, and notes it in the log.
    fn sent(&mut self, answer: Answer, request: &Request<'_>, observed: &Observed) {
        let status = answer.status();
        self.recorder.count(Metric::Answer(answer));
        if let Some(team) = observed.team {
            self.recorder.count(Metric::TeamAnswer(team, status));
            if observed.billed {
                let (settings, now) = (&self.settings.posthog, self.now);
                self.chores
                    .bill(settings, team, request, now, &mut self.recorder);
            }
        }
        if status >= 400 {
            self.access.note(answer, observed.team, self.now);
        }
    }

    fn observe(&mut self, observed: &Observed) {
        if let Some(method) = observed.auth {
            self.recorder.count(Metric::Auth(method));
        }
        for (budget, mode) in &observed.limits {
            self.recorder.count(Metric::RateLimited(*budget, *mode));
            if let Some(team) = observed.team {
                let metric = Metric::TeamRateLimited(team, *budget, *mode);
                self.recorder.count(metric);
            }
        }
        if let Some(result) = observed.etag {
            self.recorder.count(Metric::ETag(result));
        }
        if let Some(result) = observed.cache {
            self.recorder.count(Metric::Cache(result));
        }
        if observed.unowned
            && let Some((token, team)) = observed.token.zip(observed.team)
        {
            let (settings, now) = (&self.settings.posthog, self.now);
            self.chores.quota_owner(settings, token, team, now);
        }
    }
}

/// Whether this answer could make an SDK drop its flags, and follows from what the snapshot says.
fn is_refusal(step: &PostHogStep<'_>) -> bool {
    matches!(step, Step::Reply(_, answer) if answer.rests_on_snapshot())
}
