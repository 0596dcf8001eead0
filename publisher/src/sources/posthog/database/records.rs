//! Rows of PostHog's tables become records.
//!
//! A row that is no record is skipped and counted, never an error: one odd row must not stop everybody's snapshot.

use std::collections::btree_map::Entry;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::access::scopes_read_flags;
use flag_definitions_filter::surfaces::posthog::directory::{
    OrganizationId, PersonalKey, Record, RecordCounts, Team,
};
use flag_definitions_filter::tenant::Tenant;
use tokio_postgres::Row;

use super::tables::Table;
use crate::redis::published::RecordMap;
use crate::sources::left_out::{LeftOut, Skipped};

/// Records gathered from rows.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub records: RecordMap,
    pub counts: RecordCounts,
    pub skipped: Skipped,
    pub left_out: LeftOut,
    pub team_ids: Vec<Tenant>,
}

/// Why a row is no record.
enum Unfit {
    Pbkdf2,
    Malformed,
}

impl From<tokio_postgres::Error> for Unfit {
    /// A column of an unexpected shape, such as an array of arrays.
    fn from(_: tokio_postgres::Error) -> Self {
        Self::Malformed
    }
}

impl Gathered {
    /// Adds what a row stands for.
    pub fn add(&mut self, table: Table, row: &Row) {
        let before = self.skipped;
        let added = match table {
            Table::Team => self.add_team(row),
            Table::ProjectKey => self.add_project_key(row),
            Table::PersonalKey => self.add_personal_key(row),
        };
        match added {
            Ok(()) => (),
            Err(Unfit::Pbkdf2) => self.skipped.pbkdf2 += 1,
            Err(Unfit::Malformed) => self.skipped.malformed += 1,
        }
        if self.skipped != before {
            let id = row.try_get(0).unwrap_or_default();
            self.left_out.note(table.name(), id, self.skipped);
        }
    }

    fn add_team(&mut self, row: &Row) -> Result<(), Unfit> {
        let id = team_id(row.try_get(0)?)?;
        let token = token(row, 1)?.ok_or(Unfit::Malformed)?;
        let secrets = [token_hash(row, 2)?, token_hash(row, 3)?];
        let organization = match row.try_get::<_, Option<&str>>(4)? {
            None => None,
            Some(text) => Some(OrganizationId::parse(text).ok_or(Unfit::Malformed)?),
        };
        let team = Record::Team(Team { id, organization });
        self.team_ids.push(id);
        self.counts.teams += self.put(Sha256Hash::of(token.as_bytes()), &team);
        for secret in secrets.into_iter().flatten() {
            self.counts.team_secrets += self.put(secret, &Record::TeamSecret(id));
        }
        Ok(())
    }

    fn add_project_key(&mut self, row: &Row) -> Result<(), Unfit> {
        let hash = stored_hash(row.try_get(1)?)?;
        let record = Record::ProjectSecret {
            team: team_id(row.try_get(2)?)?,
            reads_flags: reads_flags(row, 3)?,
        };
        self.counts.project_secret_keys += self.put(hash, &record);
        Ok(())
    }

    fn add_personal_key(&mut self, row: &Row) -> Result<(), Unfit> {
        let hash = stored_hash(row.try_get(1)?)?;
        let team = |text: &str| team_id(Some(text)).ok();
        let record = Record::Personal(PersonalKey {
            user_active: row.try_get(5)?,
            reads_flags: reads_flags(row, 2)?,
            scoped_teams: restriction(row, 3, team)?,
            scoped_organizations: restriction(row, 4, OrganizationId::parse)?,
            organizations: list(row, 6)?
                .iter()
                .flatten()
                .filter_map(|text| OrganizationId::parse(text))
                .collect(),
        });
        self.counts.personal_keys += self.put(hash, &record);
        Ok(())
    }

