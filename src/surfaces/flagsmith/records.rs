//! What the publisher says of this surface in the snapshot: keys, versions of documents, and how its source is.
//!
//! Little-endian, one kind byte first, as in pages and in buckets. Keys are found by the SHA-256 of their text.

use std::ops::RangeInclusive;

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::records::{CorruptRecord, Reader, TOMBSTONE, VERSION};
use crate::surfaces::evaluated::records::KindRecord;
use crate::tenant::Tenant;

/// What a hash stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagsmithRecord {
    /// It was removed.
    Tombstone,
    /// A client-side key, and the environment that it reads.
    ClientKey(Tenant),
    /// A server-side key.
    ServerKey {
        /// The environment that it reads.
        environment: Tenant,
        /// Unix seconds from which on it does not count; 0: it never expires.
        expires_at: u64,
    },
    /// A client-side key of an environment whose requests are reported to its source, so they are counted.
    CountedClientKey(Tenant),
    /// A server-side key of such an environment.
    CountedServerKey {
        /// The environment that it reads.
        environment: Tenant,
        /// As of [`FlagsmithRecord::ServerKey`].
        expires_at: u64,
    },
    /// How the publisher's source is, found by [`round_hash`].
    Round(Round),
    /// How one environment is, found by [`state_hash`].
    State(EnvironmentState),
    /// When environments were polled, found by [`polled_hash`].
    Polled(Polled),
    /// Version of an environment's document, found by [`version_hash`]. No document was ever read without one.
    Version(ETag),
}

/// How the publisher's source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// When all environments had been read last, in Unix milliseconds; 0: never yet.
    pub completed_at: u64,
    /// For how many seconds such a round counts as fresh; `None`: for ever.
    pub grace: Option<u32>,
    /// Whether the list of keys is known to be complete: only then is a key that is not in it refused.
    pub knows_keys: bool,
}

/// When environments were polled last so that their documents could be taken, as of when the publisher said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// The one that was polled longest ago, in Unix milliseconds; 0: some never were.
    pub oldest: u64,
    /// How many there are.
    pub count: u32,
    /// Those with the smallest numbers, [`MAX_LISTED`] at most, and when each was polled; 0: never.
    pub listed: Vec<(Tenant, u64)>,
}

/// Most environments that are listed.
pub const MAX_LISTED: usize = 100;

/// How one environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvironmentState {
    /// What came of its last poll.
    pub condition: Condition,
    /// Since when, in Unix milliseconds.
    pub since: u64,
}

/// What came of the last poll of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was answered.
    Polled,
    /// The source did not answer as it should. The last document stays.
    Failing,
    /// Its document was refused. The last one that fits stays.
    Refused,
}

const CLIENT_KEY: u8 = 16;
const SERVER_KEY: u8 = 17;
const ROUND: u8 = 18;
const STATE: u8 = 19;
const COUNTED_CLIENT_KEY: u8 = 20;
const COUNTED_SERVER_KEY: u8 = 21;
const POLLED: u8 = 22;

/// What the record of a document's version is found by. No key has this hash: the text begins with NUL.
pub fn version_hash(environment: Tenant) -> Sha256Hash {
    numbered(b"\0flagsmith version", environment)
}

/// What the record of an environment's state is found by.
pub fn state_hash(environment: Tenant) -> Sha256Hash {
    numbered(b"\0flagsmith state", environment)
}

/// What the record of the source's rounds is found by.
pub fn round_hash() -> Sha256Hash {
    Sha256Hash::of(b"\0flagsmith round")
}

/// What the record of polls is found by.
pub fn polled_hash() -> Sha256Hash {
    Sha256Hash::of(b"\0flagsmith polled")
}

/// The key in Redis of an environment's document: a hash of the two fields [`VERSION_FIELD`] and [`TEXT_FIELD`].
pub fn document_key(prefix: &str, environment: Tenant) -> String {
    format!("{prefix}flagsmith:{environment}")
}

/// The field with a document's version: its entity tag, [`ETag::of_text`] of the text.
pub const VERSION_FIELD: &str = "version";

/// The field with a document's text in gzip form (RFC 1952): JSON with sorted keys and no spaces.
pub const TEXT_FIELD: &str = "text";

fn numbered(name: &[u8], environment: Tenant) -> Sha256Hash {
    Sha256Hash::of(&[name, &environment.0.to_le_bytes()].concat())
}

impl FlagsmithRecord {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        match self {
            Self::Tombstone => out.push(TOMBSTONE),
            Self::ClientKey(environment) | Self::CountedClientKey(environment) => {
                out.push(match self {
                    Self::ClientKey(_) => CLIENT_KEY,
                    _ => COUNTED_CLIENT_KEY,
                });
                out.extend_from_slice(&environment.0.to_le_bytes());
            }
            Self::ServerKey {
                environment,
                expires_at,
            }
            | Self::CountedServerKey {
                environment,
                expires_at,
            } => {
                out.push(match self {
                    Self::ServerKey { .. } => SERVER_KEY,
                    _ => COUNTED_SERVER_KEY,
                });
                out.extend_from_slice(&environment.0.to_le_bytes());
                out.extend_from_slice(&expires_at.to_le_bytes());
            }
            Self::Round(round) => {
                out.push(ROUND);
                out.extend_from_slice(&round.completed_at.to_le_bytes());
                out.extend_from_slice(&round.grace.unwrap_or(u32::MAX).to_le_bytes());
                out.push(u8::from(round.knows_keys));
            }
            Self::State(state) => {
                out.push(STATE);
                out.push(match state.condition {
                    Condition::Polled => 0,
                    Condition::Failing => 1,
                    Condition::Refused => 2,
                });
                out.extend_from_slice(&state.since.to_le_bytes());
            }
            Self::Polled(polled) => {
                out.push(POLLED);
                out.extend_from_slice(&polled.oldest.to_le_bytes());
                out.extend_from_slice(&polled.count.to_le_bytes());
                for (environment, at) in polled.listed.iter().take(MAX_LISTED) {
                    out.extend_from_slice(&environment.0.to_le_bytes());
                    out.extend_from_slice(&at.to_le_bytes());
                }
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
        matches!(bytes.first(), Some(&(CLIENT_KEY..=POLLED)))
    }

