//! The rules that need more than one look, without a host: a refusal is decided twice, and a read teaches.

use std::cell::Cell;

use super::*;
use crate::documents::confirmed as confirmed_etags;
use crate::http::ETag;
use crate::records::StreamId;
use crate::redis::Reply;
use crate::shared::{Cas, CountSink, MemoryStore, Scope, StoreError, Versioned};
use crate::snapshot::follow::Follow;
use crate::snapshot::status::{Applying, Live};
use crate::surfaces::Upstream;
use crate::surfaces::posthog::definitions::Need;
use crate::surfaces::posthog::directory::{Record, Team};
use crate::surfaces::posthog::settings::Sections;
use crate::time::UnixMillis;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod quota_periods;

const NOW: u64 = 100_000;

/// A clock that can fail.
struct Still(Cell<bool>);

impl Ambient for Still {
    fn clock(&self) -> Option<Duration> {
        self.0.get().then(|| Duration::from_millis(NOW))
    }

    fn unix(&self) -> Option<UnixMillis> {
        None
    }

    fn random(&self) -> u64 {
        1
    }
}

#[derive(Default)]
struct Counted(Vec<PostHogCount>);

impl CountSink<PostHogCount> for Counted {
    fn add(&mut self, what: PostHogCount, _: u64) {
        self.0.push(what);
    }
}

/// Shared data whose snapshot is another one from this read of the status on.
struct Changing {
    store: MemoryStore,
    status: String,
    reads: Cell<u32>,
    changes_at: u32,
}

impl Store for Changing {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        if key == self.status {
            self.reads.set(self.reads.get() + 1);
            if self.reads.get() == self.changes_at {
                publish(&self.store, "another");
            }
        }
        self.store.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        self.store.replace(key, value, cas)
    }
}

fn scope() -> Scope {
    Scope::new("", &[])
}

/// A snapshot that was loaded and verified just now.
fn publish(store: &MemoryStore, manifest: &str) {
    Status::change(store, &scope(), |status| {
        status.live = Some(Live::verified(manifest, NOW));
    })
    .unwrap();
}

struct World {
    posthog: PostHog,
    store: MemoryStore,
    ambient: Still,
    counted: Counted,
}

impl World {
    fn new() -> Self {
        let sections: Sections = serde_json::from_str(r#"{"snapshot":{"buckets":4}}"#).unwrap();
        let settings = sections.settle(&mut Vec::new()).unwrap();
        let ambient = Still(Cell::new(true));
        let scopes = Scopes {
            data: scope(),
            usage: Scope::new("u", &[]),
        };
        let world = Self {
            posthog: PostHog::new(settings, scopes, &ambient),
            store: MemoryStore::default(),
            ambient,
            counted: Counted::default(),
        };
        publish(&world.store, "first");
        let team = Team {
            id: Tenant(1),
            organization: None,
        };
        world.put("phc_one", &Record::Team(team));
        world.put("phs_one", &Record::TeamSecret(Tenant(1)));
        world
    }

    fn put(&self, token: &str, record: &Record) {
        let buckets = &self.posthog.tables.buckets;
        let hash = Sha256Hash::of(token.as_bytes());
        directory::testing::put(&self.store, buckets, hash, 0, record);
    }

    /// Status and reason of the answer, or `read`.
    fn ask(&mut self, bearer: &str, if_none_match: &str) -> (u16, &'static str) {
        let store = std::mem::take(&mut self.store);
        let answer = self.ask_over(&store, bearer, if_none_match);
        self.store = store;
        answer
    }

    fn ask_over(
        &mut self,
        store: &impl Store,
        bearer: &str,
        if_none_match: &str,
    ) -> (u16, &'static str) {
        let authorization = format!("Bearer {bearer}");
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":path", b"/flags/definitions?token=phc_one"),
            (b"authorization", authorization.as_bytes()),
        ];
        if !if_none_match.is_empty() {
            fields.push((b"if-none-match", if_none_match.as_bytes()));
        }
        let request = self.posthog.parse(b"", fields.into_iter());
        let mut machinery = Machinery {
            store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        match self.posthog.start(&request, &mut machinery).step {
            Step::Reply(response, _) => (response.status, response.reason),
            Step::Forward(reason) => (0, reason.label()),
            Step::Read(_) => (0, "read"),
            Step::Body { .. } => (0, "body"),
        }
    }

    /// A read of team 1, sent just now, came to this reply of the script.
    fn land(&mut self, kind: &str, etag: &str, payload: &str) -> Landed {
        let read = PostHogRead::Definitions(Need {
            team: Tenant(1),
            held: None,
        });
        let known = self.posthog.known(&read, &self.store);
        let sent = SentRead {
            at: Monotonic::from_millis(NOW),
            known,
        };
        let reply = Reply::array([kind, etag, payload, ""].map(str::as_bytes));
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let received = Received::Redis(Ok(reply));
        self.posthog.landed(&read, sent, received, &mut machinery).0
    }
}

#[test]
fn a_refusal_rests_on_what_shared_data_says_now() {
    let mut world = World::new();
    assert_eq!(world.ask("phs_wrong", ""), (401, "secret_invalid"));
    // What this worker knows is still fresh, but a newer snapshot is on its way in.
    Status::change(&world.store, &scope(), |status| {
        status.applying = Some(Applying {
            manifest: "next".to_owned(),
            stream_id: StreamId::default(),
            complete: false,
        });
    })
    .unwrap();
    assert_eq!(world.ask("phs_wrong", ""), (503, "snapshot_aging"));
    assert_eq!(world.ask("phs_one", ""), (0, "read"), "accepting goes on");
}

