//! The surface as a worker drives it: what one worker knows, and the rules that need more than one look.

use std::time::Duration;

use super::answers::Answer;
use super::counts::PostHogCount;
use super::definitions::checked::CheckedTexts;
use super::definitions::{Absent, Outcome, Payload};
use super::pipeline::{self, Context, Memory, Observed, PendingEnds, PostHogStep, Tables};
use super::quota::QuotaJob;
use super::read_through::{Found, Lookups, Misses};
use super::reads::{Landed, PostHogRead};
use super::rebuild::RebuildJob;
use super::request::{self, Request};
use super::settings::{PostHogSettings, Scopes};
use super::{billing, directory};
use crate::documents::{Confirmations, Confirmed, Kept, Outflow, confirmed};
use crate::hash::{Hashes, Sha256Hash};
use crate::limits::Limiter;
use crate::recent::{OncePerSecond, Recent};
use crate::redis::Failure;
use crate::shared::{Ambient, BUSY, Machinery, Store};
use crate::snapshot::KnownStatus;
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::{
    Decided, Fetch, Reason, Receipt, Received, SentRead, ShowJob, Step, StepOf, Surface, Terms,
    Upstream,
};
use crate::tenant::Tenant;
use crate::time::Monotonic;
use crate::usage::{Slots, UsageJob};

/// Most teams without a payload that a worker remembers.
const ABSENT_TEAMS: usize = 4_096;

/// The surface's name among those that have a source.
const SOURCE: &str = "posthog";

/// Tick until the first snapshot is there.
const EMPTY: Duration = Duration::from_millis(100);

/// PostHog's surface, of one worker.
pub struct PostHog {
    pub(super) settings: PostHogSettings,
    pub(super) scopes: Scopes,
    pub(super) tables: Tables,
    status: KnownStatus,
    hashes: Hashes,
    memory: Memory,
    pub(super) confirmations: Confirmations,
    pub(super) pending_ends: PendingEnds,
    limiter: Limiter,
    lookups: Lookups,
    pub(super) kept: Kept<Payload>,
    pub(super) checked: CheckedTexts,
    outflow: Outflow,
    pub(super) absent: Recent<Tenant, Absent>,
    pub(super) misses: Misses,
    pub(super) quota: QuotaJob,
    usage: UsageJob,
    rebuild: RebuildJob,
    pub(super) payload_problems: OncePerSecond,
    pub(super) lookup_problems: OncePerSecond,
}

impl PostHog {
    /// A surface that has done nothing yet.
    pub fn new(settings: PostHogSettings, scopes: Scopes, ambient: &dyn Ambient) -> Self {
        let tables = Tables::new(&scopes.data, settings.snapshot.buckets);
        let negative_ttl = settings.definitions.negative_ttl;
        Self {
            status: KnownStatus::default(),
            hashes: Hashes::new(ambient.random_bytes()),
            memory: Memory::default(),
            confirmations: Confirmations::new(confirmed::slots(&tables.buckets)),
            pending_ends: PendingEnds::default(),
            limiter: Limiter::default(),
            lookups: Lookups::default(),
            kept: Kept::new(settings.definitions.max_kept_bytes()),
            checked: CheckedTexts::new(&ambient.random_bytes()),
            outflow: Outflow::default(),
            absent: Recent::new(ABSENT_TEAMS, negative_ttl),
            misses: Misses::new(negative_ttl, settings.snapshot.refuse_max_age),
            quota: QuotaJob::new(&settings, &scopes.data, &tables),
            usage: UsageJob::new(
                &scopes.usage,
                Slots::new(scopes.usage.as_str()),
                &billing::KEYS,
                settings.redis.usage.clone(),
                &settings.snapshot.prefix,
                settings.usage.flush_interval,
                ambient.random_bytes(),
            ),
            rebuild: RebuildJob::new(&settings, &scopes.data),
            payload_problems: OncePerSecond::default(),
            lookup_problems: OncePerSecond::default(),
            settings,
            scopes,
            tables,
        }
    }

