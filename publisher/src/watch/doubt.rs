//! Which removals of a full read are more likely a mistake than a wish.
//!
//! A database that is being restored, an empty one after a failover, and another one behind a mistaken URL all look as
//! if their teams and credentials had been removed. Their removal would be 401 for everybody, on which SDKs drop their
//! flags. So it waits until an operator says that it is meant.
//!
//! A single credential is never doubted: a revocation must not wait for anybody.
//!
//! Only the records that a [`crate::sources::Source`] reads are looked at. A source of documents doubts for itself.

use std::collections::BTreeMap;
use std::fmt;

use flag_definitions_filter::tenant::Tenant;

use super::state::{PublishedState, RecordChange};
use crate::sources::kinds::{Belonging, Meaning, RecordOwner, belonging};

/// Share of the teams, and of all records, that one full read may remove without being doubted, in percent, unless an
/// option says otherwise. 100 believes everything.
pub const MAX_REMOVAL_PERCENT: u32 = 20;

/// Fewer teams may go without being doubted, whatever share they are, as long as one is left.
const MANY_TEAMS: u64 = 3;

/// As many records may go, whatever share they are, as long as there are teams and credentials left.
const FEW_RECORDS: u64 = 100;

/// Why the removals of a full read are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No team is left.
    NoTeam {
        /// How many are published.
        published: u64,
    },
    /// None of the teams that are published is left: those in their place are another database's.
    OtherTeams {
        /// How many are published.
        published: u64,
    },
    /// No credential is left, and several are published.
    NoCredential {
        /// How many are published.
        published: u64,
    },
    /// More teams would go than are believed to.
    ManyTeams {
        /// How many would go.
        removed: u64,
        /// How many are published.
        published: u64,
        /// How many percent are believed.
        max_percent: u32,
    },
    /// More teams and credentials would go than are believed to.
    ManyRecords {
        /// How many would go.
        removed: u64,
        /// How many are published.
        published: u64,
        /// How many percent are believed.
        max_percent: u32,
    },
    /// The database has no table of project secret keys, and some are published.
    NoProjectKeyTable {
        /// How many are published.
        published: u64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTeam { published } => {
                write!(f, "none of the {published} published teams is left")
            }
            Self::OtherTeams { published } => {
                write!(
                    f,
                    "none of the {published} published teams is left, but there are others"
                )
            }
            Self::NoCredential { published } => {
                write!(f, "none of {published} published credentials is left")
            }
            Self::ManyTeams {
                removed,
                published,
                max_percent,
            } => write!(
                f,
                "{removed} of {published} published teams would go, more than {max_percent} %"
            ),
            Self::ManyRecords {
                removed,
                published,
                max_percent,
            } => write!(
                f,
                "{removed} of {published} published teams and credentials would go, more than {max_percent} %"
            ),
            Self::NoProjectKeyTable { published } => write!(
                f,
                "there is no table of project secret keys, and {published} of them are published"
            ),
        }
    }
}

impl Doubt {
    /// Of the removals among `changes`, by a reading that may have found no table of project secret keys.
    /// `max_percent` of the teams, and of the records, may go; 100: all of everything.
    pub fn of(
        state: &PublishedState,
        changes: &[RecordChange],
        lacks_project_keys: bool,
        max_percent: u32,
    ) -> Option<Self> {
        if max_percent >= 100 {
            return None;
        }
        let owner = RecordOwner::of_sources();
        let effect = Effect::of(state, changes);
        let teams = state.tenants(owner).count() as u64;
        let credentials = state.credentials(owner);
        let later_credentials = state.later_credentials(owner);
        let is_more = |removed: u64, published: u64| {
            u128::from(removed) * 100 > u128::from(published) * u128::from(max_percent)
        };
        let records = state.records().len() as u64;
        if teams > 0 && effect.teams == teams && !effect.has_new_team {
            Some(Self::NoTeam { published: teams })
        } else if effect.teams >= MANY_TEAMS && is_more(effect.teams, teams) {
            Some(Self::ManyTeams {
                removed: effect.teams,
                published: teams,
                max_percent,
            })
        } else if effect.credentials > 1
            && effect.credentials == credentials
            && !effect.has_new_credential
        {
            Some(Self::NoCredential {
                published: credentials,
            })
        } else if effect.records > FEW_RECORDS && is_more(effect.records, records) {
            Some(Self::ManyRecords {
                removed: effect.records,
                published: records,
                max_percent,
            })
        } else if lacks_project_keys && effect.credentials > 0 && later_credentials > 0 {
            Some(Self::NoProjectKeyTable {
                published: later_credentials,
            })
        } else if teams > 0 && effect.teams == teams {
            Some(Self::OtherTeams { published: teams })
        } else {
            None
        }
    }

