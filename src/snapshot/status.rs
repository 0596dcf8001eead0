//! What every worker knows of the live snapshot: one small entry in shared data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::KindCounts;
use super::follow::{Confirmation, Follow};
use super::manifest::Manifest;
use super::settings::Snapshot;
use crate::records::StreamId;
use crate::shared::{Scope, Store, StoreError, Update, update};
use crate::time::Monotonic;

/// The live snapshot, if any, and what became of newer ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The last snapshot that was loaded completely.
    pub live: Option<Live>,
    /// The snapshot whose records are being put into shared data.
    #[serde(default)]
    pub applying: Option<Applying>,
    /// The manifest that must not be tried again.
    pub bad: Option<Bad>,
    /// Whether Redis said that nothing is published.
    #[serde(default)]
    pub unpublished: bool,
    /// How far the stream of changes was followed, where one follows the snapshot.
    #[serde(default)]
    pub follow: Option<Follow>,
    /// Clusters of the settings that Envoy did not know when something was to be sent to them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_clusters: Vec<String>,
}

/// A snapshot on its way into shared data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applying {
    /// Digest of its manifest.
    pub manifest: String,
    /// As of when it is true.
    pub stream_id: StreamId,
    /// Whether all of its records are in. Before that, records of two snapshots lie side by side, and a pair of
    /// them could refuse somebody whom both accept: nobody is refused. Afterwards only what it lacks is left.
    pub complete: bool,
}

/// A manifest whose load made two owners vanish at the same place, or whose records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Its digest.
    pub manifest: String,
    /// When that was found, in [`Monotonic`] milliseconds.
    pub at: u64,
}

/// How long a bad manifest is left alone when there is no good snapshot to go on with.
const BAD_RETRY: Duration = Duration::from_secs(60);

/// A completely loaded snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Digest of its manifest.
    pub manifest: String,
    /// Its number.
    pub generation: u64,
    /// As of when it is true.
    pub stream_id: StreamId,
    /// Whether a publisher watches ETags.
    pub etags_watched: bool,
    /// Its chain of changes, see [`Manifest::lineage`].
    #[serde(default)]
    pub lineage: u64,
    /// What it holds.
    pub records: KindCounts,
    /// When it was loaded, in [`Monotonic`] milliseconds.
    pub loaded_at: u64,
    /// When Redis last said that it is the current one, in [`Monotonic`] milliseconds.
    pub verified_at: u64,
    /// When Redis last showed a manifest at all, be it one that this filter could not load: the last good
    /// snapshot then stays.
    pub contact_at: u64,
    /// Longest time that loading it held a VM, in microseconds.
    pub longest_slice_micros: u64,
    /// The surfaces that have a source, see [`Manifest::surfaces`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub surfaces: Vec<String>,
}

impl Live {
    /// One that was loaded, and that Redis said is the current one, then: for tests.
    #[cfg(test)]
    pub(crate) fn verified(manifest: &str, millis: u64) -> Self {
        Self {
            manifest: manifest.to_owned(),
            generation: 1,
            stream_id: StreamId::default(),
            etags_watched: false,
            lineage: 0,
            records: KindCounts::default(),
            loaded_at: millis,
            verified_at: millis,
            contact_at: millis,
            longest_slice_micros: 0,
            surfaces: Vec::new(),
        }
    }

    /// Whether a surface has a source. `None`: the publisher does not tell, and the surface knows what that means for it.
    ///
    /// ```
    /// use flag_definitions_filter::snapshot::status::Live;
    /// let live = |surfaces: &str| -> Live {
    ///     let json = r#"{"manifest":"","generation":1,"stream_id":"1-0","etags_watched":true,"records":{},
    ///         "loaded_at":0,"verified_at":0,"contact_at":0,"longest_slice_micros":0 SURFACES}"#;
    ///     serde_json::from_str(&json.replace("SURFACES", surfaces)).unwrap()
    /// };
    /// assert_eq!(live(r#","surfaces":["one"]"#).has_source("one"), Some(true));
    /// assert_eq!(live(r#","surfaces":["one"]"#).has_source("other"), Some(false));
    /// assert_eq!(live("").has_source("one"), None);
    /// ```
    pub fn has_source(&self, surface: &str) -> Option<bool> {
        let is_told = !self.surfaces.is_empty();
        is_told.then(|| self.surfaces.iter().any(|name| name == surface))
    }

    /// How long ago Redis last said that this is the current snapshot.
    pub fn age(&self, now: Monotonic) -> Duration {
        now.since(Monotonic::from_millis(self.verified_at))
    }

    /// Takes over a newer description of the records that are here already.
    pub fn adopt(&mut self, digest: &str, manifest: &Manifest, now: u64) {
        digest.clone_into(&mut self.manifest);
        self.generation = manifest.generation;
        self.stream_id = manifest.stream_id;
        self.etags_watched = manifest.etags_watched;
        self.records.clone_from(&manifest.records);
        self.surfaces.clone_from(&manifest.surfaces);
        self.verified_at = self.verified_at.max(now);
    }
}

