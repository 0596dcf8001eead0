//! A publisher and its Redis in memory, for tests of the filter and of those who read what is published.
//!
//! It writes what a real one writes, of records that are plain bytes. Records without a meaning of their own are
//! here as well: a kind and a number.

use std::collections::BTreeMap;

use super::change::{self, Watermark, Written};
use super::counts::KindCounts;
use super::manifest::{self, FORMAT, Manifest, PageDigest};
use super::page::{self, Page};
use super::poll::MAX_CHANGES;
use crate::hash::Sha256Hash;
use crate::records::{CorruptRecord, StreamId, TOMBSTONE};
use crate::redis::{Command, Reply};

/// What all keys begin with unless a configuration says otherwise.
pub const PREFIX: &str = "flag_definitions:";

/// Kind of the records that [`record`] makes.
const KIND: u8 = 1;

/// A record without a meaning: its kind and a number.
pub fn record(number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_le_bytes();
    vec![KIND, a, b, c, d]
}

/// A record that says that there is none.
pub fn tombstone() -> Vec<u8> {
    vec![TOMBSTONE]
}

/// Whether these bytes are a record of [`record`] or a tombstone.
///
/// # Errors
/// When they are neither.
pub fn check(bytes: &[u8]) -> Result<(), CorruptRecord> {
    match bytes {
        [TOMBSTONE] | [KIND, _, _, _, _] => Ok(()),
        _ => Err(CorruptRecord),
    }
}

/// An entry of the stream of changes.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Its id.
    pub id: StreamId,
    /// The id that it names as the one before it.
    pub previous: StreamId,
    /// The fencing number of its writer.
    pub fence: u64,
    /// What it brings.
    pub written: Written,
}

/// A publisher, and the Redis to which it alone writes. A test may damage every part of it.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Redis' clock, in Unix milliseconds.
    pub now: u64,
    /// The manifest; empty: there is none.
    pub manifest: Vec<u8>,
    /// Pages by their keys.
    pub pages: BTreeMap<String, Vec<u8>>,
    /// The stream of changes.
    pub changes: Vec<Appended>,
    /// What the next snapshot holds.
    pub records: BTreeMap<Sha256Hash, Vec<u8>>,
    /// The id of the last change, or of the snapshot when none followed it.
    pub last: StreamId,
    /// The fencing number of what is written next.
    pub fence: u64,
    /// Number of the last snapshot.
    pub generation: u64,
    /// What the next manifest says of surfaces that have a source.
    pub surfaces: Vec<String>,
}

impl Default for Publisher {
    /// Nothing is published yet.
    fn default() -> Self {
        Self {
            now: 1_700_000_000_001,
            manifest: Vec::new(),
            pages: BTreeMap::new(),
            changes: Vec::new(),
            records: BTreeMap::new(),
            last: StreamId::default(),
            fence: 1,
            generation: 0,
            surfaces: Vec::new(),
        }
    }
}

