//! What the publisher says of this surface in the snapshot: selections, keys, versions of definitions, and how its sources are.
//!
//! Little-endian, one kind byte first, as in pages and in buckets. A selection is found by the SHA-256 of its selector's text
//! ([`selection_hash`]), a key by that of its own.

use std::ops::RangeInclusive;

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::records::{CorruptRecord, Reader, TOMBSTONE, VERSION};
use crate::surfaces::evaluated::records::KindRecord;
use crate::tenant::Tenant;

/// What a hash stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfrepRecord {
    /// It was removed.
    Tombstone,
    /// A selection that has flags, and its number.
    Selection(Tenant),
    /// A key, and what the selector is found by that it is bound to. `None`: it may ask for every selection.
    Key(Option<Sha256Hash>),
    /// How the publisher's sources are, found by [`sources_hash`].
    Sources(SourcesState),
    /// Version of a selection's definitions, found by [`version_hash`].
    Version(ETag),
}

/// How the publisher's sources are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcesState {
    /// When all of them had been read last, in Unix milliseconds.
    pub read_at: u64,
    /// Whether the list of selections is known to be complete: only then has one that is not in it no flags.
    pub knows_selections: bool,
}

const SELECTION: u8 = 32;
const KEY: u8 = 33;
const SOURCES: u8 = 34;

/// What the record of a selection is found by. No key has this hash: the text begins with NUL.
pub fn selection_hash(selector: &str) -> Sha256Hash {
    Sha256Hash::of(&selection_text(selector))
}

/// The text that [`selection_hash`] is of.
pub fn selection_text(selector: &str) -> Vec<u8> {
    [b"\0ofrep selection", selector.as_bytes()].concat()
}

/// What the record of a version is found by.
pub fn version_hash(selection: Tenant) -> Sha256Hash {
    Sha256Hash::of(&[&b"\0ofrep version"[..], &selection.0.to_le_bytes()].concat())
}

/// What the record of the sources is found by.
pub fn sources_hash() -> Sha256Hash {
    Sha256Hash::of(b"\0ofrep sources")
}

/// The key in Redis of a selection's definitions.
pub fn document_key(prefix: &str, selection: Tenant) -> String {
    format!("{prefix}ofrep:{selection}")
}

impl OfrepRecord {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        match self {
            Self::Tombstone => out.push(TOMBSTONE),
            Self::Selection(selection) => {
                out.push(SELECTION);
                out.extend_from_slice(&selection.0.to_le_bytes());
            }
            Self::Key(bound) => {
                out.push(KEY);
                out.extend_from_slice(bound.as_ref().map_or(&[], |hash| hash.as_bytes()));
            }
            Self::Sources(state) => {
                out.push(SOURCES);
                out.extend_from_slice(&state.read_at.to_le_bytes());
                out.push(u8::from(state.knows_selections));
            }
            Self::Version(etag) => {
                out.push(VERSION);
                out.extend_from_slice(etag.as_bytes());
            }
        }
        out
    }

    /// Whether these bytes are a record of this surface's own kinds: no tombstone, and no version, which are all surfaces'.
    pub fn is_own(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(SELECTION..=SOURCES)))
    }

    /// Reads what [`OfrepRecord::encode`] wrote.
    ///
    /// # Errors
    /// When a byte is missing, left over, or out of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let mut input = Reader(bytes);
        let record = match input.byte()? {
            TOMBSTONE => Self::Tombstone,
            SELECTION => Self::Selection(Tenant(input.u32()?)),
            KEY => match *input.rest() {
                [] => Self::Key(None),
                ref hash => {
                    let hash = hash.try_into().map_err(|_| CorruptRecord)?;
                    Self::Key(Some(Sha256Hash::from_bytes(hash)))
                }
            },
            SOURCES => Self::Sources(SourcesState {
                read_at: input.u64()?,
                knows_selections: input.flag()?,
            }),
            VERSION => Self::Version(ETag::new(input.rest()).ok_or(CorruptRecord)?),
            _ => return Err(CorruptRecord),
        };
        match input.is_empty() {
            true => Ok(record),
            false => Err(CorruptRecord),
        }
    }
}

impl KindRecord for OfrepRecord {
    const LATER: RangeInclusive<u8> = SOURCES + 1..=47;

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        Self::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn some() -> Vec<OfrepRecord> {
        let state = SourcesState {
            read_at: 1,
            knows_selections: true,
        };
        vec![
            OfrepRecord::Tombstone,
            OfrepRecord::Selection(Tenant(0x0403_0201)),
            OfrepRecord::Key(None),
            OfrepRecord::Key(Some(selection_hash("flagSetId=shop"))),
            OfrepRecord::Sources(state),
            OfrepRecord::Version(ETag::new(b"0123456789abcdef").unwrap()),
        ]
    }

    #[test]
    fn records_are_read_as_written() {
        for record in some() {
            let bytes = record.encode();
            assert_eq!(OfrepRecord::decode(&bytes), Ok(record.clone()));
            let is_shared = matches!(record, OfrepRecord::Tombstone | OfrepRecord::Version(_));
            assert_eq!(OfrepRecord::is_own(&bytes), !is_shared);
        }
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let bytes: Vec<_> = some().iter().map(OfrepRecord::encode).collect();
        assert_eq!(bytes[1], [32, 1, 2, 3, 4]);
        assert_eq!(
            (&bytes[2][..], bytes[3][0], bytes[3].len()),
            (&[33][..], 33, 33)
        );
        assert_eq!(bytes[4], [34, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(document_key("p:", Tenant(5)), "p:ofrep:5");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(record) = OfrepRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
