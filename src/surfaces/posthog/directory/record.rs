//! What one token or credential is, and its bytes.
//!
//! Little-endian, one kind byte first. Lists carry a `u16` count. The same bytes stand in pages and in
//! buckets, so loading copies them without decoding.

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::records::{CorruptRecord, Reader, TOMBSTONE, VERSION};
use crate::tenant::Tenant;

/// PostHog's organization id: a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(pub [u8; 16]);

impl OrganizationId {
    /// Reads the hyphenated form of RFC 9562 §4, in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut id = [0u8; 16];
        let mut nibbles = 0usize;
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            let nibble = u8::try_from(char::from(*byte).to_digit(16)?).ok()?;
            let slot = id.get_mut(nibbles / 2)?;
            *slot = (*slot << 4) | nibble;
            nibbles += 1;
        }
        Some(Self(id))
    }
}

/// A team, found by the hash of its public project token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub id: Tenant,
    /// The organization that personal keys must belong to; a team without one admits any.
    pub organization: Option<OrganizationId>,
}

/// A personal API key with what decides its access (PostHog's checks 1 to 5, `access`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonalKey {
    /// Whether its user may sign in.
    pub user_active: bool,
    /// Whether its scopes contain reading flags.
    pub reads_flags: bool,
    /// Teams it is restricted to; empty means no restriction.
    pub scoped_teams: Vec<Tenant>,
    /// Organizations it is restricted to; empty means no restriction.
    pub scoped_organizations: Vec<OrganizationId>,
    /// Organizations its user belongs to.
    pub organizations: Vec<OrganizationId>,
}

/// What a hash stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// It was removed, and is not to be looked up elsewhere.
    Tombstone,
    /// A public project token.
    Team(Team),
    /// A team's secret token or its backup.
    TeamSecret(Tenant),
    /// A project secret key.
    ProjectSecret {
        /// The team it belongs to.
        team: Tenant,
        /// Whether its scopes contain reading flags.
        reads_flags: bool,
    },
    /// A personal API key.
    Personal(PersonalKey),
    /// The ETag of a team's definitions as clients see it, found by [`etag_hash`].
    ETag(ETag),
}

/// What the record of a team's ETag is found by. No token has this hash: the text begins with NUL.
pub fn etag_hash(team: Tenant) -> Sha256Hash {
    let [a, b, c, d] = team.0.to_le_bytes();
    Sha256Hash::of(&[0, b'e', b't', b'a', b'g', a, b, c, d])
}

const TEAM: u8 = 1;
const TEAM_SECRET: u8 = 2;
const PROJECT_SECRET: u8 = 3;
const PERSONAL: u8 = 4;

impl Record {
    /// Longest encoding, bounded by the `u16` that carries its length.
    pub const MAX_BYTES: usize = u16::MAX as usize;

    /// The bytes, or `None` when they would exceed [`Record::MAX_BYTES`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(32);
        match self {
            Self::Tombstone => out.push(TOMBSTONE),
            Self::Team(Team { id, organization }) => {
                out.push(TEAM);
                out.extend_from_slice(&id.0.to_le_bytes());
                if let Some(organization) = organization {
                    out.extend_from_slice(&organization.0);
                }
            }
            Self::TeamSecret(team) => {
                out.push(TEAM_SECRET);
                out.extend_from_slice(&team.0.to_le_bytes());
            }
            Self::ProjectSecret { team, reads_flags } => {
                out.push(PROJECT_SECRET);
                out.extend_from_slice(&team.0.to_le_bytes());
                out.push(u8::from(*reads_flags));
            }
            Self::Personal(key) => {
                out.push(PERSONAL);
                out.push(u8::from(key.user_active));
                out.push(u8::from(key.reads_flags));
                put_list(&mut out, &key.scoped_teams, |team| team.0.to_le_bytes())?;
                put_list(&mut out, &key.scoped_organizations, |id| id.0)?;
                put_list(&mut out, &key.organizations, |id| id.0)?;
            }
            Self::ETag(etag) => {
                out.push(VERSION);
                out.extend_from_slice(etag.as_bytes());
            }
        }
        (out.len() <= Self::MAX_BYTES).then_some(out)
    }

    /// Whether these bytes are the record of an ETag.
    pub fn is_etag(bytes: &[u8]) -> bool {
        bytes.first() == Some(&VERSION)
    }

    /// Whether these bytes are a record of PostHog's.
    ///
    /// # Errors
    /// When they are not.
    pub fn check(bytes: &[u8]) -> Result<(), CorruptRecord> {
        Self::decode(bytes).map(drop)
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// When a byte is missing, left over, or out of its range.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let mut input = Reader(bytes);
        let record = match input.byte()? {
            TOMBSTONE => Self::Tombstone,
            TEAM => Self::Team(Team {
                id: Tenant(input.u32()?),
                organization: if input.is_empty() {
                    None
                } else {
                    Some(OrganizationId(input.array()?))
                },
            }),
            TEAM_SECRET => Self::TeamSecret(Tenant(input.u32()?)),
            PROJECT_SECRET => Self::ProjectSecret {
                team: Tenant(input.u32()?),
                reads_flags: input.flag()?,
            },
            PERSONAL => Self::Personal(PersonalKey {
                user_active: input.flag()?,
                reads_flags: input.flag()?,
                scoped_teams: input.list(|input| Ok(Tenant(input.u32()?)))?,
                scoped_organizations: input.list(|input| Ok(OrganizationId(input.array()?)))?,
                organizations: input.list(|input| Ok(OrganizationId(input.array()?)))?,
            }),
            VERSION => Self::ETag(ETag::new(input.rest()).ok_or(CorruptRecord)?),
            _ => return Err(CorruptRecord),
        };
        if input.is_empty() {
            Ok(record)
        } else {
            Err(CorruptRecord)
        }
    }
}

