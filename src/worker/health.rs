//! `/ready` and `/health`, on a listener of their own. Nothing secret is in them.

use serde::Serialize;

use crate::shared::{Scope, Store};
use crate::snapshot::attempt;
use crate::snapshot::attempt::Attempt;
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::posthog::directory::RecordCounts;
use crate::surfaces::posthog::settings::PostHogSettings;
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

/// An answer about the filter itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthAnswer {
    /// HTTP status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: &'static str,
    /// Body, maybe empty.
    pub body: Vec<u8>,
}

impl HealthAnswer {
    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: body.as_bytes().to_vec(),
        }
    }

    /// To a request that says it is gRPC: of any other answer Envoy would make a 200, and of "not ready" with it.
    pub fn refusal() -> Self {
        Self::text(415, "")
    }
}

/// Answers a request of the health listener; `None` when the path is not one of its two.
pub fn answer(
    path: &[u8],
    store: &impl Store,
    settings: &PostHogSettings,
    scope: &Scope,
    now: Monotonic,
) -> Option<HealthAnswer> {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let status = || Status::read(store, scope).unwrap_or_default();
    match path {
        // PostHog's own cache can stand in for a snapshot.
        b"/ready" if status().is_ready(settings.read_through.enabled) => {
            Some(HealthAnswer::text(200, "ready\n"))
        }
        b"/ready" => Some(HealthAnswer::text(503, "no snapshot was loaded yet\n")),
        b"/health" => Some(HealthAnswer {
            status: 200,
            content_type: "application/json",
            body: serde_json::to_vec(&describe(&status(), store, settings, scope, now))
                .unwrap_or_default(),
        }),
        _ => None,
    }
}

fn describe(
    status: &Status,
    store: &impl Store,
    settings: &PostHogSettings,
    scope: &Scope,
    now: Monotonic,
) -> Health {
    let live = status.live.as_ref();
    let millis = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let is_applied = Attempt::is_in_progress(store, &attempt::name(scope)).unwrap_or(false);
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
            state: status.loader_state(is_applied),
            longest_slice_us: live.map(|live| live.longest_slice_micros),
        },
        unknown_clusters: status
            .unknown_clusters
            .iter()
            .filter(|cluster| settings.has_cluster(cluster))
            .cloned()
            .collect(),
        stale: status.freshness(now, &settings.snapshot) != Freshness::Current,
    }
}
