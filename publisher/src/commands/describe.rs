//! Records in words: for people who compare or look into what is published. Hashes are shown by their first digits.

use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::ofrep::records::OfrepRecord;
use flag_definitions_filter::surfaces::posthog::directory::{
    OrganizationId, PersonalKey, Record, Team,
};
use flag_definitions_filter::tenant::Tenant;

/// A record's kind, in the order in which kinds are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A public project token.
    Team,
    /// A team's secret token or its backup.
    TeamSecret,
    /// A project secret key.
    ProjectSecret,
    /// A personal API key.
    Personal,
    /// A key of OFREP.
    OfrepKey,
    /// A team's ETag.
    ETag,
    /// A removal.
    Tombstone,
}

impl Kind {
    /// The kind of a record.
    pub const fn of(record: &Record) -> Self {
        match record {
            Record::Tombstone => Self::Tombstone,
            Record::Team(_) => Self::Team,
            Record::TeamSecret(_) => Self::TeamSecret,
            Record::ProjectSecret { .. } => Self::ProjectSecret,
            Record::Personal(_) => Self::Personal,
            Record::ETag(_) => Self::ETag,
        }
    }

    /// What one of them is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::TeamSecret => "team secret",
            Self::ProjectSecret => "project secret key",
            Self::Personal => "personal key",
            Self::OfrepKey => "OFREP key",
            Self::ETag => "ETag",
            Self::Tombstone => "removed",
        }
    }
}

/// A record that a [`crate::sources::Source`] reads.
#[derive(Clone, Debug)]
pub enum SourcedRecord {
    /// PostHog's.
    PostHog(Record),
    /// A key of OFREP, and what the selector is found by that it is bound to.
    OfrepKey(Option<Sha256Hash>),
}

impl SourcedRecord {
    /// Reads one; `None`: no source reads such a record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match OfrepRecord::decode(bytes) {
            Ok(OfrepRecord::Key(bound)) => Some(Self::OfrepKey(bound)),
            _ => Record::decode(bytes).ok().map(Self::PostHog),
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::PostHog(record) => Kind::of(record),
            Self::OfrepKey(_) => Kind::OfrepKey,
        }
    }
}

impl fmt::Display for SourcedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PostHog(record) => Described(record).fmt(f),
            Self::OfrepKey(None) => write!(f, "{}, every selection", self.kind().name()),
            Self::OfrepKey(Some(bound)) => {
                write!(f, "{}, selection {}", self.kind().name(), short(bound))
            }
        }
    }
}

/// A hash by its first digits, which suffice to tell two apart.
pub fn short(hash: &Sha256Hash) -> String {
    format!("{hash:?}")
}

/// An organization's id as PostHog writes it.
pub fn organization(OrganizationId(id): &OrganizationId) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a>(pub &'a Record);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = Kind::of(self.0).name();
        match self.0 {
            Record::Tombstone => f.write_str(kind),
            Record::Team(Team { id, organization }) => {
                write!(f, "{kind} {id}")?;
                match organization {
                    Some(id) => write!(f, ", organization {}", self::organization(id)),
                    None => f.write_str(", no organization"),
                }
            }
            Record::TeamSecret(team) => write!(f, "{kind} of team {team}"),
            Record::ProjectSecret { team, reads_flags } => {
                write!(f, "{kind} of team {team}, {}", scopes(*reads_flags))
            }
            Record::Personal(key) => write!(f, "{kind}, {}", Personal(key)),
            Record::ETag(etag) => {
                write!(f, "{kind} {}", String::from_utf8_lossy(etag.as_bytes()))
            }
        }
    }
}

/// What scopes allow.
const fn scopes(reads_flags: bool) -> &'static str {
    if reads_flags {
        "scopes read flags"
    } else {
        "scopes do not read flags"
    }
}

struct Personal<'a>(&'a PersonalKey);

impl fmt::Display for Personal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PersonalKey {
            user_active,
            reads_flags,
            scoped_teams,
            scoped_organizations,
            organizations,
        } = self.0;
        let user = if *user_active { "active" } else { "inactive" };
        write!(f, "user {user}, {}", scopes(*reads_flags))?;
        write!(f, ", member of {}", list(organizations, organization))?;
        if !scoped_teams.is_empty() {
            let teams = list(scoped_teams, Tenant::to_string);
            write!(f, ", only for teams {teams}")?;
        }
        if !scoped_organizations.is_empty() {
            let organizations = list(scoped_organizations, organization);
            write!(f, ", only for organizations {organizations}")?;
        }
        Ok(())
    }
}

/// The first few of them.
fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    const SHOWN: usize = 5;
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut shown: Vec<String> = items.iter().take(SHOWN).map(text).collect();
    if items.len() > SHOWN {
        shown.push(format!("{} more", items.len() - SHOWN));
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_words() {
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        let organization = OrganizationId::parse(text).unwrap();
        let key = |teams: u32| {
            Record::Personal(PersonalKey {
                user_active: teams == 0,
                reads_flags: true,
                scoped_teams: (0..teams).map(Tenant).collect(),
                scoped_organizations: vec![],
                organizations: vec![organization; teams.min(1) as usize],
            })
        };
        for (record, expected) in [
            (
                Record::Team(Team {
                    id: Tenant(7),
                    organization: Some(organization),
                }),
                format!("team 7, organization {text}"),
            ),
            (
                Record::TeamSecret(Tenant(7)),
                "team secret of team 7".to_owned(),
            ),
            (
                Record::ProjectSecret {
                    team: Tenant(7),
                    reads_flags: false,
                },
                "project secret key of team 7, scopes do not read flags".to_owned(),
            ),
            (
                key(0),
                "personal key, user active, scopes read flags, member of none".to_owned(),
            ),
            (
                key(7),
                format!(
                    "personal key, user inactive, scopes read flags, member of {text}, \
                     only for teams 0 1 2 3 4 2 more"
                ),
            ),
            (Record::Tombstone, "removed".to_owned()),
        ] {
            assert_eq!(Described(&record).to_string(), expected);
        }
    }
}
