//! How the environments are, as Flagsmith's Edge Proxy tells it, and as `/health` does.

use serde::Serialize;

use super::records::{
    Condition, EnvironmentState, FlagsmithRecord, Polled, Round, polled_hash, round_hash,
    state_hash, version_hash,
};
use super::request::trim_slashes;
use crate::hash::Sha256Hash;
use crate::records::Buckets;
use crate::shared::Store;
use crate::snapshot::status::Live;
use crate::surfaces::evaluated::records::find;
use crate::tenant::Tenant;
use crate::time::UnixMillis;

/// The surface's name in manifests, metrics and health.
pub const NAME: &str = "flagsmith";

/// What an Edge Proxy answers about itself: status, content type and text, where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeHealth {
    /// HTTP status code.
    pub status: u16,
    /// JSON, or nothing.
    pub body: Option<String>,
}

/// Header fields of such an answer beside its type.
pub const fn fields(has_body: bool) -> [(&'static str, &'static str); 2] {
    let vary = match has_body {
        true => {
            "accept-encoding, origin, access-control-request-method, access-control-request-headers"
        }
        false => "origin, access-control-request-method, access-control-request-headers",
    };
    [("vary", vary), ("access-control-allow-credentials", "true")]
}

/// Answers one of the Edge Proxy's health paths, slashes at both of its ends aside; `None` for any other path. `unix`: the
/// time; without one no round is taken for stale.
pub fn answer(
    path: &[u8],
    store: &impl Store,
    buckets: &Buckets,
    unix: Option<UnixMillis>,
) -> Option<EdgeHealth> {
    match trim_slashes(path) {
        b"proxy/health/liveness" => Some(EdgeHealth {
            status: 200,
            body: None,
        }),
        b"proxy/health" | b"proxy/health/readiness" => Some(readiness(round(store, buckets), unix)),
        _ => None,
    }
}

/// What the publisher said last of its rounds.
pub fn round(store: &impl Store, buckets: &Buckets) -> Option<Round> {
    match record(store, buckets, &round_hash()) {
        Some(FlagsmithRecord::Round(round)) => Some(round),
        _ => None,
    }
}

fn record(store: &impl Store, buckets: &Buckets, hash: &Sha256Hash) -> Option<FlagsmithRecord> {
    find(store, buckets, hash).ok()?.record()
}

