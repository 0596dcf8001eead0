//! Read-through: what the snapshot does not know is looked up in PostHog's own cache of team metadata and
//! checked credentials.
//!
//! [`Lookup`] is one callout for a request's token and credential, [`read`] says what the reply taught,
//! [`table`] keeps that in shared data for a short time, and [`Misses`] remembers in the worker what a
//! look-up brought nothing for.
//!
//! The snapshot comes first: what it knows, a tombstone included, is never looked up here. And PostHog's
//! cache has no negative entries, so what is not found is *not known here*, which is no reason to refuse.
//! The same holds for what is found and cannot be read.

mod credential;
mod lookup;
mod lookups;
mod metadata;
mod misses;
pub mod settings;
pub mod table;

pub use lookup::{Asked, Lookup};
pub use lookups::Lookups;
pub use misses::{Miss, Misses, Why};

use crate::hash::Sha256Hash;
use crate::redis::{Failure, Reply};
use crate::surfaces::posthog::directory::Record;
use crate::time::Monotonic;
use serde::de::DeserializeOwned;

/// Longest team metadata that is read, in bytes, as stored and as text.
const MAX_METADATA: usize = 1 << 20;

/// Longest credential entry that is read, in bytes, as stored and as text: about 1 500 organizations.
const MAX_CREDENTIAL: usize = 64 << 10;

/// What PostHog's cache holds where there was nothing to be cached.
const EMPTY: &[u8] = b"__missing__";

/// What a look-up taught of one token or credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it stands for.
    pub record: Record,
    /// Hash of its team's project token, where that is known. A request that names no token is matched with
    /// the quota-limited teams by it.
    pub api_token: Option<Sha256Hash>,
    /// When the question was sent: it was true then or later.
    pub looked_up_at: Monotonic,
}

/// What a look-up taught.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What is known now, each hash once; a team's metadata teaches its secret tokens along with it. To be
    /// handed to [`table::keep`].
    pub records: Vec<(Sha256Hash, Known)>,
    /// What was stored and could not be read.
    pub unreadable: Unreadable,
}

/// Values that are there but cannot be decoded or parsed, to be counted. To the request they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The team's metadata.
    pub metadata: bool,
    /// The credential's entry.
    pub credential: bool,
}

impl Found {
    /// What is known of a token or credential.
    pub fn get(&self, hash: &Sha256Hash) -> Option<&Known> {
        let found = self.records.iter().find(|(known, _)| known == hash);
        found.map(|(_, known)| known)
    }

    /// What was asked for and not found; `None` when everything was.
    pub fn lacks(&self, lookup: &Lookup) -> Option<Miss> {
        let lacks = |asked: Option<&Sha256Hash>| asked.is_some_and(|hash| self.get(hash).is_none());
        let (token, bearer) = (lacks(lookup.token()), lacks(lookup.bearer()));
        let why = self.why();
        (token || bearer).then_some(Miss { token, bearer, why })
    }

    /// Why something was not found. Metadata that cannot be read might have taught the credential, too.
    pub const fn why(&self) -> Why {
        if self.unreadable.metadata || self.unreadable.credential {
            Why::Unreadable
        } else {
            Why::NotFound
        }
    }

    fn add(&mut self, hash: Sha256Hash, known: Known) {
        if self.get(&hash).is_none() {
            self.records.push((hash, known));
        }
    }
}

