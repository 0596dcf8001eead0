//! How many records of each kind there are, by PostHog's words.

use serde::Serialize;

use crate::snapshot::counts::{KindCounts, VERSIONS};

const TEAMS: &str = "teams";
const TEAM_SECRETS: &str = "team_secrets";
const PROJECT_SECRET_KEYS: &str = "project_secret_keys";
const PERSONAL_KEYS: &str = "personal_keys";

/// Number of records by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordCounts {
    /// Teams (public project tokens).
    pub teams: u64,
    /// Team secret tokens and their backups.
    pub team_secrets: u64,
    /// Project secret keys.
    pub project_secret_keys: u64,
    /// Personal API keys.
    pub personal_keys: u64,
    /// ETags of teams.
    pub etags: u64,
}

impl RecordCounts {
    /// Those that a manifest tells.
    pub fn of(counts: &KindCounts) -> Self {
        Self {
            teams: counts.of(TEAMS),
            team_secrets: counts.of(TEAM_SECRETS),
            project_secret_keys: counts.of(PROJECT_SECRET_KEYS),
            personal_keys: counts.of(PERSONAL_KEYS),
            etags: counts.of(VERSIONS),
        }
    }
}

impl From<RecordCounts> for KindCounts {
    /// As a manifest tells them.
    fn from(counts: RecordCounts) -> Self {
        Self::new([
            (TEAMS, counts.teams),
            (TEAM_SECRETS, counts.team_secrets),
            (PROJECT_SECRET_KEYS, counts.project_secret_keys),
            (PERSONAL_KEYS, counts.personal_keys),
            (VERSIONS, counts.etags),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_manifest_and_the_health_listener_tell_them_alike() {
        let counts = RecordCounts {
            teams: 1,
            team_secrets: 2,
            project_secret_keys: 3,
            personal_keys: 4,
            etags: 5,
        };
        let in_manifest = KindCounts::from(counts);
        assert_eq!(RecordCounts::of(&in_manifest), counts);
        let json =
            r#"{"teams":1,"team_secrets":2,"project_secret_keys":3,"personal_keys":4,"etags":5}"#;
        assert_eq!(serde_json::to_string(&in_manifest).unwrap(), json);
        assert_eq!(serde_json::to_string(&counts).unwrap(), json);
        assert_eq!(in_manifest.hashes(), 10);
    }
}
