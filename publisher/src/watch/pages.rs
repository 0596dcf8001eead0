//! Writes what is published as a snapshot, page by page, while changes go on.
//!
//! A snapshot is true as of one entry of the stream. What changes after that entry while pages are being written is
//! kept aside as it was ([`SnapshotJob::note`]), so that each page holds what was true then, and the whole is never copied.

use std::collections::BTreeMap;
use std::ops::Bound;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::counts::KindCounts;
use flag_definitions_filter::snapshot::manifest::{self, Manifest, PageDigest};
use flag_definitions_filter::snapshot::page::Page;

use super::state::PublishedState;
use super::stream;
use crate::redis::error::SnapshotStoreError;
use crate::redis::store::{Reservation, SnapshotStore};

/// What a manifest tells of the sources behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcesTold {
    /// [`Manifest::surfaces`].
    pub surfaces: Vec<String>,
    /// [`Manifest::etags_watched`].
    pub etags_watched: bool,
}

impl SourcesTold {
    /// What a manifest tells.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            surfaces: manifest.surfaces.clone(),
            etags_watched: manifest.etags_watched,
        }
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct SnapshotJob {
    generation: u64,
    lineage: u64,
    stream_id: StreamId,
    counts: KindCounts,
    pages: Vec<PageDigest>,
    /// The last record that stands in a page.
    last: Option<Sha256Hash>,
    /// What the records were that changed since and stand in no page yet; `None`: there was none.
    before: BTreeMap<Sha256Hash, Option<Box<[u8]>>>,
}

/// A snapshot that has been published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// Its generation.
    pub generation: u64,
    /// The lineage it belongs to.
    pub lineage: u64,
    /// As of when it is true.
    pub stream_id: StreamId,
    /// Number of its pages.
    pub pages: usize,
    /// See [`stream::head`].
    pub manifest: Vec<u8>,
    /// What went wrong with the expiry of the replaced pages.
    pub unexpired: Option<String>,
}

impl SnapshotJob {
    /// Starts a snapshot of the state as it is now. `lineage`: the one it continues; without, it begins one.
    pub fn new(
        state: &PublishedState,
        reservation: Reservation,
        lineage: Option<u64>,
        stream_id: StreamId,
    ) -> Self {
        Self {
            generation: reservation.generation,
            lineage: lineage.unwrap_or(reservation.generation),
            stream_id,
            counts: state.counts(),
            pages: Vec::new(),
            last: None,
            before: BTreeMap::new(),
        }
    }

    /// Number of pages written.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Remembers what a record was before it changed.
    pub fn note(&mut self, hash: Sha256Hash, before: Option<Box<[u8]>>) {
        if self.last.is_none_or(|last| hash > last) {
            self.before.entry(hash).or_insert(before);
        }
    }

    /// Writes the next page; false when the last one has been written.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn write_page(
        &mut self,
        store: &mut SnapshotStore<'_>,
        state: &PublishedState,
    ) -> Result<bool, SnapshotStoreError> {
        let (page, last) = self.next_page(state);
        let is_needed = page.records > 0 || self.pages.is_empty();
        if is_needed {
            store.write_page(self.generation, self.pages.len(), &page)?;
            self.pages.push(PageDigest::of(&page));
        }
        if let Some(last) = last {
            self.last = Some(last);
            self.before = self.before.split_off(&last);
            self.before.remove(&last);
        }
        Ok(is_needed && page.records > 0)
    }

    /// Makes it the current snapshot, with these words on where its records come from.
    ///
    /// # Errors
    /// When Redis fails or lost a page of it, or another publisher holds the lock.
    pub fn publish(
        self,
        store: &mut SnapshotStore<'_>,
        sources: &SourcesTold,
    ) -> Result<WrittenSnapshot, SnapshotStoreError> {
        let manifest = Manifest {
            format: manifest::FORMAT,
            generation: self.generation,
            stream_id: self.stream_id,
            pages: self.pages,
            etags_watched: sources.etags_watched,
            lineage: self.lineage,
            records: self.counts,
            surfaces: sources.surfaces.clone(),
        };
        let json = serde_json::to_vec(&manifest).map_err(SnapshotStoreError::Encode)?;
        let begins = self.lineage == self.generation;
        let unexpired = store.replace_manifest(&manifest, &json, begins)?;
        Ok(WrittenSnapshot {
            generation: manifest.generation,
            lineage: manifest.lineage,
            stream_id: manifest.stream_id,
            pages: manifest.pages.len(),
            manifest: stream::head(&json),
            unexpired,
        })
    }

    fn next_page(&self, state: &PublishedState) -> (Page, Option<Sha256Hash>) {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut before = self.before.range((from, Bound::Unbounded)).peekable();
        let mut now = state.after(self.last).peekable();
        let mut page = Page::empty();
        let mut last = None;
        loop {
            let (hash, record) = match (before.peek(), now.peek()) {
                (Some((then, record)), Some((hash, _))) if *then <= hash => {
                    (**then, record.as_deref())
                }
                (Some((then, record)), None) => (**then, record.as_deref()),
                (_, Some((hash, record))) => (*hash, Some(*record)),
                (None, None) => break,
            };
            if record.is_some_and(|record| !page.has_room_for(record)) {
                break;
            }
            if let Some(record) = record {
                page.push(hash, record);
            }
            last = Some(hash);
            before.next_if(|(then, _)| **then == hash);
            now.next_if(|(then, _)| *then == hash);
        }
        (page, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::snapshot::page::Cursor;
    use flag_definitions_filter::surfaces::posthog::directory::{PersonalKey, Record};
    use flag_definitions_filter::tenant::Tenant;

    fn hash(n: u32) -> Sha256Hash {
        Sha256Hash::of(&n.to_le_bytes())
    }

    fn record(n: u32) -> Box<[u8]> {
        let scoped_teams = vec![Tenant(n); 50];
        let key = PersonalKey {
            scoped_teams,
            ..PersonalKey::default()
        };
        Record::Personal(key).encode().unwrap().into()
    }

    #[test]
    fn pages_hold_what_was_true_when_it_started() {
        let mut state = PublishedState::default();
        for n in 0..5_000 {
            state.put((hash(n), Some(record(n))));
        }
        let expected: Vec<_> = state
            .after(None)
            .map(|(hash, record)| (hash, record.to_vec()))
            .collect();
        let reservation = Reservation {
            generation: 1,
            millis: 1,
        };
        let mut job = SnapshotJob::new(&state, reservation, None, StreamId::default());
        let mut written = Vec::new();
        for round in 0..100 {
            let (page, last) = job.next_page(&state);
            if last.is_none() {
                break;
            }
            job.last = last;
            let mut cursor = Cursor::new(page.bytes).unwrap();
            while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                written.push((hash, record.to_vec()));
                cursor.seek(next);
            }
            // Removed, changed twice, added.
            for n in (round * 400)..(round * 400 + 300) {
                for change in [
                    (hash(n), None),
                    (hash(n + 1), Some(record(n))),
                    (hash(n + 1), Some(record(9))),
                    (hash(n + 100_000), Some(record(1))),
                ] {
                    let key = change.0;
                    let before = state.put(change);
                    job.note(key, before);
                }
            }
        }
        assert_eq!(written, expected);
    }
}
