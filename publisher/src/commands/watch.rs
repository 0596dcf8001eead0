//! `watch`: keeps the snapshot in Redis up to date with its sources.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::info;

use crate::error::Error;
use crate::logging::LoggingOptions;
use crate::redis::options::ConnectionOptions;
use crate::redis::server::Server;
use crate::sources::options::{OpenSources, SourceOptions, interval};
use crate::watch::doubt::MAX_REMOVAL_PERCENT;
use crate::watch::monitor::{Listen, Monitor};
use crate::watch::status::WatchStatus;
use crate::watch::{WatchSettings, watch};

/// Between two removals of old changes.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// Options of `watch`.
#[derive(Debug, Args)]
pub struct WatchOptions {
    /// What is watched.
    #[command(flatten)]
    pub source: SourceOptions,
    /// Where the snapshot is.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Time between two full reads of the database or the file: 100ms to 24h. A file that changed is read at once
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_DIFF_INTERVAL",
        default_value = "30s",
        value_parser = interval
    )]
    pub diff_interval: Duration,
    /// Time between two checks of all ETags, or between two watermarks where none are watched: 100ms to 24h. A filter answers
    /// 304 by itself while the last check is younger than its snapshot.etag_max_age
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_SWEEP_INTERVAL",
        default_value = "1s",
        value_parser = interval
    )]
    pub sweep_interval: Duration,
    /// Time between two snapshots when something changed: 100ms to 24h
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_SNAPSHOT_INTERVAL",
        default_value = "10m",
        value_parser = interval
    )]
    pub snapshot_interval: Duration,
    /// How long changes stay in the stream: 100ms to 24h. A filter that was away for longer loads the snapshot
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_RETENTION",
        default_value = "1h",
        value_parser = interval
    )]
    pub retention: Duration,
    /// Largest part that one full read may remove without being doubted, in percent; 100 trusts all. Removals are held
    /// back when they are more than this of the teams and at least three of them, more than this of teams and credentials
    /// together and more than 100, every team, or every one of several credentials. One revoked credential always goes out
    #[arg(
        long,
        value_name = "PERCENT",
        env = "FLAG_DEFINITIONS_MAX_REMOVAL_PERCENT",
        default_value_t = MAX_REMOVAL_PERCENT,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    pub max_removal_percent: u32,
    /// Address and port of /metrics and /healthz, or off
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "FLAG_DEFINITIONS_LISTEN",
        default_value = "127.0.0.1:9105"
    )]
    pub listen: Listen,
    /// How logs are written.
    #[command(flatten)]
    pub logging: LoggingOptions,
}

/// Watches until a signal ends it.
///
/// # Errors
/// When an option is refused, or the system has no randomness or signals.
pub fn run(options: &WatchOptions) -> Result<(), Error> {
    options.logging.start();
    let redis = Arc::new(options.connection.server()?);
    let OpenSources {
        sources,
        postgres,
        file,
    } = options.source.open(&options.connection, &redis)?;
    let settings = options.settings(redis);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::Signals)?;
    }
    info!(
        postgres,
        file = file.map(|file| file.display().to_string()),
        redis = %settings.redis.address(),
        prefix = settings.prefix,
        "watching"
    );
    let status = Arc::new(WatchStatus::default());
    // It answers as long as this lives.
    let _monitor = Monitor::start(options.listen, Arc::clone(&status))?;
    Ok(watch(&settings, sources, &stop, &status)?)
}

impl WatchOptions {
    fn settings(&self, redis: Arc<Server>) -> WatchSettings {
        WatchSettings {
            redis,
            prefix: self.connection.prefix.clone(),
            diff_interval: self.diff_interval,
            sweep_interval: self.sweep_interval,
            snapshot_interval: self.snapshot_interval,
            retention: self.retention,
            trim_interval: TRIM_INTERVAL,
            max_removal_percent: self.max_removal_percent,
        }
    }
}