    /// Reads what [`FlagsmithRecord::encode`] wrote.
    ///
    /// # Errors
    /// When a byte is missing, left over, or out of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let mut input = Reader(bytes);
        let record = match input.byte()? {
            TOMBSTONE => Self::Tombstone,
            CLIENT_KEY => Self::ClientKey(Tenant(input.u32()?)),
            SERVER_KEY => Self::ServerKey {
                environment: Tenant(input.u32()?),
                expires_at: input.u64()?,
            },
            COUNTED_CLIENT_KEY => Self::CountedClientKey(Tenant(input.u32()?)),
            COUNTED_SERVER_KEY => Self::CountedServerKey {
                environment: Tenant(input.u32()?),
                expires_at: input.u64()?,
            },
            ROUND => Self::Round(Round {
                completed_at: input.u64()?,
                grace: Some(input.u32()?).filter(|grace| *grace != u32::MAX),
                knows_keys: input.flag()?,
            }),
            STATE => Self::State(EnvironmentState {
                condition: match input.byte()? {
                    0 => Condition::Polled,
                    1 => Condition::Failing,
                    2 => Condition::Refused,
                    _ => return Err(CorruptRecord),
                },
                since: input.u64()?,
            }),
            POLLED => {
                let (oldest, count) = (input.u64()?, input.u32()?);
                let mut listed = Vec::new();
                while !input.is_empty() && listed.len() < MAX_LISTED {
                    listed.push((Tenant(input.u32()?), input.u64()?));
                }
                Self::Polled(Polled {
                    oldest,
                    count,
                    listed,
                })
            }
            VERSION => Self::Version(ETag::new(input.rest()).ok_or(CorruptRecord)?),
            _ => return Err(CorruptRecord),
        };
        match input.is_empty() {
            true => Ok(record),
            false => Err(CorruptRecord),
        }
    }
}

impl KindRecord for FlagsmithRecord {
    const LATER: RangeInclusive<u8> = POLLED + 1..=31;

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

    fn some() -> Vec<FlagsmithRecord> {
        let environment = Tenant(0x0403_0201);
        let round = |grace| Round {
            completed_at: 1,
            grace,
            knows_keys: true,
        };
        let state = |condition| EnvironmentState {
            condition,
            since: 2,
        };
        vec![
            FlagsmithRecord::Tombstone,
            FlagsmithRecord::ClientKey(environment),
            FlagsmithRecord::ServerKey {
                environment,
                expires_at: 7,
            },
            FlagsmithRecord::Round(round(None)),
            FlagsmithRecord::Round(round(Some(120))),
            FlagsmithRecord::State(state(Condition::Polled)),
            FlagsmithRecord::State(state(Condition::Failing)),
            FlagsmithRecord::State(state(Condition::Refused)),
            FlagsmithRecord::Polled(Polled::default()),
            FlagsmithRecord::Version(ETag::new(b"0123456789abcdef").unwrap()),
            FlagsmithRecord::Polled(Polled {
                oldest: 3,
                count: 101,
                listed: (0..100).map(|number| (Tenant(number), 4)).collect(),
            }),
            FlagsmithRecord::CountedClientKey(environment),
            FlagsmithRecord::CountedServerKey {
                environment,
                expires_at: 7,
            },
        ]
    }

    #[test]
    fn records_are_read_as_written_and_nothing_shorter_or_longer_is() {
        for record in some() {
            let bytes = record.encode();
            assert_eq!(FlagsmithRecord::decode(&bytes), Ok(record.clone()));
            // A version is as long as it says, and so is a list.
            if !matches!(
                record,
                FlagsmithRecord::Version(_) | FlagsmithRecord::Polled(_)
            ) {
                for end in 0..bytes.len() {
                    assert!(FlagsmithRecord::decode(&bytes[..end]).is_err());
                }
                let longer = [bytes.as_slice(), b"\0"].concat();
                assert!(FlagsmithRecord::decode(&longer).is_err());
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let bytes: Vec<_> = some().iter().map(FlagsmithRecord::encode).collect();
        assert_eq!(bytes[1], [16, 1, 2, 3, 4]);
        assert_eq!(bytes[2], [17, 1, 2, 3, 4, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes[4],
            [18, 1, 0, 0, 0, 0, 0, 0, 0, 120, 0, 0, 0, 1],
            "a round"
        );
        assert_eq!(bytes[6], [19, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[11], [20, 1, 2, 3, 4]);
        assert_eq!(bytes[12], [21, 1, 2, 3, 4, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert!(some().iter().all(|record| {
            let bytes = record.encode();
            FlagsmithRecord::is_own(&bytes) == (16..=22).contains(&bytes[0])
        }));
        assert_eq!(bytes[8], [[22].as_slice(), &[0; 12]].concat());
        assert_eq!(
            bytes[10][..17],
            [22, 3, 0, 0, 0, 0, 0, 0, 0, 101, 0, 0, 0, 0, 0, 0, 0]
        );
        // One more than there may be.
        assert!(FlagsmithRecord::decode(&[&*bytes[10], &[0; 12]].concat()).is_err());
        assert_eq!(document_key("p:", Tenant(5)), "p:flagsmith:5");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(record) = FlagsmithRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
