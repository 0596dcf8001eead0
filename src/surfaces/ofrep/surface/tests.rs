//! The order of checks, and what a read teaches, without a host.

use std::cell::Cell;
use std::io::Write;

use flate2::write::GzEncoder;

use super::*;
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::records::StreamId;
use crate::records::bucket::{self, Entry};
use crate::redis::Reply;
use crate::shared::{CountSink, MemoryStore};
use crate::snapshot::KnownStatus;
use crate::snapshot::follow::Follow;
use crate::snapshot::status::Live;
use crate::surfaces::Step;
use crate::surfaces::evaluated::counts::Evaluation;
use crate::surfaces::evaluated::reads::DocumentRead;
use crate::surfaces::ofrep::document::EMPTY;
use crate::surfaces::ofrep::flagd::tests::support;
use crate::surfaces::ofrep::flagd::{Selector, selections};
use crate::surfaces::ofrep::health;
use crate::surfaces::ofrep::records::{
    OfrepRecord, SourcesState, selection_hash, sources_hash, version_hash,
};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod admission;
mod cases;
mod documents;
mod long;

const NOW: u64 = 100_000;
const ALL: &str = "/ofrep/v1/evaluate/flags";

/// Clocks that can fail: the wall clock, and the other one.
struct Still(Cell<Option<u64>>, Cell<bool>);

impl Ambient for Still {
    fn clock(&self) -> Option<Duration> {
        self.1.get().then(|| Duration::from_millis(NOW))
    }

    fn unix(&self) -> Option<UnixMillis> {
        self.0
            .get()
            .map(|unix| UnixMillis::from_millis(unix * 1_000))
    }

    fn random(&self) -> u64 {
        1
    }
}

#[derive(Default)]
struct Counted(Vec<OfrepCount>);

impl CountSink<OfrepCount> for Counted {
    fn add(&mut self, what: OfrepCount, _: u64) {
        self.0.push(what);
    }
}

