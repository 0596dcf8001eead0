//! Who may read what.
//!
//! A [`Record`] says what one token or credential is. Records are found by the SHA-256 of the secret text
//! ([`Sha256Hash`]); clear text is never kept. [`bucket`] packs them for shared data, [`access`] holds
//! PostHog's rules.

pub mod access;
pub mod bucket;
mod record;
mod revision;

pub use record::{OrganizationId, PersonalKey, Record, Team, etag_hash};
pub use revision::{Revision, Touched};

use crate::hash::Sha256Hash;
use crate::records::CorruptRecord;
use crate::records::StreamId;
use crate::shared::{Keys, Store, StoreError};
use bucket::Bucket;

/// Finds a record in shared data: one read and a binary search.
///
/// # Errors
/// When shared data fails, or the bucket's bytes are not a bucket: neither means "unknown".
pub fn find(
    store: &impl Store,
    keys: &Keys,
    hash: &Sha256Hash,
) -> Result<Option<Record>, LookupError> {
    Ok(find_with_id(store, keys, hash)?.map(|(record, _)| record))
}

/// The same, with the stream id as of which the record is true.
///
/// # Errors
/// As [`find`].
pub fn find_with_id(
    store: &impl Store,
    keys: &Keys,
    hash: &Sha256Hash,
) -> Result<Option<(Record, StreamId)>, LookupError> {
    let bytes = store.read(&keys.bucket(keys.bucket_of(hash)))?.value;
    let Some(entry) = Bucket::parse(&bytes)?.find(hash)? else {
        return Ok(None);
    };
    Ok(Some((Record::decode(entry.record)?, entry.id)))
}

/// A look-up that came to no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// Shared data failed.
    Store(StoreError),
    /// What is stored is not a record.
    Corrupt(CorruptRecord),
}

impl From<StoreError> for LookupError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CorruptRecord> for LookupError {
    fn from(error: CorruptRecord) -> Self {
        Self::Corrupt(error)
    }
}

impl std::fmt::Display for LookupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Corrupt(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LookupError {}
