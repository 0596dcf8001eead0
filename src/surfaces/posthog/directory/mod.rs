//! Who may read what.
//!
//! A [`Record`] says what one token or credential is. Records are found by the SHA-256 of the secret text
//! ([`Sha256Hash`]); clear text is never kept. [`access`] holds PostHog's rules.

pub mod access;
mod counts;
mod record;

#[cfg(test)]
pub(crate) mod testing;

pub use counts::RecordCounts;
pub use record::{OrganizationId, PersonalKey, Record, Team, etag_hash};

use crate::hash::Sha256Hash;
use crate::records::{self, Buckets, LookupError, StreamId};
use crate::shared::Store;

/// Finds a record in shared data: one read and a binary search.
///
/// # Errors
/// When shared data fails, or the bucket's bytes are not a bucket: neither means "unknown".
pub fn find(
    store: &impl Store,
    buckets: &Buckets,
    hash: &Sha256Hash,
) -> Result<Option<Record>, LookupError> {
    Ok(find_with_id(store, buckets, hash)?.map(|(record, _)| record))
}

/// The same, with the stream id as of which the record is true.
///
/// # Errors
/// As [`find`].
pub fn find_with_id(
    store: &impl Store,
    buckets: &Buckets,
    hash: &Sha256Hash,
) -> Result<Option<(Record, StreamId)>, LookupError> {
    records::find(store, buckets, hash, Record::decode)
}
