//! What belongs to one plugin configuration in one VM: settings, loader, waiting requests, bodies, counts.

use std::time::Duration;

use super::abi;
use super::access::AccessLog;
use super::backlog::{Backlog, Content};
use super::chores::{Chores, Duty};
use super::clusters;
use super::flights::Flights;
use super::loading::Loading;
use super::logger::{self, Pace};
use super::random;
use super::recorder::Recorder;
use super::registry;
use super::respond::Responder;
use super::store::SharedData;
use crate::config::{self, Role, Settings};
use crate::documents::{Confirmations, Kept, Outflow, confirmed};
use crate::hash::Hashes;
use crate::limits::Limiter;
use crate::recent::Recent;
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::posthog::definitions::{Absent, Payload};
use crate::surfaces::posthog::directory::RecordCounts;
use crate::surfaces::posthog::pipeline::{Memory, PendingEnds, Tables};
use crate::surfaces::posthog::read_through::Misses;
use crate::surfaces::posthog::request;
use crate::surfaces::posthog::settings::Scopes;
use crate::tenant::Tenant;
use crate::time::Monotonic;

use fetching::Turn;
use lookups::Lookups;

mod fetching;
mod lookups;
mod serving;

/// Tick while answers are due.
const BACKLOG_TICK: Duration = Duration::from_millis(1);

/// Tick while a snapshot or changes are applied: slices take about a tenth of the VM.
const LOAD_TICK: Duration = Duration::from_millis(5);

/// Tick while somebody waits or a body is compressed.
const FAST_TICK: Duration = Duration::from_millis(10);

/// Tick until the first snapshot is there.
const START_TICK: Duration = Duration::from_millis(100);

/// Longest tick: it renews the lease and looks for a new status.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// Most teams without a payload that a worker remembers.
const ABSENT_TEAMS: usize = 4_096;

/// How long what is known of the snapshot may be old before a tick reads it again.
const STATUS_AGE: Duration = Duration::from_millis(200);

/// How often shared data is asked for a watermark that did not come.
const CONFIRMATION_RETRY: Duration = Duration::from_millis(50);

/// After so many requests to our own paths in a row, the next is expected to be one as well.
const EXPECTED_AFTER: u8 = 16;

/// How often Envoy's counters are brought up to date.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// The lines that a flood of requests could write.
#[derive(Debug, Default)]
struct Logged {
    payloads: Pace,
    look_ups: Pace,
    unsent: Pace,
}

/// What a valid configuration brings to life.
pub struct Plugin {
    id: u32,
    /// The configuration.
    pub settings: Settings,
    /// What names in shared data begin with.
    pub scopes: Scopes,
    tables: Tables,
    /// Shared data.
    pub store: SharedData,
    status: Status,
    status_read_at: Option<Monotonic>,
    loading: Loading,
    flights: Flights,
    backlog: Backlog,
    responder: Responder,
    /// Of tokens and credentials.
    pub hashes: Hashes,
    memory: Memory,
    limiter: Limiter,
    lookups: Lookups,
    confirmations: Confirmations,
    pending_ends: PendingEnds,
    kept: Kept<Payload>,
    outflow: Outflow,
    absent: Recent<Tenant, Absent>,
    misses: Misses,
    chores: Chores,
    access: AccessLog,
    recorder: Recorder,
    clusters: clusters::Told,
    started_at: Option<Monotonic>,
    flushed_at: Monotonic,
    logged: Logged,
    tick: Option<Duration>,
    serves_requests: bool,
    /// How many requests to our own paths came in a row.
    ours: u8,
    superseded: bool,
    /// Length of the body of the last answer.
    sent_bytes: usize,
    /// The context whose callback this is: replies to the callouts that it makes are delivered to it.
    active: u32,
    now: Monotonic,
}

