//! What the triggers say. Anybody with access to the database can say it too: a notice is only a hint to read
//! something again, and one that is not as the triggers write it is ignored.

use std::collections::BTreeSet;

use flag_definitions_filter::hash::Sha256Hash;
use serde::Deserialize;

use super::schema::Schema;

/// Most rows that are read again one by one; beyond, a full read is cheaper.
const MAX_SUBJECTS: usize = 1_000;

/// Most hashes that are looked for. A row holds at most three, but a notice could name more.
const MAX_HELD: usize = 3 * MAX_SUBJECTS;

/// Longest key of a row, in bytes.
const MAX_ID: usize = 200;

#[derive(Deserialize)]
struct Payload<'a> {
    read: &'a str,
    #[serde(default)]
    id: String,
    #[serde(default)]
    held: Vec<&'a str>,
}

/// What to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Team,
    ProjectKey,
    PersonalKey,
    /// All personal keys of a user.
    User,
}

/// Notices that came together, collapsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Burst {
    /// Kinds and keys of rows to read again.
    pub subjects: BTreeSet<(Subject, String)>,
    /// What these rows held before.
    pub held: BTreeSet<Sha256Hash>,
    /// Whether only a full read tells what changed.
    pub overflow: bool,
    /// Notices that were not the triggers'.
    pub ignored: u64,
    /// Whether all that had come was taken.
    pub drained: bool,
}

impl Burst {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty() && !self.overflow
    }

    /// Takes one notice in.
    pub fn add(&mut self, payload: &str, schema: Schema) {
        if self.try_add(payload, schema).is_none() {
            self.ignored += 1;
        }
    }

    fn try_add(&mut self, payload: &str, schema: Schema) -> Option<()> {
        let payload: Payload<'_> = serde_json::from_str(payload).ok()?;
        let (subject, key) = match payload.read {
            "team" => (Subject::Team, schema.team),
            "project_secret_key" => (Subject::ProjectKey, schema.project_key?),
            "personal_key" => (Subject::PersonalKey, schema.personal_key),
            "user" => (Subject::User, schema.user),
            "all" => {
                self.overflow = true;
                return Some(());
            }
            // Another publisher's, or a late one of ours.
            ECHO => return Some(()),
            _ => return None,
        };
        if payload.id.len() > MAX_ID || !key.admits(&payload.id) {
            return None;
        }
        let held: Option<Vec<Sha256Hash>> = payload
            .held
            .iter()
            .map(|hex| Sha256Hash::from_hex(hex))
            .collect();
        let held = held?;
        if self.overflow {
            return Some(());
        }
        self.held.extend(held);
        self.subjects.insert((subject, payload.id));
        self.overflow = self.subjects.len() > MAX_SUBJECTS || self.held.len() > MAX_HELD;
        Some(())
    }

    /// Keys of one kind.
    pub fn ids(&self, kind: Subject) -> Vec<&str> {
        let of_kind = self.subjects.iter().filter(|(subject, _)| *subject == kind);
        of_kind.map(|(_, id)| id.as_str()).collect()
    }
}

/// The kind of notice with which a publisher finds out whether it hears.
const ECHO: &str = "echo";

/// A notice that only asks whether notices arrive.
pub(super) fn echo(nonce: &str) -> String {
    serde_json::json!({"read": ECHO, "id": nonce}).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::schema::KeyType;
    use super::*;

    const SCHEMA: Schema = Schema {
        team: KeyType::Int4,
        project_key: None,
        personal_key: KeyType::Text,
        user: KeyType::Int4,
    };

    fn burst<S: AsRef<str>>(payloads: impl IntoIterator<Item = S>) -> Burst {
        let mut burst = Burst::default();
        for payload in payloads {
            burst.add(payload.as_ref(), SCHEMA);
        }
        burst
    }

    #[test]
    fn notices_collapse() {
        let hex = Sha256Hash::of(b"x").to_hex();
        let team = format!(r#"{{"read":"team","id":"7","held":["{hex}"]}}"#);
        let burst = burst([
            team.as_str(),
            r#"{"read" : "user", "id" : "3"}"#,
            &team,
            &echo("1"),
        ]);
        assert_eq!(burst.ids(Subject::Team), ["7"]);
        assert_eq!(burst.ids(Subject::User), ["3"]);
        assert_eq!(burst.held.len(), 1);
        assert_eq!((burst.overflow, burst.ignored), (false, 0));
    }

    #[test]
    fn what_the_triggers_do_not_send_is_ignored() {
        let deep = format!(r#"{{"read":"team","id":{}"#, "[".repeat(7_000));
        let long = format!(r#"{{"read":"personal_key","id":"{}"}}"#, "x".repeat(7_000));
        let payloads = [
            "",
            "{",
            "null",
            "[]",
            "7",
            &deep,
            &long,
            r#"{"read":"nothing","id":"7"}"#,
            r#"{"read":"team"}"#,
            r#"{"read":"team","id":7}"#,
            r#"{"read":"team","id":"7; DROP TABLE posthog_team"}"#,
            r#"{"read":"team","id":"99999999999"}"#,
            r#"{"read":"team","id":"7","held":["phs_clear"]}"#,
            r#"{"read":"team","id":"7","held":[null]}"#,
            r#"{"read":"team","id":"7","held":"x"}"#,
            r#"{"read":"personal_key","id":"a\u0000b"}"#,
            r#"{"read":"project_secret_key","id":"a"}"#,
            "\u{1F4A9}\u{FFFD}",
        ];
        let burst = burst(payloads);
        assert!(burst.is_empty() && burst.held.is_empty(), "{burst:?}");
        assert_eq!(burst.ignored, payloads.len() as u64);
    }

    #[test]
    fn too_many_are_an_overflow_and_stay_bounded() {
        let users = (0..5_000).map(|id| format!(r#"{{"read":"user","id":"{id}"}}"#));
        let many = burst(users);
        assert!(many.overflow);
        assert_eq!(many.subjects.len(), MAX_SUBJECTS + 1);
        assert!(burst([r#"{"read":"all"}"#]).overflow);
    }
}
