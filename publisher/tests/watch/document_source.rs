//! A source of documents under test, and what is published because of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::page::Cursor;
use flag_definitions_filter::surfaces::flagsmith::records::{
    FlagsmithRecord, Round, document_key, round_hash, version_hash,
};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::redis::lock::LockToken;
use flag_definitions_publisher::redis::published::{self, PublishedSnapshot, RecordMap};
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::redis::store::SnapshotStore;
use flag_definitions_publisher::sources::WatchedSources;
use flag_definitions_publisher::sources::documents::{
    DocumentNews, DocumentSource, SourcedDocument, TellDocuments,
};

use crate::support::Redis;

pub const PREFIX: &str = "flag_definitions:";

/// Says what a test wants it to.
pub struct Upstream(Sender<DocumentNews>);

struct Told(Receiver<DocumentNews>);

impl DocumentSource for Told {
    fn surface(&self) -> &'static str {
        "flagsmith"
    }

    fn start(self: Box<Self>, tell: TellDocuments, _: &Arc<AtomicBool>) {
        std::thread::spawn(move || self.0.iter().try_for_each(|news| tell(news)));
    }
}

fn source() -> (Upstream, Box<dyn DocumentSource>) {
    let (sender, receiver) = channel();
    (Upstream(sender), Box::new(Told(receiver)))
}

/// A source of documents alone.
pub fn alone() -> (Upstream, WatchedSources) {
    let (upstream, source) = source();
    let sources = WatchedSources {
        documents: vec![source],
        ..WatchedSources::default()
    };
    (upstream, sources)
}

impl Upstream {
    /// A client-side key for each of these tenants, named after it, and a round.
    pub fn keys(&self, tenants: &[u32]) {
        let mut records: RecordMap = tenants
            .iter()
            .map(|tenant| {
                let record = FlagsmithRecord::ClientKey(Tenant(*tenant)).encode();
                (key(*tenant), record.into())
            })
            .collect();
        records.insert(round_hash(), round(true).encode().into());
        self.0.send(DocumentNews::Records(records)).unwrap();
    }

    pub fn document(&self, tenant: u32, version: &str) {
        self.read(tenant, version, true);
    }

    /// A document that filters do not take.
    pub fn unfit(&self, tenant: u32, version: &str) {
        self.read(tenant, version, false);
    }

    fn read(&self, tenant: u32, version: &str, fits: bool) {
        let document = SourcedDocument {
            tenant: Tenant(tenant),
            version: etag(version),
            gzip: format!("text of {version}").into_bytes().into(),
            fits,
        };
        self.0.send(DocumentNews::Document(document)).unwrap();
    }

    pub fn gone(&self, tenant: u32) {
        self.0.send(DocumentNews::Gone(Tenant(tenant))).unwrap();
    }
}

/// The round that comes with the keys.
pub fn round(knows_keys: bool) -> FlagsmithRecord {
    FlagsmithRecord::Round(Round {
        completed_at: 1,
        grace: None,
        knows_keys,
    })
}

/// All records, as they are without a word of the source.
pub fn unsure(mut records: RecordMap) -> RecordMap {
    records.insert(round_hash(), round(false).encode().into());
    records
}

pub fn etag(version: &str) -> ETag {
    ETag::new(version.as_bytes()).unwrap()
}

pub fn key(tenant: u32) -> Sha256Hash {
    Sha256Hash::of(format!("key {tenant}").as_bytes())
}

pub fn place(tenant: u32) -> String {
    document_key(PREFIX, Tenant(tenant))
}

/// The document in Redis.
pub fn stored(redis: &mut Redis, tenant: u32) -> BTreeMap<String, String> {
    redis.command("HGETALL", &[place(tenant)])
}

/// The document in Redis as it should be.
pub fn of_version(version: &str) -> BTreeMap<String, String> {
    let text = format!("text of {version}");
    [("version", version.to_owned()), ("text", text)]
        .map(|(field, value)| (field.to_owned(), value))
        .into()
}

/// All that is published.
pub fn published(redis: &Redis) -> PublishedSnapshot {
    let server = Server::parse(&redis.url()).unwrap();
    let token = LockToken::random().unwrap();
    let mut store = SnapshotStore::connect(&server, PREFIX, &token).unwrap();
    published::read(&mut store, |_| Ok(())).unwrap()
}

/// A record, decoded.
pub fn record(redis: &Redis, hash: &Sha256Hash) -> Option<FlagsmithRecord> {
    let published = published(redis);
    assert!(published.fault.is_none() || published.records.is_empty());
    let record = published.records.get(hash)?;
    Some(FlagsmithRecord::decode(record).unwrap())
}

/// The published version of a tenant.
pub fn version(redis: &Redis, tenant: u32) -> Option<String> {
    match record(redis, &version_hash(Tenant(tenant)))? {
        FlagsmithRecord::Version(etag) => {
            Some(String::from_utf8(etag.as_bytes().to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// Records of a change, with their hashes.
type Changed = Vec<(Sha256Hash, Vec<u8>)>;

/// All entries of the stream, oldest first: what a change brings; `None`: a watermark.
pub fn entries(redis: &mut Redis) -> Vec<Option<Changed>> {
    type Entry = (String, Vec<Vec<u8>>);
    let entries: Vec<Entry> = redis.command("XRANGE", &["flag_definitions:changes", "-", "+"]);
    let read = |(_, fields): Entry| {
        if fields[5] == b"w" {
            return None;
        }
        let mut cursor = Cursor::new(fields[7].clone()).unwrap();
        let mut records = Vec::new();
        while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
            records.push((hash, record.to_vec()));
            cursor.seek(next);
        }
        Some(records)
    };
    entries.into_iter().map(read).collect()
}

/// The places in the stream of changes of a record, and whether each is a removal.
pub fn changes_of(redis: &mut Redis, hash: &Sha256Hash) -> Vec<(usize, bool)> {
    let entries = entries(redis);
    let entries = entries.into_iter().enumerate();
    entries
        .flat_map(|(place, records)| {
            let records = records.unwrap_or_default().into_iter();
            records.map(move |(of, record)| (place, of, record == [0]))
        })
        .filter(|(_, of, _)| of == hash)
        .map(|(place, _, is_removal)| (place, is_removal))
        .collect()
}
