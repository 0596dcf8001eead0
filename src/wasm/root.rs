//! Root contexts: one for each plugin configuration in each VM.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::abi;
use super::respond::respond_plainly;
use super::shell::WasmHost;
use super::store::SharedData;
use crate::config::{self, Role, Settings};
use crate::records::Buckets;
use crate::shared::{Ambient, Scope};
use crate::snapshot::LoaderJob;
#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
use crate::surfaces::Pair;
#[cfg(feature = "flagsmith")]
use crate::surfaces::flagsmith::{self, Flagsmith};
#[cfg(feature = "ofrep")]
use crate::surfaces::ofrep::Ofrep;
use crate::surfaces::posthog::PostHog;
use crate::surfaces::{self, Surface};
use crate::time::Monotonic;
use crate::worker::health::{self, HealthAnswer, RepeatedHealth};
use crate::worker::host::CallId;
use crate::worker::{Clusters, Recorder, Worker, registry};

/// A root context, shared with its streams. Callbacks of one VM never nest, so borrowing it always works;
/// where it would not, the request goes on untouched rather than trapping the VM.
pub type Shared = Rc<RefCell<Root>>;

#[cfg(feature = "flagsmith")]
type Two = Pair<PostHog, Flagsmith>;
#[cfg(not(feature = "flagsmith"))]
type Two = PostHog;
#[cfg(feature = "ofrep")]
type Surfaces = Pair<Two, Ofrep>;
#[cfg(not(feature = "ofrep"))]
type Surfaces = Two;

/// The worker of an Envoy.
pub type EnvoyWorker = Worker<WasmHost, Surfaces>;

/// What a valid configuration brings to life.
pub enum Plugin {
    /// It answers flag definition requests.
    Filter(Box<Filter>),
    /// It answers `/ready` and `/health`.
    Health(Box<HealthListener>),
}

/// The filter of one plugin configuration.
pub struct Filter {
    worker: EnvoyWorker,
    /// How many requests to our own paths came in a row.
    ours: u8,
    /// Where paths of it are answered here as well.
    health: Option<Box<HealthListener>>,
}

/// After so many requests to our own paths in a row, the next is expected to be one as well.
const EXPECTED_AFTER: u8 = 16;

impl Filter {
    /// Whether the next request is expected to be for our own paths, as in an Envoy that carries nothing else: then
    /// all of its headers are read at once, which spares a host call. Otherwise the path is read first.
    pub const fn expects_ours(&self) -> bool {
        self.ours >= EXPECTED_AFTER
    }

    /// Whether a request is for one of our own paths.
    pub fn owns(&mut self, path: &[u8]) -> bool {
        let ours = self.worker.surface().owns(path);
        self.ours = if ours { self.ours.saturating_add(1) } else { 0 };
        ours
    }

    /// What answers a request to this path, where it is one of `health.paths`.
    pub fn health(&self, path: &[u8]) -> Option<&HealthListener> {
        let listener = self.health.as_deref()?;
        listener.settings.health.owns(path).then_some(listener)
    }

    /// The worker, in a callback of this context.
    pub fn worker(&mut self, context: u32) -> &mut EnvoyWorker {
        self.worker.host().begin(context);
        &mut self.worker
    }

    /// A stream ends.
    pub fn stream_done(&mut self, stream: u32) {
        for call in self.worker.host().gone(stream) {
            self.worker.lost(call);
        }
        self.worker.on_stream_done(stream);
    }
}

/// What tells how the filter is.
pub struct HealthListener {
    settings: Settings,
    scope: Scope,
    /// The time; when the clock fails, the last time that it did not.
    now: Cell<Monotonic>,
    /// Where anybody may ask.
    repeated: Option<RefCell<RepeatedHealth>>,
}

impl HealthListener {
    /// Answers a request; `false` when the path is not one of ours, or nothing was sent.
    pub fn answer(&self, path: &[u8]) -> bool {
        let host = WasmHost::new(0);
        if let Some(now) = host.monotonic() {
            self.now.set(now);
        }
        let now = self.now.get();
        let (settings, scope) = (&self.settings, &self.scope);
        let make = || health::answer(path, &SharedData, settings, scope, now, host.unix());
        let repeated = self.repeated.as_ref();
        let answer = match repeated.and_then(|repeated| repeated.try_borrow_mut().ok()) {
            Some(mut repeated) => repeated.answer(path, now, make),
            None => make(),
        };
        answer.is_some_and(|answer| send(&answer))
    }

    /// Refuses a request that says it is gRPC.
    pub fn refuse(&self) -> bool {
        send(&HealthAnswer::refusal())
    }
}