/// What a snapshot of this age may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Accept and refuse.
    Current,
    /// Accept; refusing needs fresher knowledge, because SDKs drop their flags on 401.
    Aging,
    /// Nothing.
    Expired,
    /// There is none.
    Missing,
}

impl Status {
    /// Reads it; what cannot be read is no snapshot.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn read(store: &impl Store, scope: &Scope) -> Result<Self, StoreError> {
        Ok(Self::parse(&store.read(&name(scope))?.value))
    }

    /// Changes it in place.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn change(
        store: &impl Store,
        scope: &Scope,
        mut change: impl FnMut(&mut Self),
    ) -> Result<Update, StoreError> {
        update(store, &name(scope), |current| {
            let mut status = Self::parse(current);
            change(&mut status);
            serde_json::to_vec(&status).ok()
        })
    }

    /// Notes whether Envoy knows a cluster.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn note_cluster(
        store: &impl Store,
        scope: &Scope,
        cluster: &str,
        known: bool,
    ) -> Result<Update, StoreError> {
        update(store, &name(scope), |current| {
            let mut status = Self::parse(current);
            let clusters = &mut status.unknown_clusters;
            match clusters.binary_search_by(|name| name.as_str().cmp(cluster)) {
                Ok(place) if known => drop(clusters.remove(place)),
                Err(place) if !known => clusters.insert(place, cluster.to_owned()),
                _ => return None,
            }
            serde_json::to_vec(&status).ok()
        })
    }

    /// Whether shared data held the records of the same snapshots at both times.
    pub fn names_the_same_records_as(&self, other: &Self) -> bool {
        let live = |status: &Self| status.live.as_ref().map(|live| live.manifest.clone());
        live(self) == live(other) && self.applying == other.applying
    }

    /// Moves on in the stream, unless somebody else began anew or is further.
    pub fn advance(&mut self, to: &Follow) {
        if let Some(follow) = &mut self.follow
            && (follow.lineage, follow.since) == (to.lineage, to.since)
            && follow.position <= to.position
        {
            follow.clone_from(to);
        }
    }

    /// As of when published ETags are confirmed, if a publisher confirms them.
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.follow.as_ref().and_then(Follow::confirmation)
    }

    /// The same for versions that a publisher watches in another Redis. Where it watches none, a watermark is not about them.
    pub fn watched_confirmation(&self) -> Option<Confirmation> {
        let is_watched = self.live.as_ref().is_some_and(|live| live.etags_watched);
        self.confirmation().filter(|_| is_watched)
    }

    /// Whether requests can be decided. `needs_none`: also where nothing is published, since something else stands in.
    pub const fn is_ready(&self, needs_none: bool) -> bool {
        self.live.is_some() || (needs_none && self.unpublished)
    }

    /// What the loader is at: `idle`; `loading`; `incomplete`: a newer snapshot was applied in part, and nobody is refused
    /// until a load is complete; or `bad_snapshot`: the newest one cannot be loaded, the last good one stays.
    /// `is_applied`: a snapshot is being put into shared data.
    pub fn loader_state(&self, is_applied: bool) -> &'static str {
        match (&self.bad, &self.applying) {
            _ if is_applied => "loading",
            (_, Some(next)) if next.complete => "loading",
            (Some(_), _) => "bad_snapshot",
            (None, Some(_)) => "incomplete",
            (None, None) => "idle",
        }
    }

    /// Whether a manifest is to be left alone. With a good snapshot that is for good.
    pub fn shuns(&self, manifest: &str, now: Monotonic) -> bool {
        self.bad.as_ref().is_some_and(|bad| {
            let recent = now.since(Monotonic::from_millis(bad.at)) < BAD_RETRY;
            bad.manifest == manifest && (recent || self.live.is_some())
        })
    }

    /// How long ago it was known that everybody who may read is known here. `None`: that is not known.
    fn refusal_age(&self, live: &Live, now: Monotonic) -> Option<Duration> {
        if live.lineage == 0 {
            return Some(live.age(now));
        }
        let follow = self.follow.as_ref()?;
        follow.leads_from(live).then(|| follow.records_age(now))?
    }

    fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// What the records of one surface may be used for. Where the publisher has no source of them, nobody is refused for what
    /// they lack.
    pub fn as_sourced(&self, surface: &str, freshness: Freshness) -> Freshness {
        let live = self.live.as_ref();
        let is_sourced = live.is_none_or(|live| live.has_source(surface) != Some(false));
        match freshness {
            Freshness::Current if !is_sourced => Freshness::Aging,
            freshness => freshness,
        }
    }

    /// What it may be used for now.
    pub fn freshness(&self, now: Monotonic, settings: &Snapshot) -> Freshness {
        let Some(live) = &self.live else {
            return Freshness::Missing;
        };
        if now.since(Monotonic::from_millis(live.contact_at)) > settings.max_age {
            Freshness::Expired
        } else if self.applying.as_ref().is_some_and(|next| !next.complete)
            || self
                .refusal_age(live, now)
                .is_none_or(|age| age > settings.refuse_max_age)
        {
            Freshness::Aging
        } else {
            Freshness::Current
        }
    }
}

