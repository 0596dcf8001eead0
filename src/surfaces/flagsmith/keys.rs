//! Who a key is, and when an unknown one may be refused.

use super::records::{FlagsmithRecord, Polled, polled_hash, round_hash};
use crate::hash::{Hashes, Sha256Hash};
use crate::recent::Recent;
use crate::records::Buckets;
use crate::shared::{Ambient, Store, StoreError};
use crate::surfaces::evaluated::admission::AccessVerdict;
use crate::surfaces::evaluated::library::{PLACES, REMEMBERED};
use crate::surfaces::evaluated::records::{Found, find};
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeReader {
    /// The environment that the key reads.
    pub environment: Tenant,
    /// Whether it is a server-side key.
    pub is_server: bool,
    /// Whether its requests are counted, as the environment's are reported to its source.
    pub is_counted: bool,
    /// Unix seconds from which on the key does not count; 0: it never expires.
    expires_at: u64,
}

impl EdgeReader {
    fn of(record: &FlagsmithRecord) -> Option<Self> {
        use FlagsmithRecord::{ClientKey, CountedClientKey, CountedServerKey, ServerKey};
        let (environment, expires_at) = match *record {
            ClientKey(environment) | CountedClientKey(environment) => (environment, None),
            ServerKey {
                environment,
                expires_at,
            }
            | CountedServerKey {
                environment,
                expires_at,
            } => (environment, Some(expires_at)),
            _ => return None,
        };
        Some(Self {
            environment,
            is_server: expires_at.is_some(),
            is_counted: matches!(record, CountedClientKey(_) | CountedServerKey { .. }),
            expires_at: expires_at.unwrap_or(0),
        })
    }
}

/// What the snapshot says of a key.
pub type KeyVerdict = AccessVerdict<EdgeReader>;

/// The prefix of server-side keys.
pub const SERVER_PREFIX: &[u8] = b"ser.";

/// Keys in shared data, with a memory of what was found a moment ago.
pub struct KeyDirectory {
    buckets: Buckets,
    hashes: Hashes,
    readers: Recent<Sha256Hash, EdgeReader>,
}

impl KeyDirectory {
    /// That in these buckets.
    pub fn new(buckets: Buckets, ambient: &dyn Ambient) -> Self {
        Self {
            buckets,
            hashes: Hashes::new(ambient.random_bytes()),
            readers: Recent::new(PLACES, REMEMBERED),
        }
    }

    /// Who a key is. One that expires is taken out by the publisher, by its clock. Where the snapshot is not `fresh`, that may not
    /// have come, and the wall clock here says that it is not known any more; that clock may be wrong, so it refuses nobody.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn reader(
        &mut self,
        key: &[u8],
        store: &impl Store,
        (ambient, is_fresh): (&dyn Ambient, bool),
        now: Monotonic,
    ) -> Result<KeyVerdict, StoreError> {
        let hash = self.hashes.of(key).hash;
        let known = self.readers.get(&hash, now).copied();
        let reader = match known {
            Some(reader) => reader,
            None => match self.read(store, &hash)? {
                Found::Later => return Ok(KeyVerdict::Unknown),
                Found::Record(record) => match EdgeReader::of(&record) {
                    Some(reader) => reader,
                    None => return self.unknown(store),
                },
                Found::Nothing => return self.unknown(store),
            },
        };
        let is_over = |unix: UnixMillis| unix.as_millis() / 1_000 >= reader.expires_at;
        if reader.expires_at > 0 && !is_fresh && ambient.unix().is_some_and(is_over) {
            return Ok(KeyVerdict::Unknown);
        }
        if known.is_none() {
            self.readers.note(hash, reader, now);
        }
        Ok(KeyVerdict::Reads(reader))
    }

    /// A key that no record names is refused where the publisher says that it knows all keys.
    fn unknown(&self, store: &impl Store) -> Result<KeyVerdict, StoreError> {
        let round = self.read(store, &round_hash())?;
        Ok(match round {
            Found::Record(FlagsmithRecord::Round(round)) if round.knows_keys => KeyVerdict::Refused,
            // Without a round the surface has no source.
            _ => KeyVerdict::Unknown,
        })
    }

    /// What the publisher said last of its polls; `None`: nothing yet, or shared data fails.
    pub fn polled(&self, store: &impl Store) -> Option<Polled> {
        match self.read(store, &polled_hash()) {
            Ok(Found::Record(FlagsmithRecord::Polled(polled))) => Some(polled),
            _ => None,
        }
    }

    fn read(
        &self,
        store: &impl Store,
        hash: &Sha256Hash,
    ) -> Result<Found<FlagsmithRecord>, StoreError> {
        find(store, &self.buckets, hash)
    }
}