impl Publisher {
    /// Publishes these records as a snapshot that no changes follow, as of `millis`.
    pub fn publish<'a>(
        &mut self,
        generation: u64,
        millis: u64,
        records: impl IntoIterator<Item = (&'a Sha256Hash, &'a Vec<u8>)>,
    ) {
        let records = records.into_iter();
        let pages = page::split(records.map(|(hash, record)| (*hash, record.as_slice())));
        self.put(generation, millis, &pages);
    }

    /// Publishes these pages, whatever is in them.
    pub fn put(&mut self, generation: u64, millis: u64, pages: &[Page]) {
        self.generation = generation;
        self.last = StreamId {
            millis,
            sequence: 0,
        };
        self.write(pages, 0);
    }

    /// Begins a lineage: what is in [`Publisher::records`], as of now.
    pub fn begin(&mut self) {
        self.last = StreamId {
            millis: self.now.max(self.last.millis + 1),
            sequence: 0,
        };
        self.rewrite(self.generation + 1);
    }

    /// Writes the records as they are after the last change; lineage 0: no changes follow.
    pub fn rewrite(&mut self, lineage: u64) {
        self.generation += 1;
        let records = self.records.iter();
        let pages = page::split(records.map(|(hash, record)| (*hash, record.as_slice())));
        self.write(&pages, lineage);
    }

    fn write(&mut self, pages: &[Page], lineage: u64) {
        let records = pages.iter().map(|page| u64::from(page.records)).sum();
        let manifest = Manifest {
            format: FORMAT,
            generation: self.generation,
            stream_id: self.last,
            pages: pages.iter().map(PageDigest::of).collect(),
            etags_watched: lineage != 0,
            lineage,
            records: KindCounts::new([("records", records)]),
            surfaces: self.surfaces.clone(),
        };
        for (index, page) in pages.iter().enumerate() {
            self.pages
                .insert(page_key(self.generation, index), page.bytes.clone());
        }
        // It has nothing that JSON cannot say.
        self.manifest = serde_json::to_vec(&manifest).unwrap_or_default();
    }

    /// Adds an entry to the stream.
    pub fn append(&mut self, written: Written) {
        let sequence = if self.last.millis >= self.now {
            self.last.sequence + 1
        } else {
            0
        };
        let id = StreamId {
            millis: self.now.max(self.last.millis),
            sequence,
        };
        self.changes.push(Appended {
            id,
            previous: self.last,
            fence: self.fence,
            written,
        });
        self.last = id;
    }

    /// Tells of a record; `None`: it was removed.
    pub fn change(&mut self, hash: Sha256Hash, record: Option<Vec<u8>>) {
        let grave = tombstone();
        for entry in change::split([(hash, record.as_deref().unwrap_or(&grave))]) {
            self.append(entry);
        }
        match record {
            Some(record) => drop(self.records.insert(hash, record)),
            None => drop(self.records.remove(&hash)),
        }
    }

    /// Confirms everything as of now.
    pub fn watermark(&mut self) {
        let mark = Watermark {
            etags_at: self.now,
            records_at: Some(self.now),
        };
        self.append(mark.written());
    }

    /// What Redis replies to a command of the loader.
    pub fn reply(&self, command: &Command) -> Reply<'_> {
        let words = command.words();
        let text = |word: usize| {
            let word = words.get(word).copied().unwrap_or_default();
            std::str::from_utf8(word).unwrap_or_default()
        };
        match text(0) {
            "GET" => {
                let page = self.pages.get(text(1));
                page.map_or(Reply::Nil, |page| Reply::Bytes(page.into()))
            }
            "EVAL_RO" if text(3) == manifest::key(PREFIX) => {
                let parts = self.poll(text(5), text(6).parse().ok());
                Reply::Array(parts.into_iter().map(Into::into).collect())
            }
            _ => Reply::Error(b"ERR not a command of the loader"),
        }
    }

    /// What the script of [`super::poll`] answers, but for the digest, where any will do: here SHA-256.
    pub fn poll(&self, known: &str, position: Option<StreamId>) -> Vec<Vec<u8>> {
        let digest = match self.manifest.as_slice() {
            b"" => String::new(),
            manifest => Sha256Hash::of(manifest).to_hex(),
        };
        let is_known = digest == known;
        let newest = self.changes.last().filter(|_| position.is_some());
        let mut parts = vec![
            b"poll".to_vec(),
            (self.now / 1_000).to_string().into_bytes(),
            (self.now % 1_000 * 1_000).to_string().into_bytes(),
            digest.into_bytes(),
            if is_known {
                Vec::new()
            } else {
                self.manifest.clone()
            },
            newest.map_or_else(Vec::new, |entry| entry.id.to_string().into_bytes()),
        ];
        let next = self.changes.iter();
        let next = next.filter(|entry| position.is_some_and(|position| entry.id > position));
        for entry in next.take(MAX_CHANGES) {
            parts.push(entry.id.to_string().into_bytes());
            parts.push(entry.previous.to_string().into_bytes());
            parts.push(entry.fence.to_string().into_bytes());
            parts.push(entry.written.kind.as_bytes().to_vec());
            parts.push(entry.written.value.clone());
        }
        parts
    }
}

/// The key of a page.
pub fn page_key(generation: u64, page: usize) -> String {
    manifest::page_key(PREFIX, generation, page)
}
