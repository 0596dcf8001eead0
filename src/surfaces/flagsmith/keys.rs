//! Who a key is, and when an unknown one may be refused.

use std::time::Duration;

use super::records::{FlagsmithRecord, Polled, polled_hash, round_hash, version_hash};
use crate::documents::current::Published;
use crate::hash::{Hashes, Sha256Hash};
use crate::http::ETag;
use crate::recent::Recent;
use crate::records::{self, Buckets, LookupError, StreamId};
use crate::shared::{Ambient, Store, StoreError};
use crate::snapshot::follow::Confirmation;
use crate::tenant::Tenant;
use crate::time::{Monotonic, UnixMillis};

/// How long what shared data said counts: a removed key is accepted for so much longer.
const REMEMBERED: Duration = Duration::from_millis(10);

/// Most keys, and most environments, of which that is remembered.
const PLACES: usize = 4_096;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// It reads this.
    Reads(EdgeReader),
    /// It is known to read nothing.
    Refused,
    /// It is not known here, and the list of keys may lack it.
    Unknown,
}

/// The prefix of server-side keys.
pub const SERVER_PREFIX: &[u8] = b"ser.";

/// Keys and versions in shared data, with a memory of what was found a moment ago.
pub struct KeyDirectory {
    buckets: Buckets,
    hashes: Hashes,
    readers: Recent<Sha256Hash, EdgeReader>,
    versions: Recent<Tenant, Option<(ETag, StreamId)>>,
}

impl KeyDirectory {
    /// That in these buckets.
    pub fn new(buckets: Buckets, ambient: &dyn Ambient) -> Self {
        Self {
            buckets,
            hashes: Hashes::new(ambient.random_bytes()),
            readers: Recent::new(PLACES, REMEMBERED),
            versions: Recent::new(PLACES, REMEMBERED),
        }
    }

    /// Who a key is.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn reader(
        &mut self,
        key: &[u8],
        store: &impl Store,
        ambient: &dyn Ambient,
        now: Monotonic,
    ) -> Result<KeyVerdict, StoreError> {
        let hash = self.hashes.of(key).hash;
        let known = self.readers.get(&hash, now).copied();
        let reader = match known {
            Some(reader) => reader,
            None => match self.read(store, &hash)? {
                Found::Newer => return Ok(KeyVerdict::Unknown),
                Found::Record(record) => match EdgeReader::of(&record) {
                    Some(reader) => reader,
                    None => return self.unknown(store),
                },
                Found::Nothing => return self.unknown(store),
            },
        };
        let is_over = |unix: UnixMillis| unix.as_millis() / 1_000 >= reader.expires_at;
        if reader.expires_at > 0 && ambient.unix().is_some_and(is_over) {
            // It may have been given more time since the list was read.
            return self.unknown(store);
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

    /// What the publisher said last of a document's version. `None`: it never read one.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn version(
        &mut self,
        environment: Tenant,
        store: &impl Store,
        now: Monotonic,
    ) -> Result<Option<(ETag, StreamId)>, StoreError> {
        if let Some(known) = self.versions.get(&environment, now) {
            return Ok(known.clone());
        }
        let hash = version_hash(environment);
        let found = records::find(store, &self.buckets, &hash, FlagsmithRecord::decode);
        let version = match found {
            Ok(Some((FlagsmithRecord::Version(etag), id))) => Some((etag, id)),
            Ok(_) | Err(LookupError::Corrupt(_)) => None,
            Err(LookupError::Store(error)) => return Err(error),
        };
        self.versions.note(environment, version.clone(), now);
        Ok(version)
    }

    /// What the publisher said last of its polls; `None`: nothing yet, or shared data fails.
    pub fn polled(&self, store: &impl Store) -> Option<Polled> {
        match self.read(store, &polled_hash()) {
            Ok(Found::Record(FlagsmithRecord::Polled(polled))) => Some(polled),
            _ => None,
        }
    }

    fn read(&self, store: &impl Store, hash: &Sha256Hash) -> Result<Found, StoreError> {
        let decode = |bytes: &[u8]| match FlagsmithRecord::decode(bytes) {
            Ok(record) => Ok(Found::Record(record)),
            Err(_) if FlagsmithRecord::is_newer(bytes) => Ok(Found::Newer),
            Err(problem) => Err(problem),
        };
        match records::find(store, &self.buckets, hash, decode) {
            Ok(found) => Ok(found.map_or(Found::Nothing, |(found, _)| found)),
            // Another surface's.
            Err(LookupError::Corrupt(_)) => Ok(Found::Nothing),
            Err(LookupError::Store(error)) => Err(error),
        }
    }
}

/// What shared data has under a hash.
enum Found {
    Nothing,
    Record(FlagsmithRecord),
    /// A record of this surface of a kind that came after this build. It may well be a key.
    Newer,
}

/// A version as the publisher published it, in this clock's time.
pub fn published(version: (ETag, StreamId), confirmation: Confirmation) -> Option<Published> {
    let (etag, id) = version;
    (id >= confirmation.since).then(|| Published {
        etag,
        at: confirmation.moment(id),
        confirmed_at: confirmation.at,
    })
}
