//! `watch`: keeps the snapshot in Redis up to date with a source.
//!
//! | room | job |
//! |---|---|
//! | [`events`] | what the threads around the writer tell it |
//! | [`writer`] | holds the lock, and starts over when something broke |
//! | [`session`] | what happens while it holds the lock |
//! | `reading` | full reads of the source, taken over |
//! | [`state`], [`difference`] | what is published, and what has to be |
//! | [`doubt`] | which removals are more likely a mistake than a wish |
//! | [`restore`] | what an earlier publisher left |
//! | [`stream`], [`pages`] | the changes, and the snapshots |
//! | `lineage` | which snapshot continues which |
//! | [`freshness`] | up to when everything is known |
//! | [`status`], [`monitor`] | figures, and `/metrics` and `/healthz` that show them |
//!
//! One thread writes; all others tell it what they saw. So the stream has one author, and the order of events is the
//! order in which they were seen. Which product the records come from it does not know: [`crate::sources`].

pub mod difference;
pub mod doubt;
pub mod events;
pub mod freshness;
mod lineage;
pub mod monitor;
pub mod pages;
mod reading;
pub mod restore;
pub mod session;
pub mod state;
pub mod status;
pub mod stream;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::redis::error::SnapshotStoreError;
use crate::redis::server::Server;
use crate::sources::{ETagSource, Source};
use status::WatchStatus;
use writer::Writer;

/// Where the snapshot is, and how often it is brought up to date.
pub struct WatchSettings {
    /// The Redis that holds the snapshot.
    pub redis: Arc<Server>,
    /// What the filter's own keys begin with.
    pub prefix: String,
    /// Between two full reads of the source.
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

/// Watches until `stop` is set.
///
/// # Errors
/// When the system has no randomness. Everything else is tried again.
pub fn watch(
    settings: &WatchSettings,
    records: Arc<dyn Source>,
    etags: Box<dyn ETagSource>,
    stop: &Arc<AtomicBool>,
    status: &Arc<WatchStatus>,
) -> Result<(), SnapshotStoreError> {
    let (events, inbox) = sync_channel(events::WAITING);
    let ask = events::start_source(records, Arc::clone(stop), events.clone());
    let tell = events::etag_news(events, Arc::clone(status));
    let orders = etags.start(settings.sweep_interval, tell);
    Writer::new(settings, stop, status, inbox, ask, orders)?.run();
    Ok(())
}