    /// Decides a request, with what was looked up for it.
    fn begin<'r, S: Store>(
        &mut self,
        request: &'r Request<'_>,
        found: Option<&Found>,
        machinery: &mut Machinery<'_, S, PostHogCount>,
    ) -> Decided<'r, Self> {
        let (store, now) = (machinery.store, machinery.now);
        let (scope, snapshot) = (&self.scopes.data, &self.settings.snapshot);
        let freshness = self.status.freshness(store, scope, snapshot, now);
        let freshness = self.status.get().sourced(SOURCE, freshness);
        let mut observed = Observed::default();
        let mut step = self.decide(request, found, freshness, machinery, &mut observed);
        if is_refusal(&step) {
            step = self.decide_again(request, found, machinery, &mut observed);
        }
        self.observe(&observed, machinery);
        decided(step, &observed, observed.token, false)
    }

    fn decide<'r, S: Store>(
        &mut self,
        request: &'r Request<'_>,
        found: Option<&Found>,
        freshness: Freshness,
        machinery: &Machinery<'_, S, PostHogCount>,
        observed: &mut Observed,
    ) -> PostHogStep<'r> {
        *observed = Observed::default();
        let (store, now) = (machinery.store, machinery.now);
        let mut context = self.context(found, freshness, store, now);
        pipeline::start(request, &mut context, observed)
    }

    /// Looks again before a refusal is sent, because SDKs drop their flags on 401: what this worker knows of
    /// the snapshot may be a tick old, and its records may be changing between two look-ups.
    fn decide_again<'r, S: Store>(
        &mut self,
        request: &'r Request<'_>,
        found: Option<&Found>,
        machinery: &Machinery<'_, S, PostHogCount>,
        observed: &mut Observed,
    ) -> PostHogStep<'r> {
        let undecided = |settings, reason| pipeline::undecided(request, settings, reason);
        // Without a clock nothing is known to be fresh.
        if machinery.ambient.monotonic().is_none() {
            return undecided(&self.settings, Reason::SharedData);
        }
        let Ok(before) = Status::read(machinery.store, &self.scopes.data) else {
            return undecided(&self.settings, Reason::SharedData);
        };
        let freshness = before.freshness(machinery.now, &self.settings.snapshot);
        let freshness = before.sourced(SOURCE, freshness);
        let step = self.decide(request, found, freshness, machinery, observed);
        if !is_refusal(&step) {
            return step;
        }
        match Status::read(machinery.store, &self.scopes.data) {
            Ok(after) if after.names_the_same_records_as(&before) => step,
            Ok(_) => undecided(&self.settings, Reason::SnapshotAging),
            Err(_) => undecided(&self.settings, Reason::SharedData),
        }
    }

    fn context<'a, S>(
        &'a mut self,
        found: Option<&'a Found>,
        freshness: Freshness,
        store: &'a S,
        now: Monotonic,
    ) -> Context<'a, S> {
        Context {
            settings: &self.settings,
            tables: &self.tables,
            store,
            freshness,
            confirmation: self.status.watched_confirmation(),
            now,
            memory: &mut self.memory,
            confirmations: &mut self.confirmations,
            pending_ends: &mut self.pending_ends,
            limiter: &mut self.limiter,
            quota: self.quota.copy(),
            kept: &mut self.kept,
            absent: &self.absent,
            misses: &self.misses,
            found,
        }
    }

    /// Counts what a decision showed, and tells the jobs what it taught.
    fn observe<S>(&mut self, observed: &Observed, machinery: &mut Machinery<'_, S, PostHogCount>) {
        observed.count(machinery);
        if observed.unowned
            && let Some((token, team)) = observed.token.zip(observed.team)
        {
            self.quota.owner(token, team, machinery.now);
        }
        if observed.rebuild
            && let Some(team) = observed.team
        {
            self.rebuild.push(team);
        }
    }

    /// A step that nothing is owed for.
    fn plain<'r>(step: PostHogStep<'r>) -> StepOf<'r, Self> {
        decided(step, &Observed::default(), None, false).step
    }
}

