//! What one worker knows of the live snapshot, and when it looks at shared data again. What it knows may be a tick old; while
//! that is the best there is, nobody looks. Before a refusal a surface reads the status itself.

use std::time::Duration;

use super::follow::Confirmation;
use super::settings::Snapshot;
use super::status::{Freshness, Status};
use crate::shared::{Scope, Store};
use crate::time::Monotonic;

/// How long what is known may be old before a tick looks again.
const MAX_AGE: Duration = Duration::from_millis(200);

/// How often shared data is asked for a watermark that did not come.
const CONFIRMATION_RETRY: Duration = Duration::from_millis(50);

/// The status as it was read last.
#[derive(Clone, Debug, Default)]
pub struct KnownStatus {
    status: Status,
    read_at: Option<Monotonic>,
}

impl KnownStatus {
    /// The status.
    pub const fn get(&self) -> &Status {
        &self.status
    }

    /// As of when published ETags are confirmed, if a publisher confirms them.
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.status.confirmation()
    }

    /// The same for versions that a publisher watches in another Redis, if it does.
    pub fn watched_confirmation(&self) -> Option<Confirmation> {
        self.status.watched_confirmation()
    }

    /// Reads it again. If shared data fails, what was known stays.
    pub fn read(&mut self, store: &impl Store, scope: &Scope, now: Monotonic) {
        if let Ok(status) = Status::read(store, scope) {
            self.status = status;
            self.read_at = Some(now);
        }
    }

    /// Reads it again when it is old.
    pub fn refresh(&mut self, store: &impl Store, scope: &Scope, now: Monotonic) {
        let is_old = |read_at| now.since(read_at) >= MAX_AGE;
        if self.read_at.is_none_or(is_old) {
            self.read(store, scope, now);
        }
    }

    /// What the snapshot may be used for. Unless that is the best there is, shared data is asked again.
    pub fn freshness(
        &mut self,
        store: &impl Store,
        scope: &Scope,
        settings: &Snapshot,
        now: Monotonic,
    ) -> Freshness {
        let known = self.status.freshness(now, settings);
        let read_at = self.read_at.unwrap_or_default();
        // Without a publisher no look brings a watermark: not each request shall look.
        let confirmed = self.is_confirmed(settings, now) || now.since(read_at) < CONFIRMATION_RETRY;
        if known == Freshness::Current && confirmed {
            return known;
        }
        self.read(store, scope, now);
        self.status.freshness(now, settings)
    }

    /// Whether the published ETags, if any, are known to be current.
    fn is_confirmed(&self, settings: &Snapshot, now: Monotonic) -> bool {
        self.status.follow.is_none()
            || self
                .status
                .confirmation()
                .is_some_and(|confirmation| now.since(confirmation.at) < settings.etag_max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::StreamId;
    use crate::shared::MemoryStore;
    use crate::snapshot::follow::Follow;
    use crate::snapshot::status::Live;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    /// A snapshot that Redis said is the current one then.
    fn verify(store: &MemoryStore, scope: &Scope, millis: u64) {
        Status::change(store, scope, |status| {
            status.live = Some(Live {
                manifest: "m".to_owned(),
                generation: 1,
                stream_id: StreamId::default(),
                etags_watched: false,
                lineage: 0,
                records: Default::default(),
                loaded_at: millis,
                verified_at: millis,
                contact_at: millis,
                longest_slice_micros: 0,
                surfaces: Vec::new(),
            });
        })
        .unwrap();
    }

    #[test]
    fn what_is_fresh_is_not_looked_up_again_and_what_is_not_is() {
        let (store, scope) = (MemoryStore::default(), Scope::new("", &[]));
        let settings = Snapshot::default();
        let mut known = KnownStatus::default();
        let mut freshness = |now| known.freshness(&store, &scope, &settings, at(now));
        assert_eq!(freshness(1_000), Freshness::Missing);
        verify(&store, &scope, 1_000);
        assert_eq!(freshness(1_001), Freshness::Current);
        // Longer than a refusal may rest on it.
        assert_eq!(freshness(6_001), Freshness::Aging);
        verify(&store, &scope, 6_000);
        assert_eq!(freshness(6_002), Freshness::Current);
        // While it is fresh, nobody looks.
        Status::change(&store, &scope, |status| status.live = None).unwrap();
        assert_eq!(freshness(6_003), Freshness::Current);
        assert_eq!(freshness(11_001), Freshness::Missing);
    }

    #[test]
    fn a_tick_looks_when_what_is_known_is_old() {
        let (store, scope) = (MemoryStore::default(), Scope::new("", &[]));
        let mut known = KnownStatus::default();
        known.refresh(&store, &scope, at(1_000));
        verify(&store, &scope, 1_000);
        known.refresh(&store, &scope, at(1_199));
        assert_eq!(known.get().live, None);
        known.refresh(&store, &scope, at(1_200));
        assert!(known.get().live.is_some());
    }

    #[test]
    fn an_etag_that_is_not_confirmed_makes_requests_look_but_not_each_of_them() {
        let (store, scope) = (MemoryStore::default(), Scope::new("", &[]));
        let settings = Snapshot::default();
        verify(&store, &scope, 1_000);
        Status::change(&store, &scope, |status| {
            status.follow = Some(Follow {
                lineage: 1,
                since: StreamId::default(),
                position: StreamId::default(),
                fence: 0,
                gap: None,
                etags_at: None,
                records_at: Some(1_000),
                clock: (0, 0),
            });
        })
        .unwrap();
        let mut known = KnownStatus::default();
        let read_at = |known: &mut KnownStatus, now| {
            known.freshness(&store, &scope, &settings, at(now));
            known.read_at
        };
        assert_eq!(read_at(&mut known, 1_000), Some(at(1_000)));
        assert_eq!(read_at(&mut known, 1_049), Some(at(1_000)));
        assert_eq!(read_at(&mut known, 1_050), Some(at(1_050)));
    }
}
