//! How rows of PostHog's tables are asked for. Everything comes as text: the types of columns differ between
//! installations.

/// A kind of row that becomes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// Teams: project token, secret token, backup.
    Team,
    /// Project secret keys.
    ProjectKey,
    /// Personal API keys, with what decides of their users.
    PersonalKey,
}

impl Table {
    /// Its name in PostHog's database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Team => "posthog_team",
            Self::ProjectKey => "posthog_projectsecretapikey",
            Self::PersonalKey => "posthog_personalapikey",
        }
    }

    /// Columns and tables. `records` reads the columns by their place; the first is the key.
    const fn select(self) -> &'static str {
        match self {
            Self::Team => {
                "SELECT k.id::text, k.api_token::text, k.secret_api_token::text, \
                 k.secret_api_token_backup::text, k.organization_id::text FROM posthog_team k"
            }
            Self::ProjectKey => {
                "SELECT k.id::text, k.secure_value::text, k.team_id::text, k.scopes::text[] \
                 FROM posthog_projectsecretapikey k"
            }
            Self::PersonalKey => {
                "SELECT k.id::text, k.secure_value::text, k.scopes::text[], k.scoped_teams::text[], \
                 k.scoped_organizations::text[], COALESCE(u.is_active, FALSE), \
                 ARRAY(SELECT m.organization_id::text FROM posthog_organizationmembership m \
                 WHERE m.user_id = k.user_id ORDER BY 1) \
                 FROM posthog_personalapikey k LEFT JOIN posthog_user u ON u.id = k.user_id"
            }
        }
    }

    /// Rows that fulfil a condition on `k`, in the order in which a full read finds them.
    pub fn rows_where(self, condition: &str) -> String {
        format!("{} WHERE {condition} ORDER BY k.id", self.select())
    }

    /// The first page of all rows.
    pub fn first_page(self, rows: usize) -> String {
        format!("{} ORDER BY k.id LIMIT {rows}", self.select())
    }

    /// The page after the row with the key `$1`, which is cast to `key`.
    pub fn next_page(self, key: &str, rows: usize) -> String {
        let condition = format!("k.id > $1::text::{key}");
        format!("{} LIMIT {rows}", self.rows_where(&condition))
    }
}
