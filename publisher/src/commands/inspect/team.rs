//! A team, from all records that tell of it.

use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::access::{self, Verdict};
use flag_definitions_filter::surfaces::posthog::directory::{Record, Team, etag_hash};
use flag_definitions_filter::surfaces::posthog::request::{Bearer, BearerKind};
use flag_definitions_filter::tenant::Tenant;
use serde::Serialize;

use super::StateView;
use crate::commands::describe::{organization, short};
use crate::redis::published::PublishedSnapshot;

/// What is known of a team.
#[derive(Debug, Serialize)]
pub struct TeamView {
    team: u32,
    /// Hash prefixes of its project tokens; none: no filter knows the team.
    tokens: Vec<Credential>,
    organization: Option<String>,
    secrets: Vec<Credential>,
    project_secret_keys: Vec<Credential>,
    /// Personal keys that may read its definitions.
    personal_keys: u64,
    etag: Option<Etag>,
    published: StateView,
}

/// One token or credential.
#[derive(Debug, Serialize)]
struct Credential {
    sha256: String,
    stream_id: String,
    /// Whether it may read the definitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    reads_flags: Option<bool>,
    #[serde(skip)]
    since: String,
}

/// The published ETag.
#[derive(Debug, Serialize)]
struct Etag {
    value: String,
    stream_id: String,
    #[serde(skip)]
    since: String,
}

impl TeamView {
    /// Looks through everything that is published.
    pub fn of(id: u32, published: &PublishedSnapshot, state: StateView) -> Self {
        let id = Tenant(id);
        let mut view = Self {
            team: id.0,
            tokens: Vec::new(),
            organization: None,
            secrets: Vec::new(),
            project_secret_keys: Vec::new(),
            personal_keys: 0,
            etag: None,
            published: state,
        };
        let mut found = None;
        for hash in published.records.keys() {
            let Some((record, as_of)) = published.find(hash) else {
                continue;
            };
            let credential = |reads_flags| Credential {
                sha256: short(hash),
                stream_id: as_of.to_string(),
                reads_flags,
                since: view.published.ago(as_of),
            };
            match record {
                Record::Team(team) if team.id == id => {
                    view.tokens.push(credential(None));
                    found = Some(team);
                }
                Record::TeamSecret(owner) if owner == id => view.secrets.push(credential(None)),
                Record::ProjectSecret { team, reads_flags } if team == id => {
                    view.project_secret_keys.push(credential(Some(reads_flags)));
                }
                _ => {}
            }
        }
        if let Some(team) = found {
            view.organization = team.organization.as_ref().map(organization);
            view.personal_keys = readers(&team, published);
        }
        if let Some((Record::ETag(etag), as_of)) = published.find(&etag_hash(id)) {
            view.etag = Some(Etag {
                value: String::from_utf8_lossy(etag.as_bytes()).into_owned(),
                stream_id: as_of.to_string(),
                since: view.published.ago(as_of),
            });
        }
        view
    }

    /// Whether filters know the team.
    pub fn is_found(&self) -> bool {
        !self.tokens.is_empty()
    }
}

/// How many personal keys may read the team's definitions.
fn readers(team: &Team, published: &PublishedSnapshot) -> u64 {
    let may_read = |hash: &Sha256Hash, record: &Record| {
        let bearer = Bearer {
            kind: BearerKind::Personal,
            hash: *hash,
            plausible: true,
        };
        matches!(
            access::judge(Some(team), &bearer, Some(record)),
            Verdict::Accepted(..)
        )
    };
    let records = published.records.iter();
    let readers = records.filter(|(hash, record)| {
        Record::decode(record).is_ok_and(|record| may_read(hash, &record))
    });
    readers.count() as u64
}

impl fmt::Display for TeamView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let organization = self.organization.as_deref().unwrap_or("none");
        if self.tokens.is_empty() {
            writeln!(f, "team {} is not published", self.team)?;
        } else {
            writeln!(f, "team {}, organization {organization}", self.team)?;
        }
        for token in &self.tokens {
            writeln!(f, "  project token       {token}")?;
        }
        for secret in &self.secrets {
            writeln!(f, "  team secret         {secret}")?;
        }
        for key in &self.project_secret_keys {
            writeln!(f, "  project secret key  {key}")?;
        }
        writeln!(f, "  personal keys that may read: {}", self.personal_keys)?;
        match &self.etag {
            Some(etag) => writeln!(f, "  ETag {}, as of {}", etag.value, etag.since)?,
            None => writeln!(f, "  no ETag is published: filters ask Redis for it")?,
        }
        write!(f, "{}", self.published)
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, as of {}", self.sha256, self.since)?;
        match self.reads_flags {
            Some(false) => f.write_str(", scopes do not read flags"),
            _ => Ok(()),
        }
    }
}
