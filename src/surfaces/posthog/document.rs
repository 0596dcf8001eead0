//! The source document: what a person writes and `publish --file` takes.
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
        Ok(Records {
            by_hash: self.by_hash,
            counts: self.counts,
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
        let here = format!("{path}.{field}");
        if let Some(other) = self.defined_by.insert(hash, here) {
            return problem(path, field, &format!("is the same secret as {other}"));
        }
        self.by_hash.insert(hash, bytes);
        Ok(())
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
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn error(json: &str) -> String {
        parse(json.as_bytes()).unwrap_err().to_string()
    }

    fn with_team(fields: &str) -> String {
        format!(r#"{{"format":1,"teams":[{{"id":1,"api_token":"phc_a"{fields}}}]}}"#)
    }

    #[test]
    fn a_document_becomes_records() {
        let secret = Sha256Hash::of(b"phs_a").to_hex();
        let personal = Sha256Hash::of(b"phx_a").to_hex();
        let json = format!(
            r#"{{"format":1,
                "teams":[{{"id":1,"api_token":"phc_a","organization_id":null,
                    "secret_token_sha256":["sha256${secret}"]}}],
                "personal_keys":[{{"sha256":"{personal}","user_active":true,"organization_ids":[],
                    "scoped_teams":null,"scoped_organizations":null,"scopes":[]}}]}}"#
        );
        let records = parse(json.as_bytes()).unwrap();
        assert_eq!(records.by_hash.len(), 3);
        let record = |token: &str| {
            Record::decode(&records.by_hash[&Sha256Hash::of(token.as_bytes())]).unwrap()
        };
        assert_eq!(record("phs_a"), Record::TeamSecret(Tenant(1)));
        assert!(matches!(record("phx_a"), Record::Personal(key) if !key.reads_flags));
        assert_eq!(records.counts.teams, 1);
        assert_eq!(records.counts.team_secrets, 1);
        assert_eq!(records.counts.personal_keys, 1);
    }

    #[test]
    fn an_error_names_the_record_and_the_field() {
        let good = "0".repeat(64);
        let keys = |fields: &str| format!(r#"{{"format":1,"project_secret_keys":[{{{fields}}}]}}"#);
        for (json, expected) in [
            ("", "document: EOF"),
            ("{}", "document: missing field `format`"),
            (r#"{"format":2}"#, "format: 2 is not supported, use 1"),
            (
                r#"{"format":1,"$schema":1}"#,
                "$schema: wrong type or range, expected a string",
            ),
            (
                r#"{"format":1,"team":[]}"#,
                "team: unknown field, expected one of `format`, `teams`",
            ),
            (
                r#"{"format":1,"teams":[{"id":1}]}"#,
                "teams[0]: missing field `api_token`",
            ),
            (
                r#"{"format":1,"teams":[[1,"a"]]}"#,
                "teams[0]: wrong type or range, expected a JSON object",
            ),
            (
                r#"{"format":1,"project_secret_keys":[["a",1]]}"#,
                "project_secret_keys[0]: wrong type or range, expected a JSON object",
            ),
            (
                r#"{"format":1,"teams":[{"id":0,"api_token":"a"}]}"#,
                "teams[0].id: must be positive",
            ),
            (
                r#"{"format":1,"teams":[{"id":1,"api_token":"a b"}]}"#,
                "teams[0].api_token: must be 1 to 200 visible",
            ),
            (
                r#"{"format":1,"teams":[{"id":1,"api_token":"a"},{"id":1,"api_token":"b"}]}"#,
                "teams[1].id: is also the id of teams[0]",
            ),
            (
                r#"{"format":1,"teams":[{"id":1,"api_token":"a"},{"id":2,"api_token":"a"}]}"#,
                "teams[1].api_token: is the same secret as teams[0].api_token",
            ),
            (
                &with_team(r#","organization_id":"x""#),
                "teams[0].organization_id: must be a UUID",
            ),
            (
                &with_team(r#","secret_token_sha256":["phs_clear"]"#),
                "teams[0].secret_token_sha256[0]: must be 64 hexadecimal digits",
            ),
            (
                &keys(&format!(r#""sha256":"{good}","team_id":9"#)),
                "project_secret_keys[0].team_id: is not the id of a team",
            ),
        ] {
            let message = error(json);
            assert!(message.starts_with(expected), "{json}: {message}");
        }
    }

    #[test]
    fn a_backup_may_equal_its_secret() {
        let hash = Sha256Hash::of(b"phs_a").to_hex();
        let field = format!(r#","secret_token_sha256":["{hash}","{hash}"]"#);
        assert_eq!(
            parse(with_team(&field).as_bytes()).unwrap().by_hash.len(),
            2
        );
    }

    #[test]
    fn an_error_never_repeats_a_value() {
        for json in [
            r#"{"format":1,"teams":[{"id":"phs_secret","api_token":"phs_secret"}]}"#,
            r#"{"format":1,"teams":["phs_secret"]}"#,
            r#"{"format":1,"teams":"phs_secret"}"#,
            &with_team(r#","secret_token_sha256":["phs_secret"]"#),
            &with_team(r#","secret_token_sha256":"phs_secret""#),
            r#"{"format":"phs_secret"}"#,
            r#"{"format":1,"phs_secret":1}"#,
            r#"{"format":1,"teams":[{"id":1,"api_token":"a","phs_secret":1}]}"#,
        ] {
            assert!(
                !error(json).contains("phs_secret"),
                "{json}: {}",
                error(json)
            );
        }
    }
}
