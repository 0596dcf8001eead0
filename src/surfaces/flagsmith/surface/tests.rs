//! The order of checks, and what a read teaches, without a host.

use std::cell::Cell;
use std::io::Write;

use flate2::write::GzEncoder;

use super::super::keys::KeyVerdict;
use super::*;
use crate::documents::Confirmations;
use crate::hash::Sha256Hash;
use crate::records::StreamId;
use crate::records::bucket::{self, Entry};
use crate::redis::Reply;
use crate::shared::{CountSink, MemoryStore};
use crate::snapshot::KnownStatus;
use crate::snapshot::follow::Follow;
use crate::snapshot::status::Live;
use crate::surfaces::Step;
use crate::surfaces::evaluated::library::{UNUSABLE, WORKING};
use crate::surfaces::flagsmith::health;
use crate::surfaces::flagsmith::records::{
    Condition, EnvironmentState, FlagsmithRecord, Polled, Round, polled_hash, round_hash,
    state_hash, version_hash,
};
use crate::time::UnixMillis;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: u64 = 100_000;
const UNIX: u64 = 1_700_000_000;
const DOCUMENT: &[u8] = include_bytes!("../../../../tests/flagsmith/environment.json");
const ENVIRONMENT: Tenant = Tenant(9);

/// Clocks that can fail, and of which the first may go on by so many microseconds with each look.
struct Still(Cell<bool>, Cell<u64>, Cell<(u64, u64)>);

impl Ambient for Still {
    fn clock(&self) -> Option<Duration> {
        let (passed, each) = self.2.get();
        self.2.set((passed + each, each));
        self.0
            .get()
            .then(|| Duration::from_millis(NOW) + Duration::from_micros(passed))
    }

    fn unix(&self) -> Option<UnixMillis> {
        Some(UnixMillis::from_millis(self.1.get() * 1_000))
    }

    fn random(&self) -> u64 {
        1
    }
}

#[derive(Default)]
struct Counted(Vec<FlagsmithCount>);

impl CountSink<FlagsmithCount> for Counted {
    fn add(&mut self, what: FlagsmithCount, _: u64) {
        self.0.push(what);
    }
}

