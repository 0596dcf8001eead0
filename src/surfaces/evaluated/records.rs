//! Records of one surface in shared data, among those of others and of later releases.

use std::ops::RangeInclusive;

use crate::hash::Sha256Hash;
use crate::records::{self, Buckets, CorruptRecord, LookupError};
use crate::shared::{Store, StoreError};

/// A record whose kind is one of a range that is its surface's.
pub trait KindRecord: Sized {
    /// Kinds of the surface that came after this build.
    const LATER: RangeInclusive<u8>;

    /// Reads a record.
    ///
    /// # Errors
    /// When these bytes are none.
    fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord>;
}

/// What shared data has under a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing of this surface.
    Nothing,
    /// A record.
    Record(T),
    /// A record of this surface of a kind that came after this build. It may well be a key.
    Later,
}

impl<T> Found<T> {
    /// The record.
    pub fn record(self) -> Option<T> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nothing | Self::Later => None,
        }
    }
}

/// Looks a record up.
///
/// # Errors
/// When shared data fails.
pub fn find<T: KindRecord>(
    store: &impl Store,
    buckets: &Buckets,
    hash: &Sha256Hash,
) -> Result<Found<T>, StoreError> {
    let is_later = |bytes: &[u8]| bytes.first().is_some_and(|kind| T::LATER.contains(kind));
    let decode = |bytes: &[u8]| match T::decode(bytes) {
        Err(_) if is_later(bytes) => Ok(Found::Later),
        decoded => decoded.map(Found::Record),
    };
    match records::find(store, buckets, hash, decode) {
        Ok(found) => Ok(found.map_or(Found::Nothing, |(found, _)| found)),
        // Another surface's.
        Err(LookupError::Corrupt(_)) => Ok(Found::Nothing),
        Err(LookupError::Store(error)) => Err(error),
    }
}
