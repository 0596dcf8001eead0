//! The published state: what a filter knows that has loaded the snapshot and applied all changes after it.
//!
//! It is read by whoever goes on from it (`watch`), compares with it (`diff`) or looks into it (`inspect`).

use std::collections::BTreeMap;
use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::records::{StreamId, TOMBSTONE};
use flag_definitions_filter::snapshot::change::{Change, Content, Watermark};
use flag_definitions_filter::snapshot::manifest::{self, Manifest, ManifestError};
use flag_definitions_filter::snapshot::page::Cursor;
use flag_definitions_filter::surfaces;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use redis::Value;

use super::error::SnapshotStoreError;
use super::store::SnapshotStore;

/// Encoded records by what they are found by.
pub type RecordMap = BTreeMap<Sha256Hash, Box<[u8]>>;

/// Changes read by one command, so that it does not hold Redis.
const CHANGES_PER_COMMAND: usize = 500;

/// How often to begin again when the snapshot is replaced while it is read.
const ATTEMPTS: usize = 5;

/// What is in Redis.
#[derive(Clone, Debug, Default)]
pub struct PublishedSnapshot {
    /// The current manifest, when there is one that can be read.
    pub manifest: Option<Manifest>,
    /// All records, ETags among them; tombstones are in [`PublishedSnapshot::removed`] instead.
    pub records: RecordMap,
    /// As of when records came by a change; the others are as of the manifest.
    pub changed: BTreeMap<Sha256Hash, StreamId>,
    /// What was removed by a change, and as of when. Removals before the manifest are not known any more.
    pub removed: BTreeMap<Sha256Hash, StreamId>,
    /// As of when all of this is true: the id of the last change, or that of the manifest.
    pub last: StreamId,
    /// Highest fencing number among the changes, or 0.
    pub fence: u64,
    /// The newest watermark after the manifest.
    pub watermark: Option<Watermark>,
    /// Number of changes after the manifest, watermarks among them.
    pub changes: u64,
    /// Why it is not whole. With one, records may be missing or old, and nothing can be continued from here.
    pub fault: Option<Fault>,
}

/// Why the published state is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was published.
    NoManifest,
    /// The manifest cannot be read.
    Manifest(ManifestError),
    /// A page is not there.
    PageMissing(usize),
    /// A page is not the one that the manifest names, or cannot be read.
    PageBad(usize),
    /// Changes after this one are missing.
    Gap(StreamId),
    /// This change cannot be read, or is by a publisher that had lost its lock.
    ChangeBad(StreamId),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManifest => f.write_str("nothing is published under this prefix"),
            Self::Manifest(error) => error.fmt(f),
            Self::PageMissing(page) => write!(f, "page {page} of the snapshot is missing"),
            Self::PageBad(page) => write!(f, "page {page} of the snapshot is damaged"),
            Self::Gap(id) => write!(f, "changes after {id} are missing"),
            Self::ChangeBad(id) => write!(f, "the change {id} cannot be used"),
        }
    }
}

/// Reads manifest, pages, and the changes after them. `meanwhile` is called after each command: whoever holds the
/// lock renews it there.
///
/// # Errors
/// When Redis fails, or `meanwhile` does. That something is missing or damaged is no error, but [`PublishedSnapshot::fault`].
pub fn read<'a>(
    store: &mut SnapshotStore<'a>,
    mut meanwhile: impl FnMut(&mut SnapshotStore<'a>) -> Result<(), SnapshotStoreError>,
) -> Result<PublishedSnapshot, SnapshotStoreError> {
    let mut json = manifest_json(store)?;
    let mut attempt = 1;
    loop {
        let published = read_below(store, json.as_deref(), &mut meanwhile)?;
        if published.fault.is_none() || attempt == ATTEMPTS {
            return Ok(published);
        }
        // A snapshot that was replaced meanwhile loses its pages and its changes.
        let now = manifest_json(store)?;
        if now == json {
            return Ok(published);
        }
        json = now;
        attempt += 1;
    }
}

fn manifest_json(store: &mut SnapshotStore<'_>) -> Result<Option<Vec<u8>>, SnapshotStoreError> {
    let key = manifest::key(store.prefix());
    store.read("GET", &key, "reading the current manifest")
}

/// Reads what belongs to this manifest.
fn read_below<'a>(
    store: &mut SnapshotStore<'a>,
    json: Option<&[u8]>,
    meanwhile: &mut impl FnMut(&mut SnapshotStore<'a>) -> Result<(), SnapshotStoreError>,
) -> Result<PublishedSnapshot, SnapshotStoreError> {
    let mut published = PublishedSnapshot::default();
    let manifest = match json.map(Manifest::parse) {
        None => Err(Fault::NoManifest),
        Some(manifest) => manifest.map_err(Fault::Manifest),
    };
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(fault) => {
            published.fault = Some(fault);
            return Ok(published);
        }
    };
    published.last = manifest.stream_id;
    for (index, digest) in manifest.pages.iter().enumerate() {
        let key = manifest::page_key(store.prefix(), manifest.generation, index);
        let page: Option<Vec<u8>> = store.read("GET", &key, "reading a page")?;
        match page {
            None => published.note(Fault::PageMissing(index)),
            Some(page) => {
                if !digest.matches(&page) || published.add_page(page).is_none() {
                    published.note(Fault::PageBad(index));
                }
            }
        }
        meanwhile(store)?;
    }
    // Without a lineage, what the stream holds followed another snapshot.
    let followed = manifest.lineage != 0;
    published.manifest = Some(manifest);
    if followed {
        published.add_changes(store, meanwhile)?;
    }
    Ok(published)
}