fn readiness(round: Option<Round>, unix: Option<UnixMillis>) -> EdgeHealth {
    let completed = round.filter(|round| round.completed_at > 0);
    let Some(round) = completed else {
        return EdgeHealth {
            status: 503,
            body: Some(r#"{"status":"error","reason":"environment document(s) not updated.","last_successful_update":null}"#.to_owned()),
        };
    };
    let at = UnixMillis::from_millis(round.completed_at).rfc3339();
    let is_stale = unix.zip(round.grace).is_some_and(|(now, grace)| {
        let age = now.as_millis().saturating_sub(round.completed_at);
        age > u64::from(grace) * 1_000
    });
    let (status, word, reason) = match is_stale {
        true => (503, "error", r#""environment document(s) stale.""#),
        false => (200, "ok", "null"),
    };
    EdgeHealth {
        status,
        body: Some(format!(
            r#"{{"status":"{word}","reason":{reason},"last_successful_update":"{at}"}}"#
        )),
    }
}

/// Whether the surface can decide requests: its source was heard of, or there is none to wait for.
pub fn is_ready(live: &Live, store: &impl Store, buckets: &Buckets) -> bool {
    live.has_source(NAME) != Some(true) || round(store, buckets).is_some()
}

/// What `/health` says of the surface.
#[derive(Debug, Serialize)]
pub struct SurfaceHealth {
    /// Whether the publisher has a source for it.
    pub source: bool,
    /// When all environments had been read last.
    pub last_complete_round: Option<String>,
    /// Whether the list of keys is known to be complete.
    pub keys_known: bool,
    /// How many environments there are.
    pub environment_count: u32,
    /// Those with the smallest numbers, 100 at most.
    pub environments: Vec<EnvironmentHealth>,
}

/// What `/health` says of an environment.
#[derive(Debug, Serialize)]
pub struct EnvironmentHealth {
    /// Its number.
    pub environment: u32,
    /// Version of the document that is published. `None`: there is none.
    pub version: Option<String>,
    /// What came of its last poll; `None`: it was not polled yet.
    pub state: Option<&'static str>,
    /// Since when it is in that state.
    pub since: Option<String>,
    /// Since its last good poll, as of when the publisher said so last: at most the poll frequency, and a second, too much.
    pub poll_age_ms: Option<u64>,
}

fn environment(
    (tenant, polled_at): (Tenant, u64),
    store: &impl Store,
    buckets: &Buckets,
    unix: Option<UnixMillis>,
) -> EnvironmentHealth {
    let state = match record(store, buckets, &state_hash(tenant)) {
        Some(FlagsmithRecord::State(state)) => Some(state),
        _ => None,
    };
    let version = match record(store, buckets, &version_hash(tenant)) {
        Some(FlagsmithRecord::Version(version)) => Some(version),
        _ => None,
    };
    let word = |state: EnvironmentState| match state.condition {
        Condition::Polled => "polled",
        Condition::Failing => "failing",
        Condition::Refused => "refused",
    };
    let age = |unix: UnixMillis| unix.as_millis().saturating_sub(polled_at);
    EnvironmentHealth {
        environment: tenant.0,
        version: version.map(|version| String::from_utf8_lossy(version.as_bytes()).into_owned()),
        state: state.map(word),
        since: state.map(|state| UnixMillis::from_millis(state.since).rfc3339()),
        poll_age_ms: unix.filter(|_| polled_at > 0).map(age),
    }
}

/// Describes the surface.
pub fn describe(
    live: Option<&Live>,
    store: &impl Store,
    buckets: &Buckets,
    unix: Option<UnixMillis>,
) -> SurfaceHealth {
    let round = round(store, buckets);
    let polled = match record(store, buckets, &polled_hash()) {
        Some(FlagsmithRecord::Polled(polled)) => polled,
        _ => Polled::default(),
    };
    let listed = polled.listed.into_iter();
    let completed = round.filter(|round| round.completed_at > 0);
    SurfaceHealth {
        source: live.and_then(|live| live.has_source(NAME)) == Some(true),
        last_complete_round: completed
            .map(|round| UnixMillis::from_millis(round.completed_at).rfc3339()),
        keys_known: round.is_some_and(|round| round.knows_keys),
        environment_count: polled.count,
        environments: listed
            .map(|one| environment(one, store, buckets, unix))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn told(completed_at: u64, grace: Option<u32>, now: Option<u64>) -> (u16, String) {
        let round = Round {
            completed_at,
            grace,
            knows_keys: true,
        };
        let health = readiness(Some(round), now.map(UnixMillis::from_millis));
        (health.status, health.body.unwrap())
    }

    #[test]
    fn readiness_is_the_edge_proxy_s() {
        let never = r#"{"status":"error","reason":"environment document(s) not updated.","last_successful_update":null}"#;
        assert_eq!(told(0, Some(1), Some(9)), (503, never.to_owned()));
        assert_eq!(readiness(None, None).status, 503);
        let fresh = r#"{"status":"ok","reason":null,"last_successful_update":"1970-01-01T00:00:01.000000000Z"}"#;
        assert_eq!(told(1_000, Some(2), Some(3_000)), (200, fresh.to_owned()));
        assert_eq!(
            told(1_000, None, Some(u64::MAX)).0,
            200,
            "no grace: never stale"
        );
        assert_eq!(told(1_000, Some(2), None).0, 200);
        let stale = r#"{"status":"error","reason":"environment document(s) stale.","last_successful_update":"1970-01-01T00:00:01.000000000Z"}"#;
        assert_eq!(told(1_000, Some(2), Some(3_001)), (503, stale.to_owned()));
    }
}