struct World {
    surface: Ofrep,
    store: MemoryStore,
    ambient: Still,
    counted: Counted,
    /// Texts in Redis, by the number of their selection.
    texts: Vec<(Selector, String)>,
    /// Whether Redis answers.
    answers: bool,
    /// How many records were put, and how many reads were answered.
    records: Cell<u64>,
    reads: usize,
    ticks: usize,
    /// Whether what is done in slices is not waited for.
    is_left: bool,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Became {
    Answered(u16, &'static str),
    Forwarded(&'static str),
    Waits(OfrepRead),
    WantsBody,
}

/// An answer as a client gets it.
#[derive(Debug)]
struct Got {
    became: Became,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    tenant: Option<Tenant>,
}

impl Got {
    fn status(&self) -> u16 {
        match self.became {
            Became::Answered(status, _) => status,
            _ => 0,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn etag(text: &str) -> ETag {
    ETag::new(text.as_bytes()).unwrap()
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn number(place: usize) -> Tenant {
    Tenant(u32::try_from(place).unwrap() + 1)
}

impl World {
    /// A worker of these settings, with the recorded documents published.
    fn new(settings: &str) -> Self {
        let recorded = support::recorded();
        Self::with(settings, &recorded["documents"])
    }

    fn with(settings: &str, documents: &serde_json::Value) -> Self {
        let mut settings: OfrepSettings = serde_json::from_str(settings).unwrap();
        settings.enabled = true;
        let snapshot = Snapshot {
            buckets: 4,
            ..Snapshot::default()
        };
        let ambient = Still(Cell::new(Some(support::NOW)), Cell::new(true));
        let scope = Scope::new("", &[]);
        let surface = Ofrep::new(settings, snapshot, Gateway::default(), scope, &ambient);
        let mut world = Self {
            surface,
            store: MemoryStore::default(),
            ambient,
            counted: Counted::default(),
            texts: Vec::new(),
            answers: true,
            records: Cell::default(),
            reads: 0,
            ticks: 0,
            is_left: false,
        };
        world.confirm(NOW, NOW);
        world.publish(documents);
        world
    }

    /// A snapshot whose records, and whose versions, were known to be complete then.
    fn confirm(&self, records_at: u64, versions_at: u64) {
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

    /// The publisher read these documents.
    fn publish(&mut self, documents: &serde_json::Value) {
        let texts = selections(&support::documents(documents));
        for (selector, text) in texts {
            let mut known = self.texts.iter_mut();
            match known.find(|(own, _)| *own == selector) {
                Some((_, own)) => *own = text,
                None => self.texts.push((selector, text)),
            }
        }
        for (place, (selector, text)) in self.texts.iter().enumerate() {
            let tenant = number(place);
            let hash = selection_hash(&selector.text());
            self.put(hash, &OfrepRecord::Selection(tenant));
            let version = OfrepRecord::Version(ETag::of_text(text.as_bytes()));
            self.put(version_hash(tenant), &version);
        }
        self.sources(true);
        self.forget();
    }

    fn sources(&self, knows_selections: bool) {
        let state = SourcesState {
            read_at: support::NOW * 1_000 - 4_000,
            knows_selections,
        };
        self.put(sources_hash(), &OfrepRecord::Sources(state));
    }

    /// The publisher tells that these have a source.
    fn told(&self, surfaces: &[&str]) {
        Status::change(&self.store, &self.surface.library.scope, |status| {
            let live = status.live.as_mut().unwrap();
            live.surfaces = surfaces.iter().map(ToString::to_string).collect();
        })
        .unwrap();
    }

    fn put(&self, hash: Sha256Hash, record: &OfrepRecord) {
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

    fn key(&self, key: &str, selector: Option<&str>) {
        let bound = selector.map(selection_hash);
        self.put(Sha256Hash::of(key.as_bytes()), &OfrepRecord::Key(bound));
    }

    /// Some milliseconds pass: what is remembered of shared data is looked up again.
    fn forget(&mut self) {
        self.surface.library.versions = crate::recent::Recent::new(1, Duration::ZERO);
        self.surface.library.status = KnownStatus::default();
        let buckets = Buckets::new(&self.surface.library.scope, 4);
        self.surface.directory = SelectionDirectory::new(buckets, &self.ambient);
    }

    fn selection(&self, selector: &str) -> Tenant {
        let mut texts = self.texts.iter();
        number(texts.position(|(own, _)| own.text() == selector).unwrap())
    }

    /// What Redis answers to a read.
    fn reply(&self, read: &DocumentRead) -> Result<[Vec<u8>; 3], Failure> {
        let DocumentRead::Document { tenant, held } = read else {
            return Err(Failure::Malformed);
        };
        if !self.answers {
            return Err(Failure::Unavailable);
        }
        let text = self.texts.get(tenant.0 as usize - 1);
        let Some((_, text)) = text.filter(|(_, text)| !text.is_empty()) else {
            return Ok([b"none".to_vec(), Vec::new(), Vec::new()]);
        };
        let version = ETag::of_text(text.as_bytes());
        Ok(match held.as_ref() == Some(&version) {
            true => [b"same".to_vec(), version.as_bytes().to_vec(), Vec::new()],
            false => {
                let text = zipped(text.as_bytes());
                [b"full".to_vec(), version.as_bytes().to_vec(), text]
            }
        })
    }

    /// Asks, up to the body.
    fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Became {
        let asked = fields.to_vec();
        self.drive(method, path, &asked, None).became
    }

    /// Asks with a body, and answers reads as Redis does.
    fn post(&mut self, path: &str, fields: &[(&str, &str)], body: &str) -> Got {
        self.drive("POST", path, fields, Some(body))
    }

    /// What becomes of a question at once.
    fn asked(&mut self, path: &str, fields: &[(&str, &str)], body: &str) -> Became {
        self.is_left = true;
        let became = self.post(path, fields, body).became;
        self.is_left = false;
        became
    }

    fn drive(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) -> Got {
        let mut all = vec![(":method", method), (":path", path)];
        all.extend_from_slice(fields);
        let all = all
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = self.surface.parse(path.as_bytes(), all);
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let mut decided = self.surface.start(&request, &mut machinery);
        if let (Step::Body { .. }, Some(body)) = (&decided.step, body) {
            let carried = std::mem::take(&mut decided.carried);
            decided = self
                .surface
                .body(&request, &carried, body.as_bytes(), &mut machinery);
        }
        while let (Step::Read(read), Some(_)) = (&decided.step, body) {
            match read {
                OfrepRead::Document(DocumentRead::Compiled { .. }) => break,
                OfrepRead::Context(_) | OfrepRead::Answer(_) if self.is_left => break,
                _ => {}
            }
            let read = read.clone();
            let carried = std::mem::take(&mut decided.carried);
            let landed = match &read {
                OfrepRead::Document(document) => {
                    self.reads += 1;
                    self.land(&read, self.reply(document))
                }
                _ => self.finish(&read),
            };
            let mut machinery = Machinery {
                store: &self.store,
                now: Monotonic::from_millis(NOW),
                ambient: &self.ambient,
                counts: &mut self.counted,
            };
            decided = self
                .surface
                .resume(&request, &carried, &landed, &mut machinery);
        }
        got(decided.step)
    }

    /// Ticks until this is done, and counts the ticks.
    fn finish(&mut self, read: &OfrepRead) -> OfrepLanded {
        for _ in 0..500 {
            self.ticks += 1;
            self.tick();
            // Others may be done as well.
            while let Some((own, landed)) = self.surface.finished() {
                if own == *read {
                    return landed;
                }
            }
        }
        panic!("{read:?} takes too many ticks");
    }

    /// A read that was sent just now came to this.
    fn land(&mut self, read: &OfrepRead, reply: Result<[Vec<u8>; 3], Failure>) -> OfrepLanded {
        let known = self.surface.known(read, &self.store);
        let at = Monotonic::from_millis(NOW);
        let mut machinery = Machinery {
            store: &self.store,
            now: at,
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        let parts = reply.as_ref().map_err(|failure| *failure);
        let parts = parts.map(|parts| parts.each_ref().map(Vec::as_slice));
        let received = Received::Redis(parts.map(Reply::array));
        let sent = SentRead { at, known };
        self.surface.landed(read, sent, received, &mut machinery).0
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

    /// How flags were come by since this was asked last.
    fn evaluations(&mut self) -> Vec<Evaluation> {
        let counts = std::mem::take(&mut self.counted.0).into_iter();
        let evaluations = counts.filter_map(|count| match count {
            OfrepCount::Evaluation(how) => Some(how),
            OfrepCount::Answer(_) => None,
        });
        evaluations.collect()
    }
}

fn got(step: StepOf<'_, Ofrep>) -> Got {
    let text = |pieces: [&[u8]; 3]| String::from_utf8(pieces.concat()).unwrap();
    let (headers, body, tenant) = match &step {
        Step::Reply(response, receipt) => {
            let fields = response.headers().into_iter().flatten();
            let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
            let body = response.body.bytes().to_vec();
            (fields.collect(), body, receipt.tenant)
        }
        _ => (Vec::new(), Vec::new(), None),
    };
    let became = match step {
        Step::Reply(response, _) => Became::Answered(response.status, response.reason),
        Step::Forward(reason) => Became::Forwarded(reason.label()),
        Step::Read(read) => Became::Waits(read),
        Step::Body { .. } => Became::WantsBody,
    };
    Got {
        became,
        headers,
        body,
        tenant,
    }
}