#[test]
fn where_the_records_have_no_source_nobody_is_refused() {
    let tell = |world: &World, surfaces: &[&str]| {
        Status::change(&world.store, &scope(), |status| {
            let surfaces = surfaces.iter().map(|name| (*name).to_owned());
            status.live.as_mut().unwrap().surfaces = surfaces.collect();
        })
        .unwrap();
    };
    for (surfaces, status) in [
        (&[][..], 401),
        (&[SOURCE], 401),
        (&["other", SOURCE], 401),
        (&["other"], 503),
    ] {
        let mut world = World::new();
        tell(&world, surfaces);
        assert_eq!(world.ask("phs_wrong", "").0, status, "{surfaces:?}");
        assert_eq!(world.ask("phs_one", ""), (0, "read"), "{surfaces:?}");
        // What needs no records is answered as ever.
        assert_eq!(world.ask("", "").0, 401, "{surfaces:?}");
    }
    // What this worker knows of the manifest is older.
    let mut world = World::new();
    assert_eq!(world.ask("phs_wrong", ""), (401, "secret_invalid"));
    tell(&world, &["other"]);
    assert_eq!(world.ask("phs_wrong", ""), (503, "snapshot_aging"));
    world.posthog.settings.upstream = Upstream::Forward;
    assert_eq!(world.ask("phs_wrong", ""), (0, "snapshot_aging"));
}

#[test]
fn records_that_change_between_two_looks_refuse_nobody() {
    for (changes_at, expected) in [(0, 401), (2, 401), (3, 503)] {
        let mut world = World::new();
        let store = Changing {
            store: std::mem::take(&mut world.store),
            status: scope().name("status"),
            reads: Cell::new(0),
            changes_at,
        };
        let (status, _) = world.ask_over(&store, "phs_wrong", "");
        assert_eq!(store.reads.get(), 3, "known, before, after");
        assert_eq!(status, expected, "{changes_at}");
    }
}

#[test]
fn without_a_clock_nobody_is_refused() {
    let mut world = World::new();
    world.ambient.0.set(false);
    assert_eq!(world.ask("phs_wrong", ""), (503, "shared_data"));
    assert_eq!(world.ask("phs_one", ""), (0, "read"));
}

#[test]
fn a_read_teaches_which_version_is_current_and_keeps_its_text() {
    let mut world = World::new();
    assert_eq!(world.ask("phs_one", "\"e1\""), (0, "read"));
    let landed = world.land("full", "e1", r#"{"flags":[]}"#);
    assert!(matches!(
        landed,
        Landed::Definitions(Tenant(1), Outcome::Payload(_))
    ));
    assert_eq!(world.ask("phs_one", "\"e1\""), (304, "not_modified"));
    assert_eq!(world.ask("phs_one", ""), (200, "definitions"));
    // Other workers learn it from shared data.
    let slots = confirmed_etags::slots(&world.posthog.tables.buckets);
    let known = confirmed_etags::read(&world.store, &slots, Tenant(1)).unwrap();
    assert_eq!(known.map(|known| known.etag), ETag::new(b"e1"));
}

#[test]
fn a_watermark_confirms_an_etag_only_where_a_publisher_watches_etags() {
    for (etags_watched, answer) in [(true, (304, "not_modified")), (false, (0, "read"))] {
        let mut world = World::new();
        let buckets = &world.posthog.tables.buckets;
        let record = Record::ETag(ETag::new(b"e1").unwrap());
        directory::testing::put(
            &world.store,
            buckets,
            directory::etag_hash(Tenant(1)),
            0,
            &record,
        );
        // Of a publisher that follows a file, with documents of another surface that it confirms.
        Status::change(&world.store, &scope(), |status| {
            status.live = Some(Live {
                etags_watched,
                lineage: 1,
                ..Live::verified("watched", NOW)
            });
            status.follow = Some(Follow {
                lineage: 1,
                since: StreamId::default(),
                position: StreamId::default(),
                fence: 1,
                gap: None,
                etags_at: Some(NOW),
                records_at: Some(NOW),
                clock: (NOW, NOW),
            });
        })
        .unwrap();
        assert_eq!(world.ask("phs_one", "\"e1\""), answer, "{etags_watched}");
    }
}

#[test]
fn what_is_missing_or_unreadable_is_remembered_for_a_moment() {
    for (kind, payload, answer) in [
        ("none", "", (503, "payload_missing")),
        ("full", r#"{"flags":["#, (500, "payload_undecodable")),
    ] {
        let mut world = World::new();
        world.land(kind, "e1", payload);
        assert_eq!(world.ask("phs_one", ""), answer);
    }
}

#[test]
fn what_a_decision_shows_is_counted_once() {
    let mut world = World::new();
    world.land("full", "e1", r#"{"flags":[]}"#);
    world.ask("phs_one", "\"e1\"");
    let etags = |count: &&PostHogCount| matches!(count, PostHogCount::ETag(_));
    assert_eq!(world.counted.0.iter().filter(etags).count(), 1);
    let auths = |count: &&PostHogCount| matches!(count, PostHogCount::Auth(_));
    assert_eq!(world.counted.0.iter().filter(auths).count(), 1);
}
