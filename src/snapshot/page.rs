//! Pages: the records of a snapshot as they lie in Redis.
//!
//! Layout, little-endian: `FDP1`, then for each record, in hash order over the whole snapshot: 32 bytes
//! hash, `u16` length, the record. Hash order makes neighbours share a bucket, so loading touches each
//! bucket once.

use crate::hash::Sha256Hash;
use crate::records::{CorruptRecord, Reader};

const MAGIC: &[u8] = b"FDP1";

/// Bytes before each record: hash and length.
const HEADER: usize = 34;

/// Largest page, in bytes: what one callout carries and one worker parses without being missed.
pub const MAX_BYTES: usize = 128 << 10;

/// Splits encoded records into pages. `records` come in hash order, each hash once.
pub fn split<'a>(records: impl IntoIterator<Item = (Sha256Hash, &'a [u8])>) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut page = Page::empty();
    for (hash, record) in records {
        if !page.has_room_for(record) {
            pages.push(std::mem::replace(&mut page, Page::empty()));
        }
        page.push(hash, record);
    }
    pages.push(page);
    pages
}

/// One page as the publisher writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The value in Redis.
    pub bytes: Vec<u8>,
    /// Number of records in it.
    pub records: u32,
}

impl Page {
    /// One without records.
    pub fn empty() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
            records: 0,
        }
    }

    /// Whether a record fits. The first always does.
    pub fn has_room_for(&self, record: &[u8]) -> bool {
        self.records == 0 || self.bytes.len() + HEADER + record.len() <= MAX_BYTES
    }

    /// Adds a record. Hashes come in order over all pages of a snapshot, each once.
    pub fn push(&mut self, hash: Sha256Hash, record: &[u8]) {
        self.bytes.extend_from_slice(hash.as_bytes());
        // Lossless: `Record::encode` bounds the length.
        self.bytes
            .extend_from_slice(&(record.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
    }
}

/// Reads a page piece by piece, so that no callback has to do all of it.
#[derive(Clone, Debug)]
pub struct Cursor {
    bytes: Vec<u8>,
    position: Position,
}

/// A record of a page: its hash, its bytes, and the position after it.
pub type Located<'a> = (Sha256Hash, &'a [u8], Position);

/// A place between two records of a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Offset of the next record, in bytes.
    pub offset: usize,
    last: Option<Sha256Hash>,
}

impl Cursor {
    /// Starts at the first record.
    ///
    /// # Errors
    /// When the bytes are not a page of this format.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CorruptRecord> {
        if !bytes.starts_with(MAGIC) {
            return Err(CorruptRecord);
        }
        let position = Position {
            offset: MAGIC.len(),
            last: None,
        };
        Ok(Self { bytes, position })
    }

    /// Begins at the first record again.
    pub fn rewind(&mut self) {
        self.position = Position {
            offset: MAGIC.len(),
            last: None,
        };
    }

    /// Where the next piece begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Sets where the next piece begins.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
    }

    /// The record at a position, and the position after it; `None` at the end of the page.
    ///
    /// # Errors
    /// When what follows is cut off or out of order.
    pub fn record_at(&self, position: Position) -> Result<Option<Located<'_>>, CorruptRecord> {
        let rest = self.bytes.get(position.offset..).ok_or(CorruptRecord)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut rest = Reader(rest);
        let hash = Sha256Hash::from_bytes(rest.array()?);
        let length = usize::from(rest.u16()?);
        let record = rest.take(length)?;
        if position.last.is_some_and(|last| last >= hash) {
            return Err(CorruptRecord);
        }
        let next = Position {
            offset: position.offset + HEADER + length,
            last: Some(hash),
        };
        Ok(Some((hash, record, next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(bytes: Vec<u8>) -> Result<Vec<(Sha256Hash, Vec<u8>)>, CorruptRecord> {
        let mut cursor = Cursor::new(bytes)?;
        let mut records = Vec::new();
        while let Some((hash, record, next)) = cursor.record_at(cursor.position())? {
            records.push((hash, record.to_vec()));
            cursor.seek(next);
        }
        Ok(records)
    }

    proptest! {
        #[test]
        fn pages_hold_all_records_in_order_and_stay_small(
            mut records in prop::collection::btree_map(any::<[u8; 32]>(), 0usize..60_000, 0..30)
        ) {
            let records: Vec<(Sha256Hash, Vec<u8>)> = std::mem::take(&mut records)
                .into_iter()
                .map(|(hash, length)| (Sha256Hash::from_bytes(hash), vec![7; length]))
                .collect();
            let pages = split(records.iter().map(|(hash, record)| (*hash, record.as_slice())));
            prop_assert!(pages.iter().all(|page| page.bytes.len() <= MAX_BYTES));
            let back: Vec<_> = pages.into_iter().flat_map(|page| read(page.bytes).unwrap()).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            let _ = read(bytes);
            let _ = read(framed);
        }
    }

    #[test]
    fn a_page_out_of_order_is_refused() {
        let hash = |first| Sha256Hash::from_bytes([first; 32]);
        let page = split([(hash(2), &b"x"[..]), (hash(1), &b"y"[..])]).remove(0);
        assert_eq!(read(page.bytes), Err(CorruptRecord));
    }

    #[test]
    fn an_empty_snapshot_is_one_empty_page() {
        assert_eq!(read(split([]).remove(0).bytes), Ok(vec![]));
    }
}
