//! The stream of changes: what happened after the snapshot, in the order in which it is to be applied.
//!
//! `<prefix>changes` is a Redis stream. Each entry names the entry before it, so that a reader sees when one is
//! missing, and the fencing number of the publisher that wrote it, so that one which lost its lock is told apart.
//! Fields, in this order: `p` the id before, `f` the fencing number, `k` the kind, `v` the content:
//! - `r`: records in the layout of a page ([`super::page`]), at most [`MAX_RECORDS`]. A removal is a tombstone.
//! - `w`: a watermark, `<ms>:<ms>`, see [`Watermark`].
//!
//! The first entry of a lineage names the stream id of the manifest with which the lineage began.

use super::page::{self, Cursor};
use crate::hash::Sha256Hash;
use crate::records::{Check, CorruptRecord, StreamId};

/// Most records of one entry: what one slice of a reader applies at once.
pub const MAX_RECORDS: usize = 128;

/// Most bytes of an entry's content; one record of the largest size fits.
pub const MAX_BYTES: usize = 80 << 10;

/// As of when everything was compared with its source: Unix milliseconds of the Redis that holds the stream.
/// Every change made before that moment stands in the stream before the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// When the last complete check of all ETags began.
    pub etags_at: u64,
    /// When the records were last known to be complete; `None` when the publisher does
    /// not know it now, because its database is away.
    pub records_at: Option<u64>,
}

/// What an entry brings.
#[derive(Clone, Debug)]
pub enum Content {
    /// Records to put in, see [`records`]; tombstones among them.
    Records(Vec<u8>),
    /// Nothing changed up to this moment but what stands before it.
    Watermark(Watermark),
}

/// One entry of the stream.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its id: as of when its records are true.
    pub id: StreamId,
    /// The id of the entry before it.
    pub previous: StreamId,
    /// The fencing number of its writer.
    pub fence: u64,
    /// What it brings.
    pub content: Content,
}

/// Kind and content of an entry, as they are written (fields `k` and `v`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `r` or `w`.
    pub kind: &'static str,
    /// Its content.
    pub value: Vec<u8>,
}

impl Watermark {
    /// The entry that says so.
    pub fn written(self) -> Written {
        Written {
            kind: "w",
            value: format!("{}:{}", self.etags_at, self.records_at.unwrap_or(0)).into_bytes(),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (etags_at, records_at) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self {
            etags_at: etags_at.parse().ok()?,
            records_at: Some(records_at.parse().ok()?).filter(|at| *at > 0),
        })
    }
}

/// Splits encoded records into entries. `records` come in hash order, each hash once.
pub fn split<'a>(records: impl IntoIterator<Item = (Sha256Hash, &'a [u8])>) -> Vec<Written> {
    let mut entries = Vec::new();
    let mut batch: Vec<(Sha256Hash, &[u8])> = Vec::new();
    let mut bytes = 0;
    let mut flush = |batch: &mut Vec<(Sha256Hash, &'a [u8])>| {
        // What fits an entry fits a page, so this is one page.
        for page in page::split(batch.drain(..)) {
            entries.push(Written {
                kind: "r",
                value: page.bytes,
            });
        }
    };
    for (hash, record) in records {
        let size = record.len() + 34;
        if batch.len() >= MAX_RECORDS || (!batch.is_empty() && bytes + size > 16 << 10) {
            flush(&mut batch);
            bytes = 0;
        }
        bytes += size;
        batch.push((hash, record));
    }
    if !batch.is_empty() {
        flush(&mut batch);
    }
    entries
}

impl Change {
    /// Reads an entry: its id and its four values. Its records are not looked at yet.
    ///
    /// ```
    /// use flag_definitions_filter::snapshot::change::{Change, Content};
    /// let entry = |id: &str, previous: &str| {
    ///     Change::parse(id.as_bytes(), previous.as_bytes(), b"7", b"w", b"1700000000000:0").unwrap()
    /// };
    /// let (first, second, third) = (entry("5-0", "4-9"), entry("6-0", "5-0"), entry("8-0", "7-0"));
    /// assert_eq!(second.previous, first.id, "nothing lies between");
    /// assert_ne!(third.previous, second.id, "7-0 is missing");
    /// let Content::Watermark(mark) = first.content else { panic!() };
    /// assert_eq!((mark.etags_at, mark.records_at), (1_700_000_000_000, None));
    /// ```
    ///
    /// # Errors
    /// When it is not an entry of this format.
    pub fn parse(
        id: &[u8],
        previous: &[u8],
        fence: &[u8],
        kind: &[u8],
        value: &[u8],
    ) -> Result<Self, CorruptRecord> {
        if value.len() > MAX_BYTES {
            return Err(CorruptRecord);
        }
        let content = match kind {
            b"r" => Content::Records(value.to_vec()),
            b"w" => Content::Watermark(Watermark::parse(value).ok_or(CorruptRecord)?),
            _ => return Err(CorruptRecord),
        };
        Ok(Self {
            id: text(id)?.parse().map_err(|_| CorruptRecord)?,
            previous: text(previous)?.parse().map_err(|_| CorruptRecord)?,
            fence: text(fence)?.parse().map_err(|_| CorruptRecord)?,
            content,
        })
    }
}

