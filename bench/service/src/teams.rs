//! Who may read what: teams by token and by the SHA-256 of their secrets.

use std::collections::HashMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// PostHog's id of a team.
pub type TeamId = u32;

/// What is used of a source document.
#[derive(Deserialize)]
pub struct Document {
    teams: Vec<SourceTeam>,
}

#[derive(Deserialize)]
struct SourceTeam {
    id: TeamId,
    api_token: String,
    secret_token_sha256: Vec<String>,
}

/// All teams.
pub struct Teams {
    by_token: HashMap<String, TeamId>,
    by_secret: HashMap<[u8; 32], TeamId>,
}

impl From<Document> for Teams {
    fn from(document: Document) -> Self {
        let mut all = Self {
            by_token: HashMap::new(),
            by_secret: HashMap::new(),
        };
        for team in document.teams {
            for text in team.secret_token_sha256 {
                let mut hash = [0; 32];
                if hex::decode_to_slice(text, &mut hash).is_ok() {
                    all.by_secret.insert(hash, team.id);
                }
            }
            all.by_token.insert(team.api_token, team.id);
        }
        all
    }
}

impl Teams {
    /// The team with this token.
    pub fn with_token(&self, token: &str) -> Option<TeamId> {
        self.by_token.get(token).copied()
    }

    /// The team whose secret this is.
    pub fn with_secret(&self, secret: &str) -> Option<TeamId> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        self.by_secret.get(&hash).copied()
    }
}
