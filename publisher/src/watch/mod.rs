//! `watch`: keeps the snapshot in Redis up to date with the database and with PostHog's ETags.
//!
//! | room | job |
//! |---|---|
//! | [`source`] | the database, as seen from here |
//! | [`events`] | what the threads around the writer tell it |
//! | [`sweep`], [`etag`], [`keyspace`] | the ETags of all teams |
//! | [`writer`] | holds the lock, and starts over when something broke |
//! | [`session`] | what happens while it holds the lock |
//! | `reading` | full reads of the database, taken over |
//! | [`state`], [`difference`] | what is published, and what has to be |
//! | [`doubt`] | which removals are more likely a mistake than a wish |
//! | [`restore`] | what an earlier publisher left |
//! | [`append`], [`snapshot`] | the stream, and the pages |
//! | [`freshness`] | up to when everything is known |
//! | [`status`] | figures for metrics and health |
//!
//! One thread writes; all others tell it what they saw. So the stream has one author, and the order of events is the
//! order in which they were seen.

pub mod append;
pub mod difference;
pub mod doubt;
pub mod etag;
pub mod events;
pub mod freshness;
pub mod keyspace;
mod lineage;
mod reading;
pub mod restore;
pub mod session;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod status;
pub mod sweep;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;

use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::info;

use crate::cli::Watch;
use crate::error::Error;
use crate::monitor::Monitor;
use crate::postgres::Database;
use crate::server::Server;
use source::Source;
use status::Status;
use sweep::{Places, Sweeper};
use writer::Writer;

/// Between two removals of old changes.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// What is watched, and how often.
pub struct Settings {
    /// The Redis that holds the snapshot.
    pub redis: Arc<Server>,
    /// The Redis that holds PostHog's payloads and the ends of quota periods; `None`: the same.
    pub definitions_redis: Option<Arc<Server>>,
    /// What the filter's own keys begin with.
    pub prefix: String,
    /// Where PostHog keeps payloads.
    pub definitions: Definitions,
    /// Between two full reads of the database.
    pub diff_interval: Duration,
    /// Between the beginnings of two checks of all ETags.
    pub sweep_interval: Duration,
    /// Between two snapshots when something changed.
    pub snapshot_interval: Duration,
    /// For how long changes stay in the stream.
    pub retention: Duration,
    /// Between two removals of older changes.
    pub trim_interval: Duration,
    /// Share that one full read may remove without being doubted ([`doubt`]), in percent. 100: all of everything.
    pub max_removal_percent: u32,
}

/// Watches until a signal ends it.
///
/// # Errors
/// When an option is refused, or the system has no randomness or signals.
pub fn run(options: &Watch) -> Result<(), Error> {
    options.logging.start();
    let redis = options.redis.server(&options.redis_url)?;
    let definitions_redis = definitions_redis(options)?;
    let listen_url = options.listen_url.as_deref();
    let ca_file = options.postgres_ca_file.as_deref();
    let database =
        Database::parse(&options.postgres_url, listen_url, ca_file).map_err(|error| {
            let option = if error.listen {
                "--listen-url"
            } else {
                "--postgres-url"
            };
            Error::Option(option, error.problem.to_string())
        })?;
    let settings = Settings {
        redis: Arc::new(redis),
        definitions_redis: definitions_redis.map(Arc::new),
        prefix: options.redis.prefix.clone(),
        definitions: Definitions {
            key_prefix: options.key_prefix.clone(),
            cache_version: options.cache_version.clone(),
            ..Definitions::default()
        },
        diff_interval: options.diff_interval,
        sweep_interval: options.sweep_interval,
        snapshot_interval: options.snapshot_interval,
        retention: options.retention,
        trim_interval: TRIM_INTERVAL,
        max_removal_percent: options.max_removal_percent,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::Signals)?;
    }
    info!(
        postgres = database.address(),
        redis = %settings.redis.address(),
        prefix = settings.prefix,
        "watching"
    );
    let status = Arc::new(Status::default());
    // It answers as long as this lives.
    let _monitor = Monitor::start(options.listen, Arc::clone(&status))?;
    watch(&settings, Arc::new(database), &stop, &status)
}

fn definitions_redis(options: &Watch) -> Result<Option<Server>, Error> {
    let Some(url) = &options.definitions_redis_url else {
        return Ok(None);
    };
    let server = Server::parse(url)
        .map_err(|problem| Error::Option("--definitions-redis-url", problem.to_string()))?;
    let inherited = options.redis.redis_ca_file.as_ref();
    let ca_file = options.definitions_redis_ca_file.as_ref();
    match ca_file.or(inherited.filter(|_| server.is_tls())) {
        None => Ok(Some(server)),
        Some(file) => server.trusting(file).map(Some).map_err(|error| {
            let problem = format!("{} {error}", file.display());
            Error::Option("--definitions-redis-ca-file", problem)
        }),
    }
}

/// Watches until `stop` is set.
///
/// # Errors
/// When the system has no randomness. Everything else is tried again.
pub fn watch(
    settings: &Settings,
    source: Arc<impl Source + 'static>,
    stop: &Arc<AtomicBool>,
    status: &Arc<Status>,
) -> Result<(), Error> {
    let (events, inbox) = sync_channel(events::WAITING);
    let (orders, ordered) = channel();
    let ask = events::start_source(source, Arc::clone(stop), events.clone());

    let definitions = settings.definitions_redis.as_ref();
    let places = Places {
        definitions: Arc::clone(definitions.unwrap_or(&settings.redis)),
        clock: definitions.map(|_| Arc::clone(&settings.redis)),
        settings: settings.definitions.clone(),
        prefix: settings.prefix.clone(),
    };
    let (listening, hints, seen) = (places.clone(), orders.clone(), Arc::clone(status));
    std::thread::spawn(move || {
        keyspace::listen(&listening.definitions, &listening.settings, &hints, &seen);
    });
    let sweeper = Sweeper::new(places, settings.sweep_interval, ordered, events);
    std::thread::spawn(move || sweeper.run());

    Writer::new(settings, stop, status, inbox, ask, orders)?.run();
    Ok(())
}
