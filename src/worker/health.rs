//! `/ready` and `/health`, on a listener of their own. Nothing secret is in them.

use std::time::Duration;

use serde::Serialize;

use crate::config::Settings;
use crate::http::query::split_query;
#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
use crate::records::Buckets;
use crate::shared::{Scope, Store};
use crate::snapshot::attempt;
use crate::snapshot::attempt::Attempt;
use crate::snapshot::status::{Freshness, Status};
#[cfg(feature = "flagsmith")]
use crate::surfaces::flagsmith::health as flagsmith;
#[cfg(feature = "ofrep")]
use crate::surfaces::ofrep::health as ofrep;
use crate::surfaces::posthog::directory::RecordCounts;
use crate::time::{Monotonic, UnixMillis};

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
    surfaces: Surfaces,
}

/// The surfaces that are switched on, but for PostHog's: all else is its.
#[derive(Serialize)]
struct Surfaces {
    #[cfg(feature = "flagsmith")]
    #[serde(skip_serializing_if = "Option::is_none")]
    flagsmith: Option<flagsmith::SurfaceHealth>,
    #[cfg(feature = "ofrep")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ofrep: Option<ofrep::DefinitionsHealth>,
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
    /// `content-type`, of an answer with a body.
    pub content_type: Option<&'static str>,
    /// Its other header fields.
    pub fields: Vec<(&'static str, &'static str)>,
    /// Body, maybe empty.
    pub body: Vec<u8>,
}

impl HealthAnswer {
    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: Some("text/plain"),
            fields: NO_STORE.to_vec(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// To a request that says it is gRPC: of any other answer Envoy would make a 200, and of "not ready" with it.
    pub fn refusal() -> Self {
        Self::text(415, "")
    }
}

/// What is said of a moment is not for later.
const NO_STORE: [(&str, &str); 1] = [("cache-control", "no-store")];

/// For how long the answer to `/health` is given again where it is public.
const REPEATED: Duration = Duration::from_secs(1);

/// The last answer to `/health`. It takes milliseconds to make, and on a public listener anybody may ask for it.
#[derive(Debug, Default)]
pub struct RepeatedHealth(Option<(Monotonic, HealthAnswer)>);

impl RepeatedHealth {
    /// The answer to a request for this path, made anew once a second at most; other paths are always.
    pub fn answer(
        &mut self,
        path: &[u8],
        now: Monotonic,
        make: impl FnOnce() -> Option<HealthAnswer>,
    ) -> Option<HealthAnswer> {
        if split_query(path).0 != b"/health" {
            return make();
        }
        self.0.take_if(|(at, _)| now.since(*at) >= REPEATED);
        if self.0.is_none() {
            self.0 = make().map(|answer| (now, answer));
        }
        self.0.as_ref().map(|(_, answer)| answer.clone())
    }
}

/// Answers a request of the health listener; `None` when the path is not one of its own.
pub fn answer(
    path: &[u8],
    store: &impl Store,
    settings: &Settings,
    scope: &Scope,
    now: Monotonic,
    unix: Option<UnixMillis>,
) -> Option<HealthAnswer> {
    let path = split_query(path).0;
    let status = || Status::read(store, scope).unwrap_or_default();
    match path {
        b"/ready" if is_ready(&status(), store, settings, scope) => {
            Some(HealthAnswer::text(200, "ready\n"))
        }
        b"/ready" => Some(HealthAnswer::text(503, "no snapshot was loaded yet\n")),
        b"/health" => Some(HealthAnswer {
            status: 200,
            content_type: Some("application/json"),
            fields: NO_STORE.to_vec(),
            body: serde_json::to_vec(&describe(&status(), store, settings, scope, (now, unix)))
                .unwrap_or_default(),
        }),
        path => of_flagsmith(path, store, settings, scope, unix),
    }
}

/// Whether all surfaces that are switched on can decide requests.
fn is_ready(status: &Status, store: &impl Store, settings: &Settings, scope: &Scope) -> bool {
    // PostHog's own cache can stand in for a snapshot.
    let stands_in = settings.posthog.enabled && settings.posthog.read_through.enabled;
    if !status.is_ready(stands_in) {
        return false;
    }
    #[cfg(any(feature = "flagsmith", feature = "ofrep"))]
    if let Some(live) = &status.live {
        let buckets = Buckets::new(scope, settings.posthog.snapshot.buckets);
        #[cfg(feature = "flagsmith")]
        if settings.flagsmith.enabled && !flagsmith::is_ready(live, store, &buckets) {
            return false;
        }
        #[cfg(feature = "ofrep")]
        if settings.ofrep.enabled && !ofrep::is_ready(live, store, &buckets) {
            return false;
        }
    }
    let _ = (store, scope);
    true
}

#[cfg(feature = "flagsmith")]
fn of_flagsmith(
    path: &[u8],
    store: &impl Store,
    settings: &Settings,
    scope: &Scope,
    unix: Option<UnixMillis>,
) -> Option<HealthAnswer> {
    if !settings.flagsmith.enabled {
        return None;
    }
    let buckets = Buckets::new(scope, settings.posthog.snapshot.buckets);
    let answer = flagsmith::answer(path, store, &buckets, unix)?;
    Some(HealthAnswer {
        status: answer.status,
        content_type: answer.body.is_some().then_some("application/json"),
        fields: flagsmith::fields(answer.body.is_some()).to_vec(),
        body: answer.body.unwrap_or_default().into_bytes(),
    })
}

#[cfg(not(feature = "flagsmith"))]
fn of_flagsmith(
    _: &[u8],
    _: &impl Store,
    _: &Settings,
    _: &Scope,
    _: Option<UnixMillis>,
) -> Option<HealthAnswer> {
    None
}

fn describe(
    status: &Status,
    store: &impl Store,
    settings: &Settings,
    scope: &Scope,
    (now, unix): (Monotonic, Option<UnixMillis>),
) -> Health {
    let _ = unix;
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
            .filter(|cluster| settings.posthog.has_cluster(cluster))
            .cloned()
            .collect(),
        stale: status.freshness(now, &settings.posthog.snapshot) != Freshness::Current,
        surfaces: Surfaces {
            #[cfg(feature = "flagsmith")]
            flagsmith: settings.flagsmith.enabled.then(|| {
                let buckets = Buckets::new(scope, settings.posthog.snapshot.buckets);
                flagsmith::describe(live, store, &buckets, unix)
            }),
            #[cfg(feature = "ofrep")]
            ofrep: settings.ofrep.enabled.then(|| {
                let buckets = Buckets::new(scope, settings.posthog.snapshot.buckets);
                ofrep::describe(live, store, &buckets)
            }),
        },
    }
}

