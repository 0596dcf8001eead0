//! What PostHog's tables look like in this database: which are there, and of what type their keys are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flag_definitions_filter::surfaces::posthog::directory::OrganizationId;
use tokio_postgres::types::Type;

use super::session::{Fault, Session};

const TEAM: &str = "posthog_team";
const PROJECT_KEY: &str = "posthog_projectsecretapikey";
const PERSONAL_KEY: &str = "posthog_personalapikey";
const USER: &str = "posthog_user";
const MEMBERSHIP: &str = "posthog_organizationmembership";

/// The tables that are read, and of each the columns.
const TABLES: [(&str, &[&str]); 5] = [
    (
        TEAM,
        &[
            "id",
            "api_token",
            "secret_api_token",
            "secret_api_token_backup",
            "organization_id",
        ],
    ),
    (PROJECT_KEY, &["id", "team_id", "secure_value", "scopes"]),
    (
        PERSONAL_KEY,
        &[
            "id",
            "secure_value",
            "scopes",
            "scoped_teams",
            "scoped_organizations",
            "user_id",
        ],
    ),
    (USER, &["id", "is_active"]),
    (MEMBERSHIP, &["user_id", "organization_id"]),
];

/// Triggers that `sql/triggers.sql` puts on each table.
const TRIGGERS: [&str; 2] = ["flag_definitions_row", "flag_definitions_truncate"];

const COLUMNS: &str = "SELECT t.name, a.attname::text, a.atttypid::bigint \
     FROM unnest($1::text[]) AS t (name) JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass(t.name) \
     WHERE a.attnum > 0 AND NOT a.attisdropped";

const INSTALLED: &str = "SELECT t.name, g.tgname::text \
     FROM unnest($1::text[]) AS t (name) JOIN pg_catalog.pg_trigger g ON g.tgrelid = to_regclass(t.name) \
     WHERE g.tgname = ANY ($2::text[]) AND g.tgenabled IN ('O', 'A')";

/// In what way the database is not as PostHog makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SchemaProblem {
    /// A table is not there, or not in the search path.
    NoTable(&'static str),
    /// A table lacks a column.
    NoColumn(&'static str, &'static str),
    /// A key is of a type that is not known here.
    KeyType(&'static str, &'static str),
    /// A table lacks a trigger, or it is disabled.
    NoTrigger(String, &'static str),
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(table) => write!(f, "there is no table {table}"),
            Self::NoColumn(table, column) => write!(f, "table {table} has no column {column}"),
            Self::KeyType(table, column) => write!(
                f,
                "{table}.{column} is neither a whole number, a uuid nor a text"
            ),
            Self::NoTrigger(table, trigger) => {
                write!(f, "table {table} has no enabled trigger {trigger}")
            }
        }
    }
}

/// The type of a key, as far as it matters for asking for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `uuid`.
    Uuid,
    /// `varchar` and `text`.
    Text,
}

impl KeyType {
    fn of(oid: i64) -> Option<Self> {
        Some(match Type::from_oid(u32::try_from(oid).ok()?)? {
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::UUID => Self::Uuid,
            Type::VARCHAR | Type::TEXT => Self::Text,
            _ => return None,
        })
    }

    /// What a text is cast to, so that the index on the key is used.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Uuid => "uuid",
            Self::Text => "text",
        }
    }

    /// Whether the text can be cast. Ids come with notifications, which anybody may send.
    pub fn admits(self, id: &str) -> bool {
        match self {
            Self::Int2 => id.parse::<i16>().is_ok(),
            Self::Int4 => id.parse::<i32>().is_ok(),
            Self::Int8 => id.parse::<i64>().is_ok(),
            Self::Uuid => OrganizationId::parse(id).is_some(),
            Self::Text => !id.is_empty() && !id.contains('\0'),
        }
    }
}

/// What was found in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    pub team: KeyType,
    /// `None`: an old database without project secret keys.
    pub project_key: Option<KeyType>,
    pub personal_key: KeyType,
    /// Of the user that a personal key belongs to.
    pub user: KeyType,
}

impl Schema {
    /// Looks at the catalog.
    pub fn read(session: &Session<'_>) -> Result<Self, Fault> {
        let names: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
        let rows = session.query(COLUMNS, &[(&names, Type::TEXT_ARRAY)])?;
        let mut tables: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for row in rows {
            let columns = tables.entry(row.try_get(0)?).or_default();
            columns.insert(row.try_get(1)?, row.try_get(2)?);
        }
        Self::check(&tables).map_err(Fault::Schema)
    }

    fn check(tables: &BTreeMap<String, BTreeMap<String, i64>>) -> Result<Self, SchemaProblem> {
        for (table, columns) in TABLES {
            match tables.get(table) {
                None if table == PROJECT_KEY => (),
                None => return Err(SchemaProblem::NoTable(table)),
                Some(there) => {
                    if let Some(column) = columns.iter().find(|name| !there.contains_key(**name)) {
                        return Err(SchemaProblem::NoColumn(table, column));
                    }
                }
            }
        }
        let key = |table: &'static str, column: &'static str| {
            let oid = tables.get(table).and_then(|columns| columns.get(column));
            oid.and_then(|oid| KeyType::of(*oid))
                .ok_or(SchemaProblem::KeyType(table, column))
        };
        Ok(Self {
            team: key(TEAM, "id")?,
            project_key: match tables.contains_key(PROJECT_KEY) {
                true => Some(key(PROJECT_KEY, "id")?),
                false => None,
            },
            personal_key: key(PERSONAL_KEY, "id")?,
            user: key(PERSONAL_KEY, "user_id")?,
        })
    }

    /// Checks that every table that is there tells of its changes. Otherwise silence would look like "no changes".
    pub fn check_triggers(self, session: &Session<'_>) -> Result<(), Fault> {
        let tables: Vec<&str> = TABLES
            .iter()
            .map(|(table, _)| *table)
            .filter(|table| *table != PROJECT_KEY || self.project_key.is_some())
            .collect();
        let triggers: &[&str] = &TRIGGERS;
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&tables, Type::TEXT_ARRAY), (&triggers, Type::TEXT_ARRAY)];
        let mut installed = BTreeSet::new();
        for row in session.query(INSTALLED, &parameters)? {
            installed.insert((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        }
        for table in tables {
            for trigger in TRIGGERS {
                if !installed.contains(&(table.to_owned(), trigger.to_owned())) {
                    let problem = SchemaProblem::NoTrigger(table.to_owned(), trigger);
                    return Err(Fault::Schema(problem));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_cast_is_asked_for() {
        for (kind, id, admitted) in [
            (KeyType::Int2, "32768", false),
            (KeyType::Int4, "7", true),
            (KeyType::Int4, "-7", true),
            (KeyType::Int4, "2147483648", false),
            (KeyType::Int4, "7; DROP TABLE x", false),
            (KeyType::Int4, "", false),
            (KeyType::Int8, "2147483648", true),
            (KeyType::Uuid, "01890a5d-ac96-774b-bcce-b302099a8057", true),
            (KeyType::Uuid, "01890a5d", false),
            (KeyType::Text, "a'b", true),
            (KeyType::Text, "a\0b", false),
            (KeyType::Text, "", false),
        ] {
            assert_eq!(kind.admits(id), admitted, "{kind:?} {id:?}");
        }
    }
}