/// Reads the reply to [`Lookup::command`], which was sent at `sent_at`. `decode` turns a stored value into text;
/// `None` when it cannot.
///
/// # Errors
/// When nothing was learned: the command failed, or the reply is not the script's.
pub fn read(
    lookup: &Lookup,
    sent_at: Monotonic,
    reply: Result<Reply<'_>, Failure>,
    decode: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Found, Failure> {
    let reply = reply?;
    let parts = reply.strings().unwrap_or_default();
    let [metadata, credential] = *parts else {
        return Err(Failure::Malformed);
    };
    let known = |record, api_token| Known {
        record,
        api_token,
        looked_up_at: sent_at,
    };
    let mut found = Found::default();
    let mut secrets = Vec::new();
    if let Some(token) = lookup.token() {
        match stored(metadata, MAX_METADATA, &decode, |text| {
            metadata::parse(text, token)
        }) {
            Stored::Value(metadata) => {
                let owner = Record::TeamSecret(metadata.team.id);
                found.add(*token, known(Record::Team(metadata.team), Some(*token)));
                secrets = metadata
                    .secrets
                    .into_iter()
                    .map(|hash| (hash, known(owner.clone(), Some(*token))))
                    .collect();
            }
            Stored::Absent => {}
            Stored::Unreadable => found.unreadable.metadata = true,
        }
    }
    if let Some(bearer) = lookup.bearer() {
        match stored(credential, MAX_CREDENTIAL, &decode, credential::parse) {
            Stored::Value(entry) => found.add(*bearer, known(entry.record, entry.api_token)),
            Stored::Absent => {}
            Stored::Unreadable => found.unreadable.credential = true,
        }
    }
    // After the credential's own entry: that one is dropped as soon as the credential changes.
    for (hash, secret) in secrets {
        found.add(hash, secret);
    }
    Ok(found)
}

enum Stored<T> {
    Value(T),
    Absent,
    Unreadable,
}

fn stored<T>(
    value: &[u8],
    most: usize,
    decode: impl Fn(&[u8]) -> Option<Vec<u8>>,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Stored<T> {
    if value.is_empty() {
        return Stored::Absent;
    }
    if value.len() > most {
        return Stored::Unreadable;
    }
    match decode(value) {
        Some(text) if text == EMPTY => Stored::Absent,
        Some(text) if text.len() <= most => parse(&text).map_or(Stored::Unreadable, Stored::Value),
        _ => Stored::Unreadable,
    }
}

/// Reads a JSON object. (serde would take a list for one, its fields in order.)
fn object<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surfaces::posthog::directory::Team;
    use crate::surfaces::posthog::request::{Bearer, BearerKind, ProjectToken};
    use crate::tenant::Tenant;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const METADATA: &str = r#"{"id":7,"api_token":"phc_a","organization_id":null,"secret_api_token":"phs_a","secret_api_token_backup":"phs_b"}"#;
    const SENT: Monotonic = Monotonic::from_millis(5);

    fn hash(text: &str) -> Sha256Hash {
        Sha256Hash::of(text.as_bytes())
    }

    fn lookup(token: Option<&str>, bearer: Option<&str>) -> Lookup {
        let token = token.map(|text| ProjectToken::of(text.as_bytes()));
        let bearer = bearer.map(|text| Bearer {
            kind: BearerKind::Secret,
            hash: hash(text),
            plausible: true,
        });
        Lookup::new(token.as_ref(), bearer.as_ref()).unwrap()
    }

    /// Stored values begin with `!`; the rest is the text.
    fn decode(value: &[u8]) -> Option<Vec<u8>> {
        value.strip_prefix(b"!").map(<[u8]>::to_vec)
    }

    fn reply(lookup: &Lookup, metadata: &str, credential: &str) -> Result<Found, Failure> {
        let parts = vec![metadata.as_bytes(), credential.as_bytes()];
        read(lookup, SENT, Ok(Reply::array(parts)), decode)
    }

    fn known(record: Record, api_token: Option<&str>) -> Known {
        Known {
            record,
            api_token: api_token.map(hash),
            looked_up_at: SENT,
        }
    }

    fn team() -> Known {
        let team = Team {
            id: Tenant(7),
            organization: None,
        };
        known(Record::Team(team), Some("phc_a"))
    }

    #[test]
    fn metadata_teaches_the_team_and_its_secrets() {
        let lookup = lookup(Some("phc_a"), Some("phs_a"));
        let found = reply(&lookup, &format!("!{METADATA}"), "").unwrap();
        let secret = known(Record::TeamSecret(Tenant(7)), Some("phc_a"));
        assert_eq!(
            found.records,
            [
                (hash("phc_a"), team()),
                (hash("phs_a"), secret.clone()),
                (hash("phs_b"), secret)
            ]
        );
        assert_eq!(found.unreadable, Unreadable::default());
    }

    #[test]
    fn a_credentials_own_entry_counts_more_than_metadata() {
        let lookup = lookup(Some("phc_a"), Some("phs_a"));
        let entry = r#"!{"type":"secret","team_id":8,"api_token":"phc_b"}"#;
        let found = reply(&lookup, &format!("!{METADATA}"), entry).unwrap();
        let expected = known(Record::TeamSecret(Tenant(8)), Some("phc_b"));
        assert_eq!(found.get(&hash("phs_a")), Some(&expected));
        assert_eq!(found.records.len(), 3);
    }

    #[test]
    fn absent_is_not_known_and_not_unreadable() {
        let lookup = lookup(Some("phc_a"), Some("phs_a"));
        for value in ["", "!__missing__"] {
            assert_eq!(
                reply(&lookup, value, value),
                Ok(Found::default()),
                "{value}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_known_and_spoils_nothing_else() {
        let lookup = lookup(Some("phc_a"), Some("phs_a"));
        let other_team = METADATA.replace("phc_a", "phc_b");
        let long = " ".repeat(MAX_METADATA);
        for metadata in [
            METADATA,
            "!",
            "!x",
            &format!("!{other_team}"),
            &format!("!{METADATA}{long}"),
        ] {
            let entry = r#"!{"type":"secret","team_id":7}"#;
            let found = reply(&lookup, metadata, entry).unwrap();
            assert!(found.unreadable.metadata && !found.unreadable.credential);
            let expected = known(Record::TeamSecret(Tenant(7)), None);
            assert_eq!(found.records, [(hash("phs_a"), expected)]);
        }
        let found = reply(&lookup, &format!("!{METADATA}"), "!{").unwrap();
        assert!(!found.unreadable.metadata && found.unreadable.credential);
        assert_eq!(found.get(&hash("phc_a")), Some(&team()));
    }

    #[test]
    fn a_value_that_grows_beyond_its_bound_when_decoded_is_unreadable() {
        let lookup = lookup(None, Some("phs_a"));
        let grown = |_: &[u8]| {
            let mut text = br#"{"type":"secret","team_id":7}"#.to_vec();
            text.resize(MAX_CREDENTIAL + 1, b' ');
            Some(text)
        };
        let found = read(&lookup, SENT, Ok(Reply::array([&b""[..], b"x"])), grown).unwrap();
        assert!(found.records.is_empty() && found.unreadable.credential);
    }

    #[test]
    fn a_public_token_never_becomes_a_secret() {
        let lookup = lookup(Some("phc_a"), Some("phc_a"));
        let twin = METADATA.replace("phs_a", "phc_a");
        let entry = r#"!{"type":"secret","team_id":7}"#;
        let found = reply(&lookup, &format!("!{twin}"), entry).unwrap();
        assert_eq!(found.get(&hash("phc_a")), Some(&team()));
    }

    #[test]
    fn what_was_not_asked_for_is_not_learned() {
        let entry = r#"!{"type":"secret","team_id":7}"#;
        let token_only = lookup(Some("phc_a"), None);
        let found = reply(&token_only, "", entry).unwrap();
        assert_eq!(found, Found::default());
        let bearer_only = lookup(None, Some("phs_a"));
        let found = reply(&bearer_only, &format!("!{METADATA}"), "").unwrap();
        assert_eq!(found, Found::default());
    }

    #[test]
    fn a_failure_teaches_nothing() {
        let lookup = lookup(Some("phc_a"), None);
        for (reply, failure) in [
            (Err(Failure::Timeout), Failure::Timeout),
            (Ok(Reply::Nil), Failure::Malformed),
            (Ok(Reply::array([&b""[..]])), Failure::Malformed),
            (Ok(Reply::array([&b""[..], b"", b""])), Failure::Malformed),
        ] {
            assert_eq!(read(&lookup, SENT, reply, decode), Err(failure));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(
            metadata in prop::collection::vec(any::<u8>(), 0..100),
            credential in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let lookup = lookup(Some("phc_a"), Some("phs_a"));
            let parts = vec![&metadata[..], &credential[..]];
            let found = read(&lookup, SENT, Ok(Reply::array(parts)), |value| Some(value.to_vec())).unwrap();
            prop_assert!(found.records.is_empty());
        }
    }
}
