//! Records packed into one shared-data value.
//!
//! Layout, little-endian: `u32` count, then for each record, in hash order, the `u32` offset of its entry;
//! then the entries: 32 bytes hash, 16 bytes stream id, `u16` length, the record. No bytes at all are the
//! empty bucket.

use super::{CorruptRecord, Reader, StreamId, TOMBSTONE};
use crate::hash::Sha256Hash;

const HEADER: usize = 4;
const OFFSET: usize = 4;

/// Bytes of an entry besides its record.
const FIXED: usize = 50;

/// One record with its hash and the stream id as of which it is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is found by.
    pub hash: Sha256Hash,
    /// As of when it is true.
    pub id: StreamId,
    /// Its kind and what follows it.
    pub record: &'a [u8],
}

impl Entry<'_> {
    fn is_tombstone(&self) -> bool {
        self.record == [TOMBSTONE]
    }
}

/// A bucket's bytes, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Bucket<'a> {
    /// Looks at the header; entries are checked as they are read.
    ///
    /// # Errors
    /// When the bytes are too short for the count that they declare.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CorruptRecord> {
        if bytes.is_empty() {
            return Ok(Self { count: 0, bytes });
        }
        let count = usize::try_from(Reader(bytes).u32()?).map_err(|_| CorruptRecord)?;
        let table = count.checked_mul(OFFSET).ok_or(CorruptRecord)?;
        if bytes.len() < table.saturating_add(HEADER) {
            return Err(CorruptRecord);
        }
        Ok(Self { count, bytes })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The record of a hash, by binary search.
    ///
    /// # Errors
    /// When an entry on the way is not an entry.
    pub fn find(&self, hash: &Sha256Hash) -> Result<Option<Entry<'a>>, CorruptRecord> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            match entry.hash.cmp(hash) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
            }
        }
        Ok(None)
    }

    /// All records, in hash order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'a>, CorruptRecord>> + '_ {
        (0..self.count).map(|index| self.entry(index))
    }

    fn entry(&self, index: usize) -> Result<Entry<'a>, CorruptRecord> {
        let at = HEADER + index * OFFSET;
        let offset = self.bytes.get(at..).ok_or(CorruptRecord)?;
        let offset = usize::try_from(Reader(offset).u32()?).map_err(|_| CorruptRecord)?;
        let mut entry = Reader(self.bytes.get(offset..).ok_or(CorruptRecord)?);
        let hash = Sha256Hash::from_bytes(entry.array()?);
        let id = StreamId {
            millis: entry.u64()?,
            sequence: entry.u64()?,
        };
        let length = usize::from(entry.u16()?);
        Ok(Entry {
            hash,
            id,
            record: entry.take(length)?,
        })
    }
}

/// Builds a bucket; entries come in hash order, each hash once.
pub fn build<'a>(entries: &[Entry<'a>]) -> Vec<u8> {
    let table = HEADER + entries.len() * OFFSET;
    let total: usize = entries.iter().map(|entry| FIXED + entry.record.len()).sum();
    let mut bytes = Vec::with_capacity(table + total);
    let mut offset = table;
    // Lossless: a bucket is far below 4 GiB, since pages bound what is put into it.
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&(offset as u32).to_le_bytes());
        offset += FIXED + entry.record.len();
    }
    for entry in entries {
        bytes.extend_from_slice(entry.hash.as_bytes());
        bytes.extend_from_slice(&entry.id.millis.to_le_bytes());
        bytes.extend_from_slice(&entry.id.sequence.to_le_bytes());
        bytes.extend_from_slice(&(entry.record.len() as u16).to_le_bytes());
        bytes.extend_from_slice(entry.record);
    }
    bytes
}

