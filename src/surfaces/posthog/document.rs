//! The source document: what a person writes, and `publish --file` and `watch --file` take.
//!
//! It is checked whole before anything is made of it; an error names the record and the field, and never
//! repeats a token.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::hash::Sha256Hash;
use crate::json::{self, Object};
use crate::surfaces::posthog::directory::access::scopes_read_flags;
use crate::surfaces::posthog::directory::{
    OrganizationId, PersonalKey, Record, RecordCounts, Team,
};
use crate::tenant::Tenant;

/// Version of the document.
pub const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    #[serde(default)]
    teams: Vec<Object<SourceTeam>>,
    #[serde(default)]
    project_secret_keys: Vec<Object<SourceProjectSecret>>,
    #[serde(default)]
    personal_keys: Vec<Object<SourcePersonalKey>>,
    #[serde(default)]
    ofrep_keys: Vec<Object<SourceOfrepKey>>,
    /// Tells editors of `filter-config/snapshot.schema.json`.
    #[serde(default, rename = "$schema")]
    _schema: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceTeam {
    id: u32,
    api_token: String,
    #[serde(default)]
    organization_id: Option<String>,
    #[serde(default)]
    secret_token_sha256: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceProjectSecret {
    sha256: String,
    team_id: u32,
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourcePersonalKey {
    sha256: String,
    user_active: bool,
    organization_ids: Vec<String>,
    #[serde(default)]
    scoped_teams: Option<Vec<u32>>,
    #[serde(default)]
    scoped_organizations: Option<Vec<String>>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceOfrepKey {
    sha256: String,
    #[serde(default)]
    selector: Option<String>,
}

/// A refused document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// Record and field: `teams[3].api_token`.
    pub path: String,
    /// What is wrong with it, without repeating its value.
    pub problem: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for DocumentError {}

/// All records of a document, in hash order, and how many of each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// Encoded records.
    pub by_hash: BTreeMap<Sha256Hash, Vec<u8>>,
    /// Number of each kind.
    pub counts: RecordCounts,
    /// Keys of another surface, in the document's order (`ofrep_keys`): the hash, and the selector that a key is bound to as it
    /// is written. No key has the hash of a record.
    pub ofrep_keys: Vec<(Sha256Hash, Option<String>)>,
}

/// Reads and checks a document.
///
/// # Errors
/// The first problem, by record and field.
pub fn parse(text: &[u8]) -> Result<Records, DocumentError> {
    let document: Document = json::read(text, "document").map_err(|(path, error)| {
        // serde's messages quote values of the wrong type, which here may be a token.
        let problem = match error.classify() {
            serde_json::error::Category::Data => data_problem(&error),
            _ => error.to_string(),
        };
        DocumentError {
            path: safe_path(path),
            problem,
        }
    })?;
    if document.format != FORMAT {
        return Err(DocumentError {
            path: "format".to_owned(),
            problem: format!("{} is not supported, use {FORMAT}", document.format),
        });
    }
    Builder::default().build(document)
}

/// Says in what way the data is wrong, leaving out values: somebody may have put a token there.
fn data_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if ["missing field", "duplicate field"]
        .iter()
        .any(|kind| text.starts_with(kind))
    {
        return text;
    }
    let expected = text.rsplit_once("expected ").map_or("", |(_, rest)| rest);
    let expected = expected.split(" at line ").next().unwrap_or_default();
    let problem = if text.starts_with("unknown field") {
        "unknown field"
    } else {
        "wrong type or range"
    };
    let expected = match expected {
        "" => "another type",
        "u32" => "a whole number from 0 to 4294967295",
        other => other,
    };
    format!("{problem}, expected {expected}")
}

/// The path without a last segment that could be a token put where a field name belongs.
fn safe_path(path: String) -> String {
    let (parent, last) = path.rsplit_once('.').unwrap_or(("document", &path));
    let a_name = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '[' | ']' | '0'..='9');
    if last == "$schema" {
        return path;
    }
    if last.chars().all(a_name) && !last.starts_with("ph") && last.len() <= 40 {
        return path;
    }
    parent.to_owned()
}

#[derive(Default)]
struct Builder {
    by_hash: BTreeMap<Sha256Hash, Vec<u8>>,
    defined_by: BTreeMap<Sha256Hash, String>,
    teams: BTreeMap<u32, String>,
    counts: RecordCounts,
    ofrep_keys: Vec<(Sha256Hash, Option<String>)>,
}

impl Builder {
    fn build(mut self, document: Document) -> Result<Records, DocumentError> {
        for (index, Object(team)) in document.teams.iter().enumerate() {
            self.team(&format!("teams[{index}]"), team)?;
        }
        for (index, Object(key)) in document.project_secret_keys.iter().enumerate() {
            self.project_secret(&format!("project_secret_keys[{index}]"), key)?;
        }
        for (index, Object(key)) in document.personal_keys.iter().enumerate() {
            self.personal_key(&format!("personal_keys[{index}]"), key)?;
        }
        for (index, Object(key)) in document.ofrep_keys.into_iter().enumerate() {
            let path = format!("ofrep_keys[{index}]");
            let hash = hash(&path, "sha256", &key.sha256)?;
            self.define(&path, "sha256", hash)?;
            self.ofrep_keys.push((hash, key.selector));
        }
        Ok(Records {
            by_hash: self.by_hash,
            counts: self.counts,
            ofrep_keys: self.ofrep_keys,
        })
    }