/// What is known of the live snapshot.
fn name(scope: &Scope) -> String {
    scope.name("status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::MemoryStore;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn refusing_needs_fresher_knowledge_than_accepting() {
        let settings = Snapshot::default();
        let mut status = Status::default();
        let at = |seconds: u64| Monotonic::from_millis(seconds * 1_000);
        assert_eq!(status.freshness(at(0), &settings), Freshness::Missing);
        status.live = Some(Live::verified("", 1_000));
        for (now, freshness) in [
            (0, Freshness::Current),
            (6, Freshness::Current),
            (7, Freshness::Aging),
            (601, Freshness::Aging),
            (602, Freshness::Expired),
        ] {
            assert_eq!(status.freshness(at(now), &settings), freshness, "{now}");
        }
        for (complete, freshness) in [(false, Freshness::Aging), (true, Freshness::Current)] {
            status.applying = Some(Applying {
                manifest: "next".to_owned(),
                stream_id: StreamId::default(),
                complete,
            });
            assert_eq!(status.freshness(at(1), &settings), freshness);
        }
    }

    #[test]
    fn where_no_manifest_tells_of_sources_shared_data_is_as_before() {
        let mut live = Live::verified("", 1);
        assert!(!serde_json::to_string(&live).unwrap().contains("surfaces"));
        live.surfaces.push("one".to_owned());
        let json = serde_json::to_string(&live).unwrap();
        assert_eq!(serde_json::from_str::<Live>(&json).unwrap(), live);
    }

    #[test]
    fn requests_need_a_snapshot_or_something_in_its_place() {
        for (has_snapshot, unpublished, needs_none, ready) in [
            (true, false, false, true),
            (true, true, true, true),
            (false, false, false, false),
            (false, false, true, false),
            (false, true, false, false),
            (false, true, true, true),
        ] {
            let status = Status {
                live: has_snapshot.then(|| Live::verified("", 1_000)),
                unpublished,
                ..Status::default()
            };
            assert_eq!(status.is_ready(needs_none), ready);
        }
    }

    #[test]
    fn the_loader_is_at_one_thing() {
        let bad = || Bad {
            manifest: "m".to_owned(),
            at: 0,
        };
        let applying = |complete| Applying {
            manifest: "next".to_owned(),
            stream_id: StreamId::default(),
            complete,
        };
        for (is_bad, next, is_applied, state) in [
            (false, None, false, "idle"),
            (true, None, false, "bad_snapshot"),
            (true, Some(false), false, "bad_snapshot"),
            (false, Some(false), false, "incomplete"),
            (true, Some(true), false, "loading"),
            (true, Some(false), true, "loading"),
            (false, None, true, "loading"),
        ] {
            let status = Status {
                bad: is_bad.then(bad),
                applying: next.map(applying),
                ..Status::default()
            };
            assert_eq!(status.loader_state(is_applied), state);
        }
    }

    #[test]
    fn a_cluster_is_noted_once_and_struck_out_once() {
        let (store, scope) = (MemoryStore::default(), Scope::new("", &[]));
        let note = |cluster: &str, known| Status::note_cluster(&store, &scope, cluster, known);
        for (cluster, known, update, left) in [
            ("b", true, Update::Unchanged, &[][..]),
            ("b", false, Update::Written, &["b"]),
            ("b", false, Update::Unchanged, &["b"]),
            ("a", false, Update::Written, &["a", "b"]),
            ("b", true, Update::Written, &["a"]),
            ("b", true, Update::Unchanged, &["a"]),
        ] {
            assert_eq!(note(cluster, known), Ok(update));
            let status = Status::read(&store, &scope).unwrap();
            assert_eq!(status.unknown_clusters, left);
        }
    }

    #[test]
    fn a_bad_manifest_is_tried_again_only_without_a_good_snapshot() {
        let bad = |manifest: &str| Bad {
            manifest: manifest.to_owned(),
            at: 0,
        };
        let status = Status {
            bad: Some(bad("m")),
            ..Status::default()
        };
        assert!(status.shuns("m", Monotonic::from_millis(59_999)));
        assert!(!status.shuns("m", Monotonic::from_millis(60_000)));
        assert!(!status.shuns("other", Monotonic::from_millis(0)));
    }
}