impl Plugin {
    /// A plugin that has done nothing yet.
    pub fn new(id: u32, settings: Settings) -> Self {
        let scopes = config::scopes(&settings.posthog);
        let tables = Tables::new(&scopes.data, settings.posthog.snapshot.buckets);
        let negative_ttl = settings.posthog.definitions.negative_ttl;
        Self {
            id,
            chores: Chores::new(&settings.posthog, &scopes),
            store: SharedData,
            status: Status::default(),
            status_read_at: None,
            scopes,
            loading: Loading::new(&settings.posthog, tables.buckets.clone()),
            flights: Flights::default(),
            backlog: Backlog::default(),
            responder: Responder::default(),
            hashes: Hashes::new(random::bytes()),
            memory: Memory::default(),
            limiter: Limiter::default(),
            lookups: Lookups::default(),
            confirmations: Confirmations::new(confirmed::slots(&tables.buckets)),
            pending_ends: PendingEnds::default(),
            tables,
            kept: Kept::new(settings.posthog.definitions.most_kept()),
            outflow: Outflow::default(),
            absent: Recent::new(ABSENT_TEAMS, negative_ttl),
            misses: Misses::new(negative_ttl, settings.posthog.snapshot.refuse_max_age),
            access: AccessLog::default(),
            recorder: Recorder::new(&settings.metrics.teams),
            clusters: clusters::Told::default(),
            started_at: None,
            flushed_at: Monotonic::default(),
            logged: Logged::default(),
            tick: None,
            serves_requests: false,
            ours: 0,
            superseded: false,
            sent_bytes: 0,
            active: id,
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

    /// Whether the next request is expected to be for our own paths, as in an Envoy that carries nothing else: then
    /// all of its headers are read at once, which spares a host call. Otherwise the path is read first.
    pub fn expects_ours(&self) -> bool {
        self.ours >= EXPECTED_AFTER
    }

    /// Whether the filter answers this path; and notes what came.
    pub fn notes_ours(&mut self, path: &[u8]) -> bool {
        let ours = request::is_ours(path);
        self.ours = if ours { self.ours.saturating_add(1) } else { 0 };
        ours
    }

    /// Makes this root context known to the others of its VM.
    pub fn enter(&self) {
        self.chores
            .enter(self.id, &self.settings.posthog, &self.scopes);
    }

    /// A callout was answered. `context` is the one it is delivered to.
    pub fn on_callout(&mut self, context: u32, token: u32, body_size: usize) {
        self.active = context;
        if self.loading.awaits(token) {
            self.loading
                .on_reply(&self.settings.posthog, body_size, &mut self.recorder);
            if self.loading.is_busy() {
                self.hurry(LOAD_TICK);
            }
        } else if let Some((flight, callout)) = self.flights.land(token) {
            self.on_flight(flight, &callout, context, body_size);
        } else {
            self.now();
            let (duty, chores, recorder) = self.duty();
            chores.on_reply(token, body_size, duty, recorder);
        }
        if self.chores.is_busy() {
            self.hurry(FAST_TICK);
        }
    }

    fn duty(&mut self) -> (Duty<'_>, &mut Chores, &mut Recorder) {
        let duty = Duty {
            context: self.id,
            settings: &self.settings.posthog,
            scopes: &self.scopes,
            tables: &self.tables,
            now: self.now,
            serves_requests: self.serves_requests,
        };
        (duty, &mut self.chores, &mut self.recorder)
    }

    /// The time; when the clock fails, the last time that it did not.
    pub fn now(&mut self) -> Monotonic {
        if let Ok(now) = abi::monotonic() {
            self.now = now;
        }
        self.now
    }

    /// What the snapshot may be used for. What a worker knows may be a tick old; unless it is the best there
    /// is, shared data is asked again.
    fn freshness(&mut self, now: Monotonic) -> Freshness {
        let known = self.status.freshness(now, &self.settings.posthog.snapshot);
        let reread_at = self.status_read_at.unwrap_or_default();
        // Without a publisher no look brings a watermark: not each request shall look.
        let confirmed = self.is_confirmed(now) || now.since(reread_at) < CONFIRMATION_RETRY;
        if known == Freshness::Current && confirmed {
            return known;
        }
        self.read_status(now);
        self.status.freshness(now, &self.settings.posthog.snapshot)
    }

    /// Whether the published ETags, if any, are known to be current.
    fn is_confirmed(&self, now: Monotonic) -> bool {
        let max_age = self.settings.posthog.snapshot.etag_max_age;
        self.status.follow.is_none()
            || self
                .status
                .confirmation()
                .is_some_and(|confirmation| now.since(confirmation.at) < max_age)
    }

    fn read_status(&mut self, now: Monotonic) {
        if let Ok(status) = Status::read(&self.store, &self.scopes.data) {
            self.status = status;
            self.status_read_at = Some(now);
        }
    }

    /// Regular work.
    pub fn on_tick(&mut self) {
        if self.settings.role != Role::Filter {
            return;
        }
        self.active = self.id;
        let now = self.now();
        let overdue = self.flights.overdue(now);
        self.backlog.push(Content::Overdue, overdue);
        self.send_grounded(now);
        self.load(now);
        let (duty, chores, recorder) = self.duty();
        chores.tick(duty, recorder);
        let per_second = self.settings.posthog.definitions.large_bytes_per_second;
        self.outflow.tick(per_second, now);
        // Those who wait come first.
        if self.backlog.is_empty() {
            self.kept.work();
        }
        let old = self
            .status_read_at
            .is_none_or(|read_at| now.since(read_at) >= STATUS_AGE);
        if old {
            self.read_status(now);
        }
        self.clusters
            .tell(&self.status, &self.settings.posthog, &self.scopes.data);
        if now.since(self.flushed_at) >= FLUSH_INTERVAL {
            self.flushed_at = now;
            self.flush();
            logger::follow_host();
        }
        let busy = self.chores.is_busy() || self.kept.is_busy() || self.outflow.is_busy();
        self.set_tick(if self.loading.is_busy() {
            LOAD_TICK
        } else if busy || !self.flights.is_empty() {
            FAST_TICK
        } else if self.status.live.is_none() && !self.status.unpublished {
            START_TICK
        } else {
            let usage = self.settings.posthog.usage.flush_interval;
            let slow = SLOW_TICK
                .min(self.settings.posthog.snapshot.poll_interval)
                .min(usage);
            let poll = self.loading.due_in(now).unwrap_or(slow);
            slow.min(poll.max(FAST_TICK))
        });
        self.answer_due(Turn::Oldest);
        let _ = abi::set_effective_context(self.id);
    }

    fn load(&mut self, now: Monotonic) {
        if registry::is_superseded(self.id, self.scopes.data.as_str()) {
            if !self.superseded {
                self.superseded = true;
                self.loading.stop(now, &mut self.recorder);
            }
            return;
        }
        self.superseded = false;
        let serves = self.serves_requests;
        let loaded = self
            .loading
            .tick(&self.settings.posthog, now, serves, &mut self.recorder);
        if loaded {
            self.chores.snapshot_loaded();
            self.read_status(now);
            if let Some(live) = &self.status.live {
                log::info!(
                    "snapshot {} loaded, as of {}: {} teams, longest slice {} us",
                    live.generation,
                    live.stream_id,
                    RecordCounts::of(&live.records).teams,
                    live.longest_slice_micros
                );
            }
        }
    }

    /// The root context ends.
    pub fn stop(&mut self) {
        let now = self.now();
        self.loading.stop(now, &mut self.recorder);
        let (duty, chores, recorder) = self.duty();
        chores.stop(duty, recorder);
        self.flush();
    }

    /// Brings Envoy's counters up to date.
    fn flush(&mut self) {
        let now = self.now;
        // Without a snapshot the gauge must not look like a fresh one.
        let since_start = now.since(*self.started_at.get_or_insert(now));
        let live = self.status.live.as_ref();
        let age = live.map_or(since_start, |live| live.age(now));
        let watermark = self.status.follow.as_ref();
        let watermark = watermark.and_then(|follow| follow.watermark_age(now));
        let watermark = watermark.unwrap_or(since_start);
        self.recorder.flush(age.as_secs(), watermark.as_secs());
    }

    /// Ticks at least as often as that, until the next tick says how to go on.
    fn hurry(&mut self, period: Duration) {
        if self.tick.is_none_or(|tick| tick > period) {
            self.set_tick(period);
        }
    }

    fn set_tick(&mut self, period: Duration) {
        if self.tick != Some(period) && abi::set_tick_period(period).is_ok() {
            self.tick = Some(period);
        }
    }
}