    /// Returns how many records that added.
    fn put(&mut self, hash: Sha256Hash, record: &Record) -> u64 {
        let Some(bytes) = record.encode() else {
            self.skipped.oversized += 1;
            return 0;
        };
        match self.records.entry(hash) {
            Entry::Vacant(place) => {
                place.insert(bytes.into_boxed_slice());
                return 1;
            }
            // A backup may equal the secret that it backs up.
            Entry::Occupied(there) if **there.get() == *bytes => (),
            Entry::Occupied(_) => self.skipped.conflicting += 1,
        }
        0
    }
}

/// A team's token, unless it has none.
fn token(row: &Row, column: usize) -> Result<Option<&str>, Unfit> {
    let token: Option<&str> = row.try_get(column)?;
    Ok(token.filter(|token| !token.is_empty()))
}

fn token_hash(row: &Row, column: usize) -> Result<Option<Sha256Hash>, Unfit> {
    Ok(token(row, column)?.map(|token| Sha256Hash::of(token.as_bytes())))
}

/// The hash that a `secure_value` holds. PostHog looks for exactly this text, so no other notation is a hash.
fn stored_hash(text: Option<&str>) -> Result<Sha256Hash, Unfit> {
    let text = text.ok_or(Unfit::Malformed)?;
    if text.starts_with("pbkdf2_sha256$") {
        return Err(Unfit::Pbkdf2);
    }
    let hash = Sha256Hash::from_hex(text).filter(|hash| secure_value(*hash) == text);
    hash.ok_or(Unfit::Malformed)
}

/// How PostHog stores a hash.
pub(super) fn secure_value(hash: Sha256Hash) -> String {
    format!("sha256${}", hash.to_hex())
}

fn team_id(text: Option<&str>) -> Result<Tenant, Unfit> {
    let id = text.and_then(|text| text.parse().ok()).filter(|id| *id > 0);
    id.map(Tenant).ok_or(Unfit::Malformed)
}

type Texts<'a> = Vec<Option<&'a str>>;

/// An array; an absent one is empty.
fn list(row: &Row, column: usize) -> Result<Texts<'_>, Unfit> {
    Ok(row
        .try_get::<_, Option<Texts<'_>>>(column)?
        .unwrap_or_default())
}

fn reads_flags(row: &Row, column: usize) -> Result<bool, Unfit> {
    let scopes: Option<Texts<'_>> = row.try_get(column)?;
    let scopes: Option<Vec<&str>> = scopes.map(|scopes| scopes.into_iter().flatten().collect());
    Ok(scopes_read_flags(scopes.as_deref()))
}

/// What a key is restricted to. What no team or organization can be called restricts to nothing, and must not
/// make the list empty: that would lift the restriction.
fn restriction<T>(
    row: &Row,
    column: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Unfit> {
    let texts = list(row, column)?;
    let items: Vec<T> = texts
        .iter()
        .flatten()
        .filter_map(|text| parse(text))
        .collect();
    if items.is_empty() && !texts.is_empty() {
        return Err(Unfit::Malformed);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_posthogs_notation_is_a_hash() {
        let hash = Sha256Hash::of(b"phx_a");
        let hex = hash.to_hex();
        assert!(matches!(stored_hash(Some(&format!("sha256${hex}"))), Ok(found) if found == hash));
        let old = "pbkdf2_sha256$260000$posthog_personal_api_key$abc=";
        assert!(matches!(stored_hash(Some(old)), Err(Unfit::Pbkdf2)));
        for text in [
            None,
            Some(""),
            Some("sha256$"),
            Some(hex.as_str()),
            Some(&format!("sha256${}", hex.to_uppercase())),
            Some(&format!("sha256${hex}0")),
        ] {
            assert!(
                matches!(stored_hash(text), Err(Unfit::Malformed)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_first_of_two_records_counts() {
        let mut gathered = Gathered::default();
        let hash = Sha256Hash::of(b"x");
        let (first, second) = (Record::TeamSecret(Tenant(1)), Record::TeamSecret(Tenant(2)));
        assert_eq!(gathered.put(hash, &first), 1);
        assert_eq!(gathered.put(hash, &first), 0);
        assert_eq!(gathered.put(hash, &second), 0);
        assert_eq!(gathered.skipped.conflicting, 1);
        assert_eq!(Record::decode(&gathered.records[&hash]), Ok(first));
    }
}
