//! How the definitions are, as `/health` tells it.

use serde::Serialize;

use super::records::{OfrepRecord, SourcesState, sources_hash};
use crate::records::Buckets;
use crate::shared::Store;
use crate::snapshot::status::Live;
use crate::surfaces::evaluated::records::{Found, find};
use crate::time::UnixMillis;

/// The surface's name in manifests, metrics and health.
pub const NAME: &str = "ofrep";

/// What a manifest names beside surfaces where keys have a source. Without one no key is known to be none.
pub const KEYS: &str = "ofrep_keys";

/// What the publisher said last of its sources; `None`: nothing yet, or shared data fails.
pub fn sources(store: &impl Store, buckets: &Buckets) -> Option<SourcesState> {
    match find(store, buckets, &sources_hash()) {
        Ok(Found::Record(OfrepRecord::Sources(state))) => Some(state),
        _ => None,
    }
}

/// Whether the surface can decide requests: its sources were heard of, or there are none to wait for.
pub fn is_ready(live: &Live, store: &impl Store, buckets: &Buckets) -> bool {
    live.has_source(NAME) != Some(true) || sources(store, buckets).is_some()
}

/// What `/health` says of the surface.
#[derive(Debug, Serialize)]
pub struct DefinitionsHealth {
    /// Whether the publisher has sources for it.
    pub source: bool,
    /// When all sources had been read last; `None`: they never were.
    pub last_read: Option<String>,
    /// Whether the list of selections is known to be complete.
    pub selections_known: bool,
}

/// Describes the surface.
pub fn describe(live: Option<&Live>, store: &impl Store, buckets: &Buckets) -> DefinitionsHealth {
    let sources = sources(store, buckets);
    let read = sources.filter(|state| state.read_at > 0);
    DefinitionsHealth {
        source: live.and_then(|live| live.has_source(NAME)) == Some(true),
        last_read: read.map(|state| UnixMillis::from_millis(state.read_at).rfc3339()),
        selections_known: sources.is_some_and(|state| state.knows_selections),
    }
}