/// Looks at all records of an entry.
///
/// # Errors
/// When they are not records of this format, `check` refuses one, or there are too many.
pub fn records(value: Vec<u8>, check: Check) -> Result<Cursor, CorruptRecord> {
    let cursor = Cursor::new(value)?;
    let mut position = cursor.position();
    let mut count = 0;
    while let Some((hash, record, next)) = cursor.record_at(position)? {
        crate::faults::on_record(&hash);
        check(record)?;
        position = next;
        count += 1;
        if count > MAX_RECORDS {
            return Err(CorruptRecord);
        }
    }
    Ok(cursor)
}

fn text(bytes: &[u8]) -> Result<&str, CorruptRecord> {
    std::str::from_utf8(bytes).map_err(|_| CorruptRecord)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn any_record(_: &[u8]) -> Result<(), CorruptRecord> {
        Ok(())
    }

    fn parse(written: &Written) -> Result<Change, CorruptRecord> {
        Change::parse(
            b"7-1",
            b"6-0",
            b"3",
            written.kind.as_bytes(),
            &written.value,
        )
    }

    #[test]
    fn a_watermark_survives_its_encoding() {
        for records_at in [None, Some(1_700_000_000_001)] {
            let watermark = Watermark {
                etags_at: 1_700_000_000_000,
                records_at,
            };
            let change = parse(&watermark.written()).unwrap();
            assert_eq!((change.id.millis, change.id.sequence), (7, 1));
            assert_eq!((change.previous.millis, change.fence), (6, 3));
            assert!(matches!(change.content, Content::Watermark(read) if read == watermark));
        }
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        let mark = Watermark {
            etags_at: 1,
            records_at: None,
        };
        let good = mark.written();
        for (id, previous, fence, kind, value) in [
            ("7", "6-0", "3", "w", "1:0"),
            ("7-0", "6", "3", "w", "1:0"),
            ("7-0", "6-0", "x", "w", "1:0"),
            ("7-0", "6-0", "3", "x", "1:0"),
            ("7-0", "6-0", "3", "w", "1"),
            ("7-0", "6-0", "3", "w", "-1:0"),
        ] {
            let [id, previous, fence, kind, value] =
                [id, previous, fence, kind, value].map(str::as_bytes);
            assert!(Change::parse(id, previous, fence, kind, value).is_err());
        }
        assert!(parse(&good).is_ok());
        for value in ["", "FDP2", "FDP1x"] {
            assert!(
                records(value.as_bytes().to_vec(), any_record).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn an_entry_with_a_record_that_nobody_can_read_is_refused() {
        let hash = Sha256Hash::of(b"x");
        let entry = split([(hash, &b"\x09"[..])]).remove(0);
        let refuse = |record: &[u8]| match record {
            [9, ..] => Err(CorruptRecord),
            _ => Ok(()),
        };
        assert!(records(entry.value.clone(), any_record).is_ok());
        assert!(records(entry.value, refuse).is_err());
    }

    #[test]
    fn an_entry_of_too_many_records_is_refused() {
        let hashes: Vec<_> = (0..=MAX_RECORDS as u32)
            .map(|n| Sha256Hash::of(&n.to_le_bytes()))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let page = page::split(hashes.iter().map(|hash| (*hash, &b"\0"[..]))).remove(0);
        assert!(records(page.bytes, any_record).is_err());
    }

    proptest! {
        #[test]
        fn entries_hold_all_records_in_order_within_their_bounds(
            records in prop::collection::btree_map(any::<[u8; 32]>(), 1usize..12_000, 0..300)
        ) {
            let records: Vec<(Sha256Hash, Vec<u8>)> = records
                .into_iter()
                .map(|(hash, length)| (Sha256Hash::from_bytes(hash), vec![4; length]))
                .collect();
            let mut read = Vec::new();
            for written in split(records.iter().map(|(hash, record)| (*hash, record.as_slice()))) {
                prop_assert!(written.value.len() <= MAX_BYTES);
                let Content::Records(value) = parse(&written).unwrap().content else {
                    panic!("records");
                };
                let mut cursor = super::records(value, any_record).unwrap();
                while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                    read.push((hash, record.to_vec()));
                    cursor.seek(next);
                }
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..200), kind in "[rw]") {
            let _ = Change::parse(b"7-1", b"6-0", b"3", kind.as_bytes(), &value);
            let _ = records(value, any_record);
        }
    }
}