impl Surface for PostHog {
    type Request<'a> = Request<'a>;
    type Read = PostHogRead;
    type Known = Option<Confirmed>;
    type Landed = Landed;
    /// Hash of the team's public token, once that is known.
    type Carried = Option<Sha256Hash>;
    type Answer = Answer;
    type Count = PostHogCount;

    fn owns(&self, path: &[u8]) -> bool {
        self.settings.enabled && request::is_ours(path)
    }

    fn parse<'a>(
        &mut self,
        _: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self::Request<'a> {
        Request::parse_with(fields, &mut |text| self.hashes.of(text))
    }

    fn unread(&self, _: &[u8]) -> Self::Request<'static> {
        Request::unread()
    }

    fn start<'r, S: Store>(
        &mut self,
        request: &'r Request<'_>,
        machinery: &mut Machinery<'_, S, PostHogCount>,
    ) -> Decided<'r, Self> {
        self.begin(request, None, machinery)
    }

    fn forwards(&self, _: &[u8]) -> bool {
        self.settings.upstream == Upstream::Forward
    }

    fn resume<'r, S: Store>(
        &mut self,
        request: &'r Request<'_>,
        carried: &Self::Carried,
        landed: &Landed,
        machinery: &mut Machinery<'_, S, PostHogCount>,
    ) -> Decided<'r, Self> {
        let (team, outcome) = match landed {
            Landed::Definitions(team, outcome) => (*team, outcome),
            Landed::Identity(Ok(found)) => return self.begin(request, Some(found), machinery),
            Landed::Identity(Err(failure)) => {
                let step = pipeline::without_identity(request, &self.settings, *failure);
                return decided(step, &Observed::default(), None, false);
            }
        };
        let mut observed = Observed::default();
        let token = carried.as_ref();
        let (store, now) = (machinery.store, machinery.now);
        let mut context = self.context(None, Freshness::Missing, store, now);
        let step = pipeline::resume(request, team, token, &mut context, outcome, &mut observed);
        self.observe(&observed, machinery);
        decided(step, &observed, *carried, true)
    }

    fn undecided<'r>(&self, request: &'r Request<'_>, reason: Reason) -> StepOf<'r, Self> {
        Self::plain(pipeline::undecided(request, &self.settings, reason))
    }

    fn refuses<'r>(
        &mut self,
        read: &PostHogRead,
        request: &'r Request<'_>,
        now: Monotonic,
    ) -> Option<StepOf<'r, Self>> {
        let PostHogRead::Identity(_, team) = read else {
            return None;
        };
        let spent = self.lookups.spend(&self.settings.read_through, *team, now);
        let retry_after = spent.err()?;
        Some(Self::plain(pipeline::look_up_limited(request, retry_after)))
    }

    fn fetch(&self, read: &PostHogRead) -> Option<Fetch<'_>> {
        read.fetch(&self.settings)
    }

    fn terms(&self, read: &PostHogRead) -> Terms {
        read.terms(&self.settings)
    }

    fn known<S: Store>(&self, read: &PostHogRead, store: &S) -> Option<Confirmed> {
        let team = read.definitions_of()?;
        self.confirmations.read(store, team).ok().flatten()
    }

    fn landed<S: Store>(
        &mut self,
        read: &PostHogRead,
        sent: SentRead<Option<Confirmed>>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, PostHogCount>,
    ) -> (Landed, Result<(), Failure>) {
        self.learn(read, &sent, received, machinery)
    }

    fn length(&self, request: &Request<'_>, landed: &Landed) -> usize {
        let Landed::Definitions(team, outcome) = landed else {
            return 0;
        };
        let Some((etag, length)) = outcome.version() else {
            return 0;
        };
        let is_pending = matches!(outcome, Outcome::Pending(_));
        if !is_pending && request.if_none_match.matches(etag) {
            return 0;
        }
        let kept = self.kept.length(*team, etag, request.accepts_gzip);
        kept.or(length).unwrap_or(0)
    }

    fn tenant_word(_: &Answer) -> &'static str {
        "team"
    }

    fn may_leave(&mut self, _: &Request<'_>, length: usize, now: Monotonic) -> bool {
        let per_second = self.settings.definitions.large_bytes_per_second;
        self.outflow.admits(length, per_second, now)
    }

    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<Answer>,
        request: &Request<'_>,
        machinery: &mut Machinery<'_, S, PostHogCount>,
    ) {
        machinery.count(PostHogCount::Answer(receipt.answer));
        let Some(team) = receipt.tenant else {
            return;
        };
        machinery.count(PostHogCount::TeamAnswer(team, receipt.answer.status()));
        if receipt.billed && self.settings.usage.enabled {
            let unix = self.usage.unix(machinery);
            let headers = &request.client;
            let agent = headers.user_agent.as_deref();
            let client = billing::Client::of(agent, headers.sec_fetch);
            let counter = billing::request(team, client, unix);
            self.usage.count(counter, machinery);
        }
    }

    fn tick<S: Store>(&mut self, is_idle: bool, machinery: &mut Machinery<'_, S, PostHogCount>) {
        let per_second = self.settings.definitions.large_bytes_per_second;
        self.outflow.tick(per_second, machinery.now);
        // Those who wait come first.
        if is_idle {
            self.kept.work();
        }
        let (store, scope) = (machinery.store, &self.scopes.data);
        self.status.refresh(store, scope, machinery.now);
    }

    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, PostHogCount>) {
        self.quota.read_soon();
        let (store, scope) = (machinery.store, &self.scopes.data);
        self.status.read(store, scope, machinery.now);
        if let Some(live) = &self.status.get().live {
            log::info!(
                "snapshot {} loaded, as of {}: {} teams, longest slice {} us",
                live.generation,
                live.stream_id,
                directory::RecordCounts::of(&live.records).teams,
                live.longest_slice_micros
            );
        }
    }

    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, PostHogCount>) {
        let is_enabled = self.settings.enabled;
        if is_enabled && self.settings.usage.enabled {
            show(&mut self.usage);
        }
        if is_enabled && self.settings.quota.enabled {
            show(&mut self.quota);
        }
        show(&mut self.rebuild);
    }

    fn due_in(&self) -> Duration {
        let status = self.status.get();
        if self.kept.is_busy() || self.outflow.is_busy() {
            BUSY
        } else if status.live.is_none() && !status.unpublished {
            EMPTY
        } else {
            // The setting bounds every tick, also where nothing is counted.
            self.settings.usage.flush_interval
        }
    }

    fn status(&self) -> &Status {
        self.status.get()
    }
}

/// Whether this answer could make an SDK drop its flags, and follows from what the snapshot says.
fn is_refusal(step: &PostHogStep<'_>) -> bool {
    matches!(step, Step::Reply(_, answer) if answer.rests_on_snapshot())
}

fn decided<'r>(
    step: PostHogStep<'r>,
    observed: &Observed,
    carried: Option<Sha256Hash>,
    reads_alone: bool,
) -> Decided<'r, PostHog> {
    let step = match step {
        Step::Reply(response, answer) => {
            let receipt = Receipt {
                answer,
                tenant: observed.team,
                billed: observed.billed,
            };
            Step::Reply(response, receipt)
        }
        Step::Forward(reason) => Step::Forward(reason),
        Step::Read(read) => Step::Read(read),
        Step::Body { max_bytes, tenant } => Step::Body { max_bytes, tenant },
    };
    Decided {
        step,
        carried,
        reads_alone,
    }
}

#[cfg(test)]
mod tests;