#[cfg(all(test, feature = "ofrep"))]
mod tests {
    use super::*;
    use crate::records::StreamId;
    use crate::records::bucket::{self, Entry};
    use crate::shared::MemoryStore;
    use crate::snapshot::status::Live;
    use crate::surfaces::ofrep::records::{OfrepRecord, SourcesState, sources_hash};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn only_the_answer_to_health_is_given_again_for_a_second() {
        let mut repeated = RepeatedHealth::default();
        let mut made = 0_u16;
        for (path, millis, expected) in [
            (&b"/health"[..], 1, Some(1)),
            (b"/health?x", 1_000, Some(1)),
            (b"/ready", 1_000, Some(2)),
            (b"/health", 1_000, Some(1)),
            (b"/health", 1_001, Some(3)),
            (b"/ready", 1_001, Some(4)),
        ] {
            let now = Monotonic::from_millis(millis);
            let answer = repeated.answer(path, now, || {
                made += 1;
                Some(HealthAnswer::text(made, ""))
            });
            assert_eq!(answer.map(|answer| answer.status), expected, "{millis}");
        }
    }

    #[test]
    fn a_surface_that_is_on_and_has_a_source_is_waited_for_and_told_of() {
        let (store, scope) = (MemoryStore::default(), Scope::new("", &[]));
        let settings = |enabled: bool| {
            let json = format!(r#"{{"snapshot":{{"buckets":4}},"ofrep":{{"enabled":{enabled}}}}}"#);
            Settings::from_json(json.as_bytes()).unwrap()
        };
        let ask = |path: &str, enabled: bool| {
            let now = Monotonic::from_millis(1);
            answer(
                path.as_bytes(),
                &store,
                &settings(enabled),
                &scope,
                now,
                None,
            )
            .unwrap()
        };
        Status::change(&store, &scope, |status| {
            status.live = Some(Live {
                surfaces: vec!["ofrep".to_owned()],
                ..Live::verified("m", 1)
            });
        })
        .unwrap();
        let ready = |enabled| ask("/ready", enabled).status;
        assert_eq!((ready(true), ready(false)), (503, 200));
        let state = SourcesState {
            read_at: 1_000,
            knows_selections: false,
        };
        let entry = Entry {
            hash: sources_hash(),
            id: StreamId::default(),
            record: &OfrepRecord::Sources(state).encode(),
        };
        let buckets = Buckets::new(&scope, 4);
        let key = buckets.name(buckets.of(&entry.hash));
        let bucket = bucket::merge(b"", &[entry], StreamId::default()).unwrap();
        let cas = store.read(&key).unwrap().cas;
        assert!(store.replace(&key, &bucket, cas).unwrap());
        assert_eq!((ready(true), ready(false)), (200, 200));
        let told = |enabled| {
            let health: serde_json::Value =
                serde_json::from_slice(&ask("/health", enabled).body).unwrap();
            health["surfaces"]["ofrep"].clone()
        };
        let expected = serde_json::json!({
            "source": true, "last_read": "1970-01-01T00:00:01.000000000Z", "selections_known": false,
        });
        assert_eq!(
            (told(true), told(false)),
            (expected, serde_json::Value::Null)
        );
    }
}