/// Puts records in, each only where it is newer than what is there; a bucket that changes loses its tombstones older
/// than `tombstones_until` as well. `None` when nothing changes. A bucket that cannot be read is replaced: what it held
/// will be renewed by the load under way.
///
/// `updates` come in hash order, each hash once.
pub fn merge(current: &[u8], updates: &[Entry<'_>], tombstones_until: StreamId) -> Option<Vec<u8>> {
    let existing: Vec<Entry<'_>> = readable(current).unwrap_or_default();
    let mut merged = Vec::with_capacity(existing.len() + updates.len());
    let mut changed = false;
    let mut old = existing.iter().peekable();
    for update in updates {
        while let Some(entry) = old.next_if(|entry| entry.hash < update.hash) {
            merged.push(*entry);
        }
        match old.next_if(|entry| entry.hash == update.hash) {
            Some(entry) if entry.id >= update.id => merged.push(*entry),
            _ => {
                merged.push(*update);
                changed = true;
            }
        }
    }
    merged.extend(old);
    merged.retain(|entry| entry.id >= tombstones_until || !entry.is_tombstone());
    changed.then(|| build(&merged))
}

/// Drops what a completed load did not renew: records older than `loaded`, and tombstones older than
/// `tombstones_until`. `None` when nothing changes.
pub fn sweep(current: &[u8], loaded: StreamId, tombstones_until: StreamId) -> Option<Vec<u8>> {
    let existing = readable(current)?;
    let kept: Vec<Entry<'_>> = existing
        .iter()
        .filter(|entry| {
            let horizon = if entry.is_tombstone() {
                tombstones_until
            } else {
                loaded
            };
            entry.id >= horizon
        })
        .copied()
        .collect();
    (kept.len() != existing.len()).then(|| build(&kept))
}

fn readable(bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    let bucket = Bucket::parse(bytes).ok()?;
    let entries: Vec<Entry<'_>> = bucket.entries().collect::<Result<_, _>>().ok()?;
    // Entries that overlap would let a merge build far more than it read.
    let fills = |entry: &Entry<'_>| OFFSET + FIXED + entry.record.len();
    let expected = HEADER + entries.iter().map(fills).sum::<usize>();
    (bytes.is_empty() || expected == bytes.len()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Keeps tombstones of any age.
    fn put(current: &[u8], updates: &[Entry<'_>]) -> Option<Vec<u8>> {
        merge(current, updates, StreamId::default())
    }

    #[test]
    fn a_bucket_whose_entries_overlap_is_replaced_and_never_blown_up() {
        let entry = Entry {
            hash: Sha256Hash::of(b"x"),
            id: id(1),
            record: &[0; 100],
        };
        let one = build(&[entry]);
        let mut overlapping = 5_000u32.to_le_bytes().to_vec();
        for _ in 0..5_000 {
            overlapping.extend_from_slice(&20_004u32.to_le_bytes());
        }
        overlapping.extend_from_slice(&one[8..]);
        assert_eq!(Bucket::parse(&overlapping).unwrap().len(), 5_000);
        assert_eq!(put(&overlapping, &[entry]), Some(one));
    }

    fn id(millis: u64) -> StreamId {
        StreamId {
            millis,
            sequence: 0,
        }
    }

    fn entry(first: u8, millis: u64, record: &[u8]) -> Entry<'_> {
        Entry {
            hash: Sha256Hash::from_bytes([first; 32]),
            id: id(millis),
            record,
        }
    }

    fn firsts(bucket: &[u8]) -> Vec<u8> {
        let bucket = Bucket::parse(bucket).unwrap();
        let entries = bucket.entries().map(Result::unwrap);
        entries.map(|entry| entry.hash.as_bytes()[0]).collect()
    }

    #[test]
    fn an_older_write_never_replaces_a_newer_record() {
        let bucket = put(&[], &[entry(1, 10, b"new")]).unwrap();
        assert_eq!(put(&bucket, &[entry(1, 9, b"old")]), None);
        assert_eq!(put(&bucket, &[entry(1, 10, b"same age")]), None);
        let newer = put(&bucket, &[entry(1, 11, b"newer")]).unwrap();
        let found = Bucket::parse(&newer).unwrap();
        assert_eq!(found.entries().next().unwrap().unwrap().record, b"newer");
    }

    #[test]
    fn a_sweep_drops_what_was_not_renewed_and_keeps_young_tombstones() {
        let grave = [TOMBSTONE];
        let bucket = put(
            &[],
            &[
                entry(1, 5, b"\x02\0\0\0\0"),
                entry(2, 10, b"\x02\0\0\0\0"),
                entry(3, 5, &grave),
                entry(4, 1, &grave),
            ],
        )
        .unwrap();
        let swept = sweep(&bucket, id(10), id(3)).unwrap();
        assert_eq!(firsts(&swept), [2, 3]);
        assert_eq!(sweep(&swept, id(10), id(3)), None);
        assert_eq!(sweep(&[], id(10), id(3)), None);
    }

    #[test]
    fn a_change_drops_old_tombstones_beside_it_and_nothing_else() {
        let grave = [TOMBSTONE];
        let bucket = put(
            &[],
            &[
                entry(1, 1, &grave),
                entry(2, 1, b"\x02\0\0\0\0"),
                entry(3, 5, &grave),
            ],
        )
        .unwrap();
        assert_eq!(
            merge(&bucket, &[entry(2, 1, b"x")], id(5)),
            None,
            "what changes nothing writes nothing"
        );
        let changed = merge(&bucket, &[entry(4, 9, &grave)], id(5)).unwrap();
        assert_eq!(firsts(&changed), [2, 3, 4]);
    }

    proptest! {
        #[test]
        fn a_bucket_behaves_like_a_map_ordered_by_stream_id(
            writes in prop::collection::vec((0u8..20, 0u64..5, any::<u8>()), 0..60)
        ) {
            let mut model: BTreeMap<u8, (u64, u8)> = BTreeMap::new();
            let mut bucket = Vec::new();
            for (first, millis, value) in writes {
                if let Some(next) = put(&bucket, &[entry(first, millis, &[value])]) {
                    bucket = next;
                }
                match model.get(&first) {
                    Some((held, _)) if *held >= millis => {}
                    _ => { model.insert(first, (millis, value)); }
                }
            }
            let parsed = Bucket::parse(&bucket).unwrap();
            prop_assert_eq!(parsed.len(), model.len());
            for first in 0u8..20 {
                let found = parsed.find(&Sha256Hash::from_bytes([first; 32])).unwrap();
                prop_assert_eq!(
                    found.map(|entry| (entry.id.millis, entry.record[0])),
                    model.get(&first).copied()
                );
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), first in any::<u8>()) {
            if let Ok(bucket) = Bucket::parse(&bytes) {
                let _ = bucket.find(&Sha256Hash::from_bytes([first; 32]));
                let _ = bucket.entries().take(100).filter(Result::is_ok).count();
            }
            let _ = put(&bytes, &[entry(first, 1, b"x")]);
            let _ = sweep(&bytes, id(1), id(1));
        }
    }
}