impl PublishedSnapshot {
    /// What PostHog's surface knows under a hash, and as of when. `None`: nothing.
    pub fn find(&self, hash: &Sha256Hash) -> Option<(Record, StreamId)> {
        let (record, id) = self.record(hash)?;
        Some((Record::decode(record).ok()?, id))
    }

    /// The record of a hash, of any surface, and as of when. `None`: there is none.
    pub fn record(&self, hash: &Sha256Hash) -> Option<(&[u8], StreamId)> {
        if let Some(id) = self.removed.get(hash) {
            return Some((&[TOMBSTONE], *id));
        }
        let record = self.records.get(hash)?;
        let snapshot = self.manifest.as_ref().map(|manifest| manifest.stream_id);
        let id = self.changed.get(hash).copied().or(snapshot);
        Some((record, id.unwrap_or_default()))
    }

    /// Keeps the first fault: the others follow from it.
    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Takes a page's records; `None` when one cannot be read.
    fn add_page(&mut self, bytes: Vec<u8>) -> Option<()> {
        each_record(bytes, |hash, record| {
            surfaces::check(record).ok()?;
            // A tombstone says no more than absence does.
            if !is_tombstone(record) {
                self.records.insert(hash, record.into());
            }
            Some(())
        })
    }

    fn add_changes<'a>(
        &mut self,
        store: &mut SnapshotStore<'a>,
        meanwhile: &mut impl FnMut(&mut SnapshotStore<'a>) -> Result<(), SnapshotStoreError>,
    ) -> Result<(), SnapshotStoreError> {
        let key = manifest::changes_key(store.prefix());
        let count = CHANGES_PER_COMMAND.to_string();
        loop {
            let after = format!("({}", self.last);
            let range = [&*key, &*after, "+", "COUNT", &*count];
            let entries: Vec<Value> = store.read("XRANGE", &range, "reading the changes")?;
            for entry in &entries {
                let Some(change) = change(entry) else {
                    self.note(Fault::ChangeBad(id_of(entry).unwrap_or(self.last)));
                    return Ok(());
                };
                if change.previous != self.last {
                    self.note(Fault::Gap(self.last));
                    return Ok(());
                }
                if change.fence < self.fence || self.apply(&change).is_none() {
                    self.note(Fault::ChangeBad(change.id));
                    return Ok(());
                }
            }
            meanwhile(store)?;
            if entries.len() < CHANGES_PER_COMMAND {
                return Ok(());
            }
        }
    }

    fn apply(&mut self, change: &Change) -> Option<()> {
        match &change.content {
            Content::Watermark(watermark) => self.watermark = Some(*watermark),
            Content::Records(bytes) => {
                each_record(bytes.clone(), |hash, record| {
                    self.put(hash, record, change.id)
                })?;
            }
        }
        self.last = change.id;
        self.fence = change.fence;
        self.changes += 1;
        Some(())
    }

    fn put(&mut self, hash: Sha256Hash, record: &[u8], id: StreamId) -> Option<()> {
        surfaces::check(record).ok()?;
        if is_tombstone(record) {
            self.records.remove(&hash);
            self.changed.remove(&hash);
            self.removed.insert(hash, id);
        } else {
            self.removed.remove(&hash);
            self.changed.insert(hash, id);
            self.records.insert(hash, record.into());
        }
        Some(())
    }
}

fn is_tombstone(record: &[u8]) -> bool {
    record.first() == Some(&TOMBSTONE)
}

fn each_record(
    bytes: Vec<u8>,
    mut take: impl FnMut(Sha256Hash, &[u8]) -> Option<()>,
) -> Option<()> {
    let cursor = Cursor::new(bytes).ok()?;
    let mut position = cursor.position();
    while let Some((hash, record, next)) = cursor.record_at(position).ok()? {
        take(hash, record)?;
        position = next;
    }
    Some(())
}

/// An entry as `XRANGE` returns it: its id, then its fields.
fn change(entry: &Value) -> Option<Change> {
    let Value::Array(entry) = entry else {
        return None;
    };
    let [Value::BulkString(id), Value::Array(fields)] = entry.as_slice() else {
        return None;
    };
    let mut texts = Vec::with_capacity(fields.len());
    for field in fields {
        let Value::BulkString(text) = field else {
            return None;
        };
        texts.push(text.as_slice());
    }
    match texts.as_slice() {
        [b"p", previous, b"f", fence, b"k", kind, b"v", value] => {
            Change::parse(id, previous, fence, kind, value).ok()
        }
        _ => None,
    }
}

fn id_of(entry: &Value) -> Option<StreamId> {
    let Value::Array(entry) = entry else {
        return None;
    };
    match entry.first()? {
        Value::BulkString(id) => std::str::from_utf8(id).ok()?.parse().ok(),
        _ => None,
    }
}