fn send(answer: &HealthAnswer) -> bool {
    respond_plainly(answer).is_ok()
}

/// One root context.
pub struct Root {
    id: u32,
    plugin: Option<Plugin>,
}

impl Root {
    /// A root context that is not configured yet.
    pub const fn new(id: u32) -> Self {
        Self { id, plugin: None }
    }

    /// Reads the plugin configuration; `false` makes Envoy reject it.
    pub fn configure(&mut self, size: usize) -> bool {
        let configuration = match abi::plugin_configuration(size) {
            Ok(bytes) => bytes,
            Err(status) => {
                log::error!("plugin configuration: cannot be read: {status}");
                return false;
            }
        };
        let settings = match Settings::from_json(&configuration) {
            Ok(settings) => settings,
            Err(error) => {
                log::error!("{error}");
                return false;
            }
        };
        let scopes = config::scopes(&settings.posthog);
        let listener = |settings: Settings| {
            Box::new(HealthListener {
                repeated: (settings.role == Role::Filter).then(RefCell::default),
                settings,
                scope: scopes.data.clone(),
                now: Cell::default(),
            })
        };
        let plugin = match settings.role {
            Role::Health => Plugin::Health(listener(settings)),
            Role::Filter => {
                let tells_health = !settings.health.paths.is_empty();
                let health = tells_health.then(|| listener(settings.clone()));
                let host = WasmHost::new(self.id);
                let clusters = Clusters::new(scopes.data.clone(), settings.posthog.clusters());
                let loader = LoaderJob::new(
                    &settings.posthog.snapshot,
                    settings.posthog.redis.snapshot.clone(),
                    Buckets::new(&scopes.data, settings.posthog.snapshot.buckets),
                    surfaces::check,
                    &host,
                );
                #[cfg(feature = "flagsmith")]
                let usage = settings.posthog.usage.enabled.then(|| {
                    let posthog = &settings.posthog;
                    flagsmith::usage::job(
                        &config::reported_scope(posthog),
                        posthog.redis.snapshot.clone(),
                        &posthog.snapshot.prefix,
                        posthog.usage.flush_interval,
                        &host,
                    )
                });
                #[cfg(feature = "flagsmith")]
                let flagsmith = Flagsmith::new(
                    settings.flagsmith,
                    settings.posthog.snapshot.clone(),
                    settings.posthog.redis.snapshot.clone(),
                    scopes.data.clone(),
                    usage,
                    &host,
                );
                #[cfg(feature = "ofrep")]
                let ofrep = Ofrep::new(
                    settings.ofrep,
                    settings.posthog.snapshot.clone(),
                    settings.posthog.redis.snapshot.clone(),
                    scopes.data.clone(),
                    &host,
                );
                let surface = PostHog::new(settings.posthog, scopes, &host);
                #[cfg(feature = "flagsmith")]
                let surface = Pair {
                    first: surface,
                    second: flagsmith,
                };
                #[cfg(feature = "ofrep")]
                let surface = Pair {
                    first: surface,
                    second: ofrep,
                };
                let recorder = Recorder::new(&settings.metrics.teams);
                let mut worker =
                    Worker::new(self.id, host, surface, Some(loader), recorder, clusters);
                if let Err(status) = worker.start() {
                    log::error!("metrics: cannot be defined: {status}");
                    return false;
                }
                for warning in &settings.warnings {
                    log::warn!("{warning}");
                }
                Plugin::Filter(Box::new(Filter {
                    worker,
                    ours: 0,
                    health,
                }))
            }
        };
        self.plugin = Some(plugin);
        true
    }

    /// The configured plugin.
    pub const fn plugin(&mut self) -> Option<&mut Plugin> {
        self.plugin.as_mut()
    }

    /// The filter, where the plugin is one.
    pub const fn filter(&mut self) -> Option<&mut Filter> {
        match &mut self.plugin {
            Some(Plugin::Filter(filter)) => Some(filter),
            _ => None,
        }
    }

    /// Regular work.
    pub fn tick(&mut self) {
        let id = self.id;
        if let Some(filter) = self.filter() {
            filter.worker(id).on_tick();
        }
    }

    /// A callout's reply is delivered to a context.
    pub fn reply(&mut self, context: u32, token: u32, body_size: usize) {
        if let Some(filter) = self.filter() {
            let worker = filter.worker(context);
            worker.host().delivered(CallId(token));
            worker.on_reply(CallId(token), body_size);
        }
    }

    /// The context ends.
    pub fn done(&mut self) {
        registry::leave(self.id);
        if let Some(filter) = self.filter() {
            filter.worker.stop();
        }
    }
}