    fn team(&mut self, path: &str, team: &SourceTeam) -> Result<(), DocumentError> {
        if team.id == 0 {
            return problem(path, "id", "must be positive");
        }
        if let Some(other) = self.teams.insert(team.id, path.to_owned()) {
            return problem(path, "id", &format!("is also the id of {other}"));
        }
        let token = &team.api_token;
        if token.is_empty() || token.len() > 200 || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return problem(
                path,
                "api_token",
                "must be 1 to 200 visible ASCII characters",
            );
        }
        let organization = match &team.organization_id {
            None => None,
            Some(text) => Some(organization(path, "organization_id", text)?),
        };
        let record = Record::Team(Team {
            id: Tenant(team.id),
            organization,
        });
        self.put(path, "api_token", Sha256Hash::of(token.as_bytes()), &record)?;
        self.counts.teams += 1;
        for (index, secret) in team.secret_token_sha256.iter().enumerate() {
            let field = format!("secret_token_sha256[{index}]");
            let hash = hash(path, &field, secret)?;
            self.put(path, &field, hash, &Record::TeamSecret(Tenant(team.id)))?;
            self.counts.team_secrets += 1;
        }
        Ok(())
    }

    fn project_secret(
        &mut self,
        path: &str,
        key: &SourceProjectSecret,
    ) -> Result<(), DocumentError> {
        if !self.teams.contains_key(&key.team_id) {
            return problem(path, "team_id", "is not the id of a team in this document");
        }
        let record = Record::ProjectSecret {
            team: Tenant(key.team_id),
            reads_flags: scopes_read_flags(key.scopes.as_deref()),
        };
        let hash = hash(path, "sha256", &key.sha256)?;
        self.put(path, "sha256", hash, &record)?;
        self.counts.project_secret_keys += 1;
        Ok(())
    }

    fn personal_key(&mut self, path: &str, key: &SourcePersonalKey) -> Result<(), DocumentError> {
        let organizations = |field: &str, texts: &[String]| {
            texts
                .iter()
                .enumerate()
                .map(|(index, text)| organization(path, &format!("{field}[{index}]"), text))
                .collect::<Result<Vec<_>, _>>()
        };
        let scoped_teams = key.scoped_teams.iter().flatten().copied();
        let scoped_organizations = key.scoped_organizations.as_deref().unwrap_or_default();
        let record = Record::Personal(PersonalKey {
            user_active: key.user_active,
            reads_flags: scopes_read_flags(key.scopes.as_deref()),
            scoped_teams: scoped_teams.map(Tenant).collect(),
            scoped_organizations: organizations("scoped_organizations", scoped_organizations)?,
            organizations: organizations("organization_ids", &key.organization_ids)?,
        });
        let hash = hash(path, "sha256", &key.sha256)?;
        self.put(path, "sha256", hash, &record)?;
        self.counts.personal_keys += 1;
        Ok(())
    }

    fn put(
        &mut self,
        path: &str,
        field: &str,
        hash: Sha256Hash,
        record: &Record,
    ) -> Result<(), DocumentError> {
        let Some(bytes) = record.encode() else {
            return problem(path, field, "has too many teams or organizations (64 KiB)");
        };
        // A backup may equal the secret that it backs up.
        if self.by_hash.get(&hash) == Some(&bytes) {
            return Ok(());
        }
        self.define(path, field, hash)?;
        self.by_hash.insert(hash, bytes);
        Ok(())
    }

    fn define(&mut self, path: &str, field: &str, hash: Sha256Hash) -> Result<(), DocumentError> {
        match self.defined_by.insert(hash, format!("{path}.{field}")) {
            Some(other) => problem(path, field, &format!("is the same secret as {other}")),
            None => Ok(()),
        }
    }
}

fn hash(path: &str, field: &str, text: &str) -> Result<Sha256Hash, DocumentError> {
    match Sha256Hash::from_hex(text) {
        Some(hash) => Ok(hash),
        None => problem(
            path,
            field,
            "must be 64 hexadecimal digits (the SHA-256 of the secret, not the secret)",
        ),
    }
}

fn organization(path: &str, field: &str, text: &str) -> Result<OrganizationId, DocumentError> {
    match OrganizationId::parse(text) {
        Some(id) => Ok(id),
        None => problem(path, field, "must be a UUID"),
    }
}

fn problem<T>(path: &str, field: &str, problem: &str) -> Result<T, DocumentError> {
    Err(DocumentError {
        path: format!("{path}.{field}"),
        problem: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests;