    /// The doubt where what is published cannot be continued: a document may have named other teams than the database
    /// that is followed from now on.
    pub fn without_lineage(self) -> Option<Self> {
        Some(self).filter(|doubt| !matches!(doubt, Self::OtherTeams { .. }))
    }
}

/// Whether a published record is a credential: a secret or a key, not a team's public token.
pub fn is_credential(record: Option<&[u8]>) -> bool {
    matches!(
        meaning(record),
        Some(Meaning::Credential | Meaning::LaterCredential)
    )
}

/// What a record that a source reads stands for.
fn meaning(record: Option<&[u8]>) -> Option<Meaning> {
    match belonging(record?) {
        Belonging::Surface(owner, _, meaning) if owner == RecordOwner::of_sources() => {
            Some(meaning)
        }
        _ => None,
    }
}

/// What changes amount to.
#[derive(Debug, Default)]
struct Effect {
    /// Records that are removed.
    records: u64,
    /// Teams without a token afterwards. Another token for one that had one is no removal.
    teams: u64,
    /// Credentials that are none afterwards.
    credentials: u64,
    /// Whether there are teams that had no token before.
    has_new_team: bool,
    /// Whether there are credentials that were none before.
    has_new_credential: bool,
}

impl Effect {
    fn of(state: &PublishedState, changes: &[RecordChange]) -> Self {
        let mut effect = Self::default();
        // How many tokens more each team has afterwards.
        let mut tokens: BTreeMap<Tenant, i64> = BTreeMap::new();
        for (hash, after) in changes {
            effect.records += u64::from(after.is_none());
            let (before, after) = (state.get(hash), after.as_deref());
            for (record, difference) in [(before, -1), (after, 1)] {
                if let Some(Meaning::Reader(team)) = meaning(record) {
                    *tokens.entry(team).or_default() += difference;
                }
            }
            match (is_credential(before), is_credential(after)) {
                (true, false) => effect.credentials += 1,
                (false, true) => effect.has_new_credential = true,
                _ => (),
            }
        }
        for (team, difference) in tokens {
            let before = i64::from(state.readers(RecordOwner::of_sources(), team));
            effect.teams += u64::from(before > 0 && before + difference <= 0);
            effect.has_new_team |= before == 0 && difference > 0;
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::hash::Sha256Hash;
    use flag_definitions_filter::surfaces::posthog::directory::{PersonalKey, Record, Team};

    fn change(text: &str, record: Option<Record>) -> RecordChange {
        let record = record.map(|record| record.encode().unwrap().into());
        (Sha256Hash::of(text.as_bytes()), record)
    }

    fn token(text: &str, team: u32) -> RecordChange {
        let id = Tenant(team);
        let organization = None;
        change(text, Some(Record::Team(Team { id, organization })))
    }

    fn gone(texts: impl IntoIterator<Item = String>) -> Vec<RecordChange> {
        texts.into_iter().map(|text| change(&text, None)).collect()
    }

    /// Teams from 1 on, so many of them with a secret.
    fn state(teams: u32, secrets: u32) -> PublishedState {
        let mut state = PublishedState::default();
        for team in 1..=teams {
            state.put(token(&format!("phc_{team}"), team));
        }
        for team in 1..=secrets {
            let secret = Record::TeamSecret(Tenant(team));
            state.put(change(&format!("phs_{team}"), Some(secret)));
        }
        state
    }

    fn tokens(teams: u32) -> impl Iterator<Item = String> {
        (1..=teams).map(|team| format!("phc_{team}"))
    }

    fn secrets(teams: u32) -> impl Iterator<Item = String> {
        (1..=teams).map(|team| format!("phs_{team}"))
    }

    #[test]
    fn the_share_of_teams_counts_from_three_on() {
        for (teams, removed, percent, is_doubted) in [
            (1_000, 200, 20, false),
            (1_000, 201, 20, true),
            (15, 3, 20, false),
            (14, 3, 20, true),
            (4, 2, 20, false),
            (3, 2, 0, false),
            (4, 3, 0, true),
            (4, 3, 99, false),
            (4, 3, 74, true),
            // All of them, however few, unless everything is believed.
            (1, 1, 20, true),
            (2, 2, 99, true),
            (2, 2, 100, false),
            (1_000, 1_000, 100, false),
        ] {
            let changes = gone(tokens(removed));
            let doubt = Doubt::of(&state(teams, 1), &changes, false, percent);
            assert_eq!(
                doubt.is_some(),
                is_doubted,
                "{removed} of {teams}, {percent} %: {doubt:?}"
            );
        }
        assert_eq!(Doubt::of(&PublishedState::default(), &[], false, 20), None);
    }

    #[test]
    fn other_teams_in_their_place_are_another_database() {
        let mut changes = gone(tokens(1));
        changes.push(token("phc_other", 2));
        let doubt = Doubt::of(&state(1, 1), &changes, false, 20);
        assert_eq!(doubt, Some(Doubt::OtherTeams { published: 1 }));
        // Another token for the same team is none.
        let mut changes = gone(tokens(4));
        changes.extend((1..=4).map(|team| token(&format!("phc_new_{team}"), team)));
        assert_eq!(Doubt::of(&state(4, 1), &changes, false, 20), None);
    }

    #[test]
    fn all_credentials_but_never_a_single_one() {
        for (published, removed, is_doubted) in [
            (1, 1, false),
            (2, 1, false),
            (2, 2, true),
            (50, 49, false),
            (50, 50, true),
        ] {
            let changes = gone(secrets(removed));
            let doubt = Doubt::of(&state(50, published), &changes, false, 20);
            let expected = is_doubted.then_some(Doubt::NoCredential {
                published: u64::from(published),
            });
            assert_eq!(doubt, expected, "{removed} of {published}");
        }
        // Of different kinds they count together; with a new one some are left.
        let mut published = state(5, 1);
        published.put(change(
            "phx_a",
            Some(Record::Personal(PersonalKey::default())),
        ));
        let mut changes = gone(["phs_1".to_owned(), "phx_a".to_owned()]);
        let doubt = Doubt::of(&published, &changes, false, 20);
        assert_eq!(doubt, Some(Doubt::NoCredential { published: 2 }));
        changes.push(change("phs_new", Some(Record::TeamSecret(Tenant(1)))));
        assert_eq!(Doubt::of(&published, &changes, false, 20), None);
    }

    #[test]
    fn a_table_that_is_not_there_any_more() {
        let mut published = state(5, 5);
        let key = Record::ProjectSecret {
            team: Tenant(1),
            reads_flags: true,
        };
        published.put(change("phs_project", Some(key)));
        let changes = gone(["phs_project".to_owned()]);
        let doubt = |lacks, percent| Doubt::of(&published, &changes, lacks, percent);
        assert_eq!(
            doubt(true, 20),
            Some(Doubt::NoProjectKeyTable { published: 1 })
        );
        assert_eq!(doubt(false, 20), None);
        assert_eq!(doubt(true, 100), None);
    }
}
