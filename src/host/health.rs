//! `/ready` and `/health`, on a listener of their own. Nothing secret is in them.

use serde::Serialize;

use super::plugin::Plugin;
use super::respond::respond_plainly;
use crate::snapshot::attempt;
use crate::snapshot::attempt::Attempt;
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::directory::RecordCounts;
use crate::time::Monotonic;

#[derive(Serialize)]
struct Health {
    generation: Option<u64>,
    stream_id: Option<String>,
    snapshot_age_ms: Option<u64>,
    watermark_age_ms: Option<u64>,
    records: RecordCounts,
    loader: LoaderHealth,
    /// Of those in the settings. Left out when empty, as nearly always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_clusters: Vec<String>,
    stale: bool,
}

#[derive(Serialize)]
struct LoaderHealth {
    /// `idle`; `loading`; `incomplete`: a newer one was applied in part and nobody is refused until a load is
    /// complete; or `bad_snapshot`: the newest one cannot be loaded, the last good one stays.
    state: &'static str,
    /// Longest time that the last load held a VM.
    longest_slice_us: Option<u64>,
}

/// Answers a request of the health listener; `false` when the path is not one of its two.
pub fn answer(plugin: &mut Plugin, path: &[u8]) -> bool {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let now = plugin.now();
    let status = Status::read(&plugin.store, &plugin.scopes.data).unwrap_or_default();
    // PostHog's own cache can stand in for a snapshot, where none is published.
    let needs_none = plugin.settings.posthog.read_through.enabled && status.unpublished;
    let sent = match path {
        b"/ready" if status.live.is_some() || needs_none => {
            respond_plainly(200, "text/plain", b"ready\n")
        }
        b"/ready" => respond_plainly(503, "text/plain", b"no snapshot was loaded yet\n"),
        b"/health" => {
            let body = serde_json::to_vec(&describe(plugin, &status, now)).unwrap_or_default();
            respond_plainly(200, "application/json", &body)
        }
        _ => return false,
    };
    sent.is_ok()
}

/// Refuses a request that says it is gRPC: of its answer Envoy would make a 200, and of "not ready" with it.
pub fn refuse() -> bool {
    respond_plainly(Answer::UnsupportedMediaType.status(), "text/plain", b"").is_ok()
}

fn describe(plugin: &Plugin, status: &Status, now: Monotonic) -> Health {
    let live = status.live.as_ref();
    let millis = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let applying = status.applying.as_ref();
    let loading = applying.is_some_and(|next| next.complete)
        || Attempt::is_in_progress(&plugin.store, &attempt::name(&plugin.scopes.data))
            .unwrap_or(false);
    Health {
        generation: live.map(|live| live.generation),
        stream_id: live.map(|live| live.stream_id.to_string()),
        snapshot_age_ms: live.map(|live| millis(live.age(now))),
        watermark_age_ms: status
            .follow
            .as_ref()
            .and_then(|follow| follow.watermark_age(now))
            .map(millis),
        records: live
            .map(|live| RecordCounts::of(&live.records))
            .unwrap_or_default(),
        loader: LoaderHealth {
            state: match (&status.bad, applying) {
                _ if loading => "loading",
                (Some(_), _) => "bad_snapshot",
                (None, Some(_)) => "incomplete",
                (None, None) => "idle",
            },
            longest_slice_us: live.map(|live| live.longest_slice_micros),
        },
        unknown_clusters: status
            .unknown_clusters
            .iter()
            .filter(|cluster| plugin.settings.posthog.has_cluster(cluster))
            .cloned()
            .collect(),
        stale: status.freshness(now, &plugin.settings.posthog.snapshot) != Freshness::Current,
    }
}
