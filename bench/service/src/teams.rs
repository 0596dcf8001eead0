//! Who may read what: as PostHog's service asks Redis, or from a document held in memory.

use std::collections::HashMap;

use redis::aio::ConnectionManager;
use redis::{AsyncCommands, RedisError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::cache;

/// PostHog's id of a team.
pub type Tenant = u32;

/// Where teams and credentials are looked up.
pub enum Teams {
    /// In PostHog's cache: team metadata and checked credentials, both in one round trip.
    Cached(ConnectionManager),
    /// Nowhere: all of them are known.
    Known(Known),
}

impl Teams {
    /// The team with this token, when this is its secret.
    ///
    /// # Errors
    /// When Redis fails.
    pub async fn admitted(&self, token: &str, secret: &str) -> Result<Option<Tenant>, RedisError> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        match self {
            Self::Cached(redis) => cached(redis, token, &hash).await,
            Self::Known(known) => Ok(known.admitted(token, &hash)),
        }
    }
}

/// What is used of a cached team.
#[derive(Deserialize)]
struct Metadata {
    id: Tenant,
}

/// What is used of a cached credential. Those of teams are all that the benchmark sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Credential {
    Secret { team_id: Tenant },
}

async fn cached(
    redis: &ConnectionManager,
    token: &str,
    hash: &[u8; 32],
) -> Result<Option<Tenant>, RedisError> {
    let keys = [
        format!("posthog:1:cache/team_tokens/{token}/team_metadata/full_metadata.json"),
        format!("posthog:auth_token:sha256${}", hex::encode(hash)),
    ];
    let (team, credential): (Option<Vec<u8>>, Option<Vec<u8>>) = redis.clone().mget(&keys).await?;
    let team: Option<Metadata> = team.and_then(parsed);
    let credential: Option<Credential> = credential.and_then(parsed);
    let (Some(team), Some(Credential::Secret { team_id })) = (team, credential) else {
        return Ok(None);
    };
    Ok((team.id == team_id).then_some(team_id))
}

fn parsed<T: DeserializeOwned>(stored: Vec<u8>) -> Option<T> {
    serde_json::from_str(&cache::decoded(stored)?).ok()
}

/// What is used of a source document.
#[derive(Deserialize)]
pub struct Document {
    teams: Vec<SourceTeam>,
}

#[derive(Deserialize)]
struct SourceTeam {
    id: Tenant,
    api_token: String,
    secret_token_sha256: Vec<String>,
}

/// All teams of a document.
pub struct Known {
    by_token: HashMap<String, Tenant>,
    by_secret: HashMap<[u8; 32], Tenant>,
}

impl From<Document> for Known {
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

impl Known {
    fn admitted(&self, token: &str, secret: &[u8; 32]) -> Option<Tenant> {
        let team = self.by_token.get(token).copied()?;
        (self.by_secret.get(secret) == Some(&team)).then_some(team)
    }
}