struct World {
    surface: Flagsmith,
    store: MemoryStore,
    ambient: Still,
    counted: Counted,
    /// How many were put.
    records: Cell<u64>,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Became {
    Answered(u16, &'static str),
    Forwarded(&'static str),
    Waits(FlagsmithRead),
    WantsBody,
}

fn etag(text: &str) -> ETag {
    ETag::new(text.as_bytes()).unwrap()
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn read(held: Option<&str>) -> FlagsmithRead {
    FlagsmithRead::Document {
        tenant: ENVIRONMENT,
        held: held.map(etag),
    }
}

impl World {
    fn new(settings: &str) -> Self {
        let mut settings: FlagsmithSettings = serde_json::from_str(settings).unwrap();
        settings.enabled = true;
        let snapshot = Snapshot {
            buckets: 4,
            ..Snapshot::default()
        };
        let ambient = Still(Cell::new(true), Cell::new(UNIX), Cell::default());
        let scope = Scope::new("", &[]);
        let gateway = Gateway::default();
        let usage = usage::job(
            &Scope::new("r", &[]),
            gateway.clone(),
            "fd:",
            Duration::from_secs(5),
            &ambient,
        );
        let surface = Flagsmith::new(settings, snapshot, gateway, scope, Some(usage), &ambient);
        let world = Self {
            surface,
            store: MemoryStore::default(),
            ambient,
            counted: Counted::default(),
            records: Cell::default(),
        };
        world.publish(NOW, NOW);
        for (key, record) in [
            ("client", FlagsmithRecord::ClientKey(ENVIRONMENT)),
            ("ser.one", server_key(0)),
            ("ser.soon", server_key(UNIX + 1)),
            ("ser.over", server_key(UNIX)),
            ("counted", FlagsmithRecord::CountedClientKey(ENVIRONMENT)),
            ("ser.counted", counted_server_key()),
        ] {
            world.put(Sha256Hash::of(key.as_bytes()), &record);
        }
        world.round(true);
        world
    }

    /// A snapshot whose records, and whose versions, were known to be complete then.
    fn publish(&self, records_at: u64, versions_at: u64) {
        Status::change(&self.store, &self.surface.library.scope, |status| {
            status.live = Some(Live {
                lineage: 1,
                ..Live::verified("m", NOW)
            });
            status.follow = Some(Follow {
                lineage: 1,
                since: StreamId::default(),
                position: StreamId::default(),
                fence: 0,
                gap: None,
                etags_at: Some(versions_at),
                records_at: Some(records_at),
                clock: (0, 0),
            });
        })
        .unwrap();
    }

    fn put(&self, hash: Sha256Hash, record: &FlagsmithRecord) {
        self.put_bytes(hash, &record.encode());
    }

    fn put_bytes(&self, hash: Sha256Hash, record: &[u8]) {
        let buckets = Buckets::new(&self.surface.library.scope, 4);
        let key = buckets.name(buckets.of(&hash));
        let current = self.store.read(&key).unwrap();
        self.records.set(self.records.get() + 1);
        let entry = Entry {
            hash,
            id: StreamId {
                millis: self.records.get(),
                sequence: 0,
            },
            record,
        };
        let next = bucket::merge(&current.value, &[entry], StreamId::default()).unwrap();
        assert!(self.store.replace(&key, &next, current.cas).unwrap());
    }

    fn round(&self, knows_keys: bool) {
        let round = Round {
            completed_at: 1,
            grace: None,
            knows_keys,
        };
        self.put(round_hash(), &FlagsmithRecord::Round(round));
    }

    fn version(&self, version: &str) {
        let record = FlagsmithRecord::Version(etag(version));
        self.put(version_hash(ENVIRONMENT), &record);
    }

    fn ask(&mut self, method: &str, path: &str, key: &str, more: &[(&str, &str)]) -> Became {
        let mut fields = vec![
            (":method", method),
            (":path", path),
            ("x-environment-key", key),
        ];
        fields.extend_from_slice(more);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let request = self.surface.parse(path.as_bytes(), fields.into_iter());
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        became(self.surface.start(&request, &mut machinery).step)
    }

    fn get(&mut self, path: &str, key: &str) -> Became {
        self.ask("GET", path, key, &[])
    }

    /// A read that was sent just now came to this.
    fn land(&mut self, reply: Result<[&[u8]; 3], Failure>) -> FlagsmithLanded {
        let read = read(None);
        let known = self.surface.known(&read, &self.store);
        let at = Monotonic::from_millis(NOW);
        let mut machinery = Machinery {
            store: &self.store,
            now: at,
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let received = Received::Redis(reply.map(Reply::array));
        let sent = SentRead { at, known };
        self.surface.landed(&read, sent, received, &mut machinery).0
    }

    /// Why a body with an identity is answered as it is.
    fn identify(&mut self, body: &str) -> &'static str {
        let fields: [(&[u8], &[u8]); 3] = [
            (b":method", b"POST"),
            (b"x-environment-key", b"client"),
            (b"content-type", b"application/json"),
        ];
        let surface = &mut self.surface;
        let request = surface.parse(b"/api/v1/identities", fields.into_iter());
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let carried = surface.start(&request, &mut machinery).carried;
        let body = body.as_bytes();
        let step = surface.body(&request, &carried, body, &mut machinery).step;
        match became(step) {
            Became::Answered(_, reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self) {
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        self.surface.tick(true, &mut machinery);
    }

    /// Somebody who asked for all flags waited for this.
    fn resume(&mut self, landed: &FlagsmithLanded, key: &str) -> Became {
        let path = b"/api/v1/flags";
        let fields: [(&[u8], &[u8]); 3] = [
            (b":method", b"GET"),
            (b":path", path),
            (b"x-environment-key", key.as_bytes()),
        ];
        let request = self.surface.parse(path, fields.into_iter());
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let KeyVerdict::Reads(reader) = self
            .surface
            .directory
            .reader(
                key.as_bytes(),
                &self.store,
                (&self.ambient, true),
                machinery.now,
            )
            .unwrap()
        else {
            panic!("no reader");
        };
        let carried = FlagsmithCarried {
            reader: Some(reader),
            ..FlagsmithCarried::default()
        };
        became(
            self.surface
                .resume(&request, &carried, landed, &mut machinery)
                .step,
        )
    }
}

fn counted_server_key() -> FlagsmithRecord {
    FlagsmithRecord::CountedServerKey {
        environment: ENVIRONMENT,
        expires_at: 0,
    }
}

fn server_key(expires_at: u64) -> FlagsmithRecord {
    FlagsmithRecord::ServerKey {
        environment: ENVIRONMENT,
        expires_at,
    }
}

fn became(step: StepOf<'_, Flagsmith>) -> Became {
    match step {
        Step::Reply(response, _) => Became::Answered(response.status, response.reason),
        Step::Forward(reason) => Became::Forwarded(reason.label()),
        Step::Read(read) => Became::Waits(read),
        Step::Body { .. } => Became::WantsBody,
    }
}

mod any_tag;
mod documents;
mod refusals;
mod reported;

const FLAGS: &str = "/api/v1/flags";
const WHOLE: &str = "/api/v1/environment-document";
const UNKNOWN: Became = Became::Answered(401, "unknown_key");

#[test]
fn checks_come_in_their_order() {
    let mut world = World::new(r#"{"rate_limit":"1/minute"}"#);
    let json = ("content-type", "application/json");
    for (method, path, key, more, expected) in [
        ("OPTIONS", FLAGS, "", vec![], (200, "preflight")),
        ("POST", FLAGS, "nobody", vec![], (405, "method_not_allowed")),
        (
            "PUT",
            "/api/v1/identities",
            "",
            vec![],
            (405, "method_not_allowed"),
        ),
        (
            "GET",
            "/api/v1/flags?feature=a&feature=b",
            "nobody",
            vec![],
            (400, "query_repeated"),
        ),
        (
            "GET",
            "/api/v1/identities",
            "nobody",
            vec![],
            (400, "identifier_missing"),
        ),
        (
            "GET",
            FLAGS,
            "nobody",
            vec![("content-type", "application/grpc")],
            (415, "unsupported_media_type"),
        ),
        (
            "POST",
            "/api/v1/identities",
            "nobody",
            vec![],
            (401, "unknown_key"),
        ),
    ] {
        let found = world.ask(method, path, key, &more);
        assert_eq!(
            found,
            Became::Answered(expected.0, expected.1),
            "{method} {path}"
        );
    }
    assert_eq!(
        world.ask("POST", "/api/v1/identities/", "client", &[json]),
        Became::WantsBody
    );
    let limited = Became::Answered(429, "rate_limited");
    assert_eq!(
        world.get(FLAGS, "client"),
        limited,
        "the one of this minute is spent"
    );
    let mut world = World::new("{}");
    let long = [json, ("content-length", "2097153")];
    assert_eq!(
        world.ask("POST", "/api/v1/identities/", "client", &long),
        Became::Answered(413, "body_too_long")
    );
    assert_eq!(
        world.ask("POST", "/api/v1/identities/", "client", &[]),
        Became::Answered(415, "body_type")
    );
}

/// No answer but these is more than a word about something that is away.
#[test]
fn an_outage_is_never_401_or_404() {
    for answer in FlagsmithAnswer::all() {
        let refuses = matches!(answer.status(), 401..=404);
        let known = matches!(
            answer,
            FlagsmithAnswer::UnknownKey | FlagsmithAnswer::FeatureNotFound
        );
        assert_eq!(refuses, known, "{}", answer.label());
    }
}
