//! PostHog's metadata of a team, as far as it decides who may read the team's definitions.

use serde::{Deserialize, Deserializer};

use crate::hash::Sha256Hash;
use crate::surfaces::posthog::directory::{OrganizationId, Team};
use crate::tenant::Tenant;

/// What a team's metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The team.
    pub team: Team,
    /// Hashes of its secret token and that one's backup.
    pub secrets: Vec<Sha256Hash>,
}

/// The fields that are read; the document has about 40 more. A field that widens access by being null must
/// be there.
#[derive(Deserialize)]
struct Document {
    id: u32,
    api_token: String,
    #[serde(deserialize_with = "Option::deserialize")]
    organization_id: Option<String>,
    #[serde(default, deserialize_with = "hash")]
    secret_api_token: Option<Sha256Hash>,
    #[serde(default, deserialize_with = "hash")]
    secret_api_token_backup: Option<Sha256Hash>,
}

/// Reads the metadata of the team whose project token has this hash; `None` when the text is not that.
pub(super) fn parse(text: &[u8], token: &Sha256Hash) -> Option<Metadata> {
    let document: Document = super::object(text)?;
    if Sha256Hash::of(document.api_token.as_bytes()) != *token {
        return None;
    }
    let organization = match document.organization_id {
        // A team without an organization admits any key, so an id that cannot be read must not become none.
        Some(id) => Some(OrganizationId::parse(&id)?),
        None => None,
    };
    Some(Metadata {
        team: Team {
            id: Tenant(document.id),
            organization,
        },
        secrets: [document.secret_api_token, document.secret_api_token_backup]
            .into_iter()
            .flatten()
            .collect(),
    })
}

/// A secret goes no further than here in clear.
fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha256Hash>, D::Error> {
    let secret = Option::<String>::deserialize(deserializer)?;
    Ok(secret
        .filter(|secret| !secret.is_empty())
        .map(|secret| Sha256Hash::of(secret.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ORGANIZATION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn read(text: &str) -> Option<Metadata> {
        parse(text.as_bytes(), &Sha256Hash::of(b"phc_a"))
    }

    fn team(organization: Option<&str>) -> Team {
        Team {
            id: Tenant(7),
            organization: organization.map(|id| OrganizationId::parse(id).unwrap()),
        }
    }

    #[test]
    fn what_decides_access_is_read_and_all_else_is_ignored() {
        let text = format!(
            r#"{{"id":7,"uuid":"x","api_token":"phc_a","organization_id":"{ORGANIZATION}","name":{{"a":[1,2.5,null]}},
               "secret_api_token":"phs_a","secret_api_token_backup":"phs_b","cookieless_server_hash_mode":null}}"#
        );
        assert_eq!(
            read(&text),
            Some(Metadata {
                team: team(Some(ORGANIZATION)),
                secrets: vec![Sha256Hash::of(b"phs_a"), Sha256Hash::of(b"phs_b")],
            })
        );
    }

    #[test]
    fn a_team_may_have_no_organization_and_no_secrets() {
        for secrets in [
            "",
            r#","secret_api_token":null,"secret_api_token_backup":null"#,
            r#","secret_api_token":"","secret_api_token_backup":"""#,
        ] {
            let text = format!(r#"{{"id":7,"api_token":"phc_a","organization_id":null{secrets}}}"#);
            let expected = Metadata {
                team: team(None),
                secrets: vec![],
            };
            assert_eq!(read(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_this_teams_metadata_teaches_nothing() {
        let whole = r#"{"id":7,"api_token":"phc_a","organization_id":null}"#;
        assert!(read(whole).is_some());
        for (what, with) in [
            ("phc_a", "phc_b"),
            (r#""id":7"#, r#""id":-7"#),
            (r#""id":7"#, r#""id":"7""#),
            (r#""id":7"#, r#""id":4294967296"#),
            (r#""id":7,"#, ""),
            (r#""api_token":"phc_a","#, ""),
            (r#""phc_a""#, "null"),
            // Each of these would let every personal key in.
            (r#","organization_id":null"#, ""),
            (r#"d":null"#, r#"d":"""#),
            (r#"d":null"#, r#"d":"acme""#),
            (r#"d":null"#, r#"d":5"#),
            (
                r#"d":null"#,
                &format!(r#"d":null,"organization_id":"{ORGANIZATION}""#),
            ),
        ] {
            let text = whole.replacen(what, with, 1);
            assert_ne!(text, whole);
            assert_eq!(read(&text), None, "{text}");
        }
        for text in [
            "",
            "null",
            "{",
            r#"[7,"phc_a",null,null,null]"#,
            &format!("{whole}x"),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&bytes, &Sha256Hash::of(b"phc_a")), None);
        }
    }
}
