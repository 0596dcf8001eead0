//! `watch`: keeps the snapshot in Redis up to date with its sources.
//!
//! | room | job |
//! |---|---|
//! | [`events`] | what the threads around the writer tell it |
//! | [`writer`] | holds the lock, and starts over when something broke |
//! | [`session`] | what happens while it holds the lock |
//! | `reading` | full reads of the source, taken over |
//! | `watermarks` | ETags as their source tells them, and as of when everything is known |
//! | [`shelf`], `documents` | what sources of documents said, and how it is published |
//! | [`kept`] | texts of upstreams, for a publisher that starts while one is away |
//! | [`usage`] | reports of what was served |
//! | [`state`], [`difference`] | what is published, and what has to be |
//! | [`doubt`] | which removals are more likely a mistake than a wish |
//! | [`restore`] | what an earlier publisher left |
//! | `inherited` | what of that goes or changes before a watermark confirms it |
//! | [`stream`], [`pages`] | the changes, and the snapshots |
//! | `lineage` | which snapshot continues which |
//! | [`freshness`] | up to when everything is known |
//! | [`status`], [`monitor`] | figures, and `/metrics` and `/healthz` that show them |
//!
//! One thread writes; all others tell it what they saw. So the stream has one author, and the order of events is the
//! order in which they were seen. Which products the records come from it does not know: [`crate::sources`].

pub mod difference;
mod documents;
pub mod doubt;
pub mod events;
pub mod freshness;
mod inherited;
pub mod kept;
mod lineage;
pub mod monitor;
pub mod pages;
mod reading;
pub mod restore;
pub mod session;
pub mod shelf;
pub mod state;
pub mod status;
pub mod stream;
pub mod usage;
mod watermarks;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tracing::error;

use crate::redis::error::SnapshotStoreError;
use crate::redis::server::Server;
use crate::sources::kinds::RecordOwner;
use crate::sources::{SourceNature, WatchedSources};
use kept::Keeper;
use pages::SourcesTold;
use shelf::Shelf;
use status::WatchStatus;
use usage::Reporter;
use writer::{Wires, Writer};

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

/// Watches sources until `stop` is set.
///
/// # Errors
/// When the system has no randomness. Everything else is tried again.
pub fn watch(
    settings: &WatchSettings,
    sources: WatchedSources,
    stop: &Arc<AtomicBool>,
    status: &Arc<WatchStatus>,
) -> Result<(), SnapshotStoreError> {
    let WatchedSources {
        records,
        etags,
        documents,
    } = sources;
    // The writer waits for news as long as this lives, also when a source's threads have ended.
    let (events, inbox) = sync_channel(events::WAITING);
    let mut told = SourcesTold {
        surfaces: Vec::new(),
        etags_watched: etags.is_some(),
    };
    let nature = records.as_ref().map(|records| records.nature());
    let ask = records.map(|records| {
        let owner = RecordOwner::of_sources();
        told.surfaces.push(owner.name().to_owned());
        let lists = records.lists().iter();
        told.surfaces.extend(lists.map(|list| (*list).to_owned()));
        events::start_source(records, Arc::clone(stop), events.clone())
    });
    let orders = etags.map(|etags| {
        let tell = events::etag_news(events.clone(), Arc::clone(status));
        etags.start(settings.sweep_interval, tell)
    });
    let (mut owners, mut reporters, mut keepers) = (Vec::new(), Vec::new(), Vec::new());
    for mut source in documents {
        let named = RecordOwner::named(source.surface());
        let Some(owner) = named.filter(|owner| owner.has_documents()) else {
            // A fault of this program.
            error!(
                surface = source.surface(),
                "a source of documents of no known surface is left out"
            );
            continue;
        };
        told.surfaces.push(owner.name().to_owned());
        owners.push(owner);
        let reports = source.reports(events::usage_news(owner, events.clone()));
        reporters.extend(reports.map(|reports| Reporter::new(owner, reports)));
        keepers.extend(source.keeps().map(|kept| Keeper::new(owner, kept)));
        if let Some(polls) = source.polls() {
            status.update(|figures| figures.polls.push(polls));
        }
        source.start(events::document_news(owner, events.clone()), stop);
    }
    let wires = Wires {
        inbox,
        ask,
        orders,
        shelf: Shelf::new(owners, keepers),
        reporters,
        told,
        nature: nature.unwrap_or(SourceNature::Database),
    };
    Writer::new(settings, stop, status, wires)?.run();
    drop(events);
    Ok(())
}