fn put_list<T, const N: usize>(
    out: &mut Vec<u8>,
    items: &[T],
    bytes: impl Fn(&T) -> [u8; N],
) -> Option<()> {
    out.extend_from_slice(&u16::try_from(items.len()).ok()?.to_le_bytes());
    for item in items {
        out.extend_from_slice(&bytes(item));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn organization() -> impl Strategy<Value = OrganizationId> {
        any::<[u8; 16]>().prop_map(OrganizationId)
    }

    pub(crate) fn record() -> impl Strategy<Value = Record> {
        let organizations = || prop::collection::vec(organization(), 0..4);
        prop_oneof![
            Just(Record::Tombstone),
            (any::<u32>(), prop::option::of(organization())).prop_map(|(id, organization)| {
                Record::Team(Team {
                    id: Tenant(id),
                    organization,
                })
            }),
            any::<u32>().prop_map(|id| Record::TeamSecret(Tenant(id))),
            "[a-z0-9-]{1,64}".prop_map(|tag| Record::ETag(ETag::new(tag.as_bytes()).unwrap())),
            (any::<u32>(), any::<bool>()).prop_map(|(id, reads_flags)| Record::ProjectSecret {
                team: Tenant(id),
                reads_flags
            }),
            (
                any::<(bool, bool)>(),
                prop::collection::vec(any::<u32>().prop_map(Tenant), 0..4),
                organizations(),
                organizations()
            )
                .prop_map(
                    |(flags, scoped_teams, scoped_organizations, organizations)| {
                        Record::Personal(PersonalKey {
                            user_active: flags.0,
                            reads_flags: flags.1,
                            scoped_teams,
                            scoped_organizations,
                            organizations,
                        })
                    }
                ),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives_its_encoding(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }

        #[test]
        fn arbitrary_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn a_truncated_record_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
            let bytes = record.encode().unwrap();
            let shorter = &bytes[..cut.index(bytes.len())];
            prop_assert_ne!(Record::decode(shorter), Ok(record));
        }
    }

    #[test]
    fn a_record_that_does_not_fit_is_not_encoded() {
        let key = PersonalKey {
            organizations: vec![OrganizationId([0; 16]); 5_000],
            ..PersonalKey::default()
        };
        assert_eq!(Record::Personal(key).encode(), None);
    }

    #[test]
    fn organization_ids_are_hyphenated_uuids() {
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        let id = OrganizationId::parse(text).unwrap();
        assert_eq!(id.0[..4], [0x01, 0x89, 0x0a, 0x5d]);
        assert_eq!(OrganizationId::parse(&text.to_uppercase()), Some(id));
        for bad in [
            "",
            &text[1..],
            &text.replace('-', "0"),
            &text.replace('a', "g"),
        ] {
            assert_eq!(OrganizationId::parse(bad), None, "{bad}");
        }
    }
}
