//! Records by hash in buckets of shared data: bytes, and as of when they are true. No product is known here: a surface
//! decodes what it finds.
//!
//! A record begins with its kind. [`TOMBSTONE`] and [`VERSION`] are the same for all surfaces.

pub mod bucket;
mod buckets;
mod reader;
mod revision;
mod stream_id;

pub use buckets::Buckets;
pub use reader::CorruptRecord;
pub(crate) use reader::Reader;
pub use revision::{Revision, Touched};
pub use stream_id::StreamId;

use crate::hash::Sha256Hash;
use crate::shared::{Store, StoreError};
use bucket::Bucket;

/// Kind of what was removed.
pub const TOMBSTONE: u8 = 0;

/// Kind of a tenant's current version.
pub const VERSION: u8 = 5;

/// Whether a surface can read these bytes of a record: what it cannot must not reach shared data.
pub type Check = fn(&[u8]) -> Result<(), CorruptRecord>;

/// Finds a record and the stream id as of which it is true: one read and a binary search.
///
/// # Errors
/// When shared data fails, the bucket's bytes are not a bucket, or `decode` fails: none means "unknown".
pub fn find<T>(
    store: &impl Store,
    buckets: &Buckets,
    hash: &Sha256Hash,
    decode: impl FnOnce(&[u8]) -> Result<T, CorruptRecord>,
) -> Result<Option<(T, StreamId)>, LookupError> {
    let bytes = store.read(&buckets.name(buckets.of(hash)))?.value;
    let Some(entry) = Bucket::parse(&bytes)?.find(hash)? else {
        return Ok(None);
    };
    Ok(Some((decode(entry.record)?, entry.id)))
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
