//! A credential that PostHog's service has checked, as it keeps it.

use serde::Deserialize;

use crate::hash::Sha256Hash;
use crate::surfaces::posthog::directory::access::scopes_read_flags;
use crate::surfaces::posthog::directory::{OrganizationId, PersonalKey, Record};
use crate::tenant::Tenant;

/// What a checked credential is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credential {
    /// What it stands for.
    pub record: Record,
    /// Hash of its team's project token, where the entry names it.
    pub api_token: Option<Sha256Hash>,
}

/// The Max UUID (RFC 9562 §5.10), which nobody has. It stands for a restriction that cannot be read: left
/// out, it would leave a shorter list, or none, and that admits more.
const NOBODY: OrganizationId = OrganizationId([0xff; 16]);

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Secret {
    team_id: u32,
    api_token: Option<String>,
}

/// Where null means "all", the field must be there: a renamed one must not admit everybody.
#[derive(Deserialize)]
struct ProjectSecret {
    team_id: u32,
    #[serde(deserialize_with = "Option::deserialize")]
    scopes: Option<Vec<String>>,
    api_token: Option<String>,
}

#[derive(Deserialize)]
struct Personal {
    org_ids: Vec<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    scoped_teams: Option<Vec<u32>>,
    #[serde(deserialize_with = "Option::deserialize")]
    scoped_orgs: Option<Vec<String>>,
    #[serde(deserialize_with = "Option::deserialize")]
    scopes: Option<Vec<String>>,
}

/// Reads an entry; `None` when the text is none, or of a type that this release does not know.
pub(super) fn parse(text: &[u8]) -> Option<Credential> {
    match super::object::<Kind>(text)?.kind.as_str() {
        "secret" => {
            let entry: Secret = super::object(text)?;
            Some(Credential {
                record: Record::TeamSecret(Tenant(entry.team_id)),
                api_token: hash(entry.api_token),
            })
        }
        "project_secret" => {
            let entry: ProjectSecret = super::object(text)?;
            Some(Credential {
                record: Record::ProjectSecret {
                    team: Tenant(entry.team_id),
                    reads_flags: scopes_read_flags(entry.scopes.as_deref()),
                },
                api_token: hash(entry.api_token),
            })
        }
        "personal" => Some(Credential {
            record: Record::Personal(super::object::<Personal>(text)?.into()),
            api_token: None,
        }),
        _ => None,
    }
}

impl From<Personal> for PersonalKey {
    fn from(entry: Personal) -> Self {
        let restricted = entry.scoped_orgs.unwrap_or_default();
        Self {
            // Only keys of active users are checked, and the entry goes when the user does.
            user_active: true,
            reads_flags: scopes_read_flags(entry.scopes.as_deref()),
            scoped_teams: entry
                .scoped_teams
                .unwrap_or_default()
                .into_iter()
                .map(Tenant)
                .collect(),
            scoped_organizations: restricted
                .iter()
                .map(|id| OrganizationId::parse(id).unwrap_or(NOBODY))
                .collect(),
            organizations: entry
                .org_ids
                .iter()
                .filter_map(|id| OrganizationId::parse(id))
                .collect(),
        }
    }
}

fn hash(token: Option<String>) -> Option<Sha256Hash> {
    token.map(|token| Sha256Hash::of(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const A: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const B: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

    fn read(text: &str) -> Option<Credential> {
        parse(text.as_bytes())
    }

    fn id(text: &str) -> OrganizationId {
        OrganizationId::parse(text).unwrap()
    }

    fn personal(fields: &str) -> Option<PersonalKey> {
        let text = format!(r#"{{"type":"personal","user_id":1,"key_id":"k",{fields}}}"#);
        match read(&text)?.record {
            Record::Personal(key) => Some(key),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secrets() {
        let team = Record::TeamSecret(Tenant(7));
        let project = |reads_flags| Record::ProjectSecret {
            team: Tenant(7),
            reads_flags,
        };
        let token = Some(Sha256Hash::of(b"phc_a"));
        for (text, record, api_token) in [
            (
                r#"{"type":"secret","team_id":7,"api_token":"phc_a"}"#,
                team.clone(),
                token,
            ),
            (
                r#"{"type":"secret","team_id":7,"api_token":null}"#,
                team.clone(),
                None,
            ),
            (r#" {"new":[{}],"team_id":7,"type":"secret"}"#, team, None),
            (
                r#"{"type":"project_secret","team_id":7,"key_id":"k","scopes":null,"api_token":"phc_a"}"#,
                project(true),
                token,
            ),
            (
                r#"{"type":"project_secret","team_id":7,"key_id":5,"scopes":["insight:read","feature_flag:read"]}"#,
                project(true),
                None,
            ),
            (
                r#"{"type":"project_secret","team_id":7,"key_id":null,"scopes":[]}"#,
                project(false),
                None,
            ),
            (
                r#"{"type":"project_secret","team_id":7,"scopes":["insight:read"]}"#,
                project(false),
                None,
            ),
        ] {
            assert_eq!(read(text), Some(Credential { record, api_token }), "{text}");
        }
    }

    #[test]
    fn a_personal_key_keeps_what_decides_its_access() {
        let fields = format!(
            r#""org_ids":["{A}","{B}"],"scoped_teams":[7,8],"scoped_orgs":["{A}"],"scopes":["*"],"current_team_id":7"#
        );
        assert_eq!(
            personal(&fields),
            Some(PersonalKey {
                user_active: true,
                reads_flags: true,
                scoped_teams: vec![Tenant(7), Tenant(8)],
                scoped_organizations: vec![id(A)],
                organizations: vec![id(A), id(B)],
            })
        );
        assert_eq!(
            personal(r#""org_ids":[],"scoped_teams":null,"scoped_orgs":null,"scopes":[]"#),
            Some(PersonalKey {
                user_active: true,
                ..PersonalKey::default()
            })
        );
    }

    #[test]
    fn an_unreadable_membership_admits_nobody_and_an_unreadable_restriction_still_restricts() {
        let key = personal(&format!(
            r#""org_ids":["acme","{A}",""],"scoped_teams":null,"scoped_orgs":["acme"],"scopes":null"#
        ))
        .unwrap();
        assert_eq!(key.organizations, [id(A)]);
        assert_eq!(key.scoped_organizations, [NOBODY]);
        let key = personal(&format!(
            r#""org_ids":[],"scoped_teams":null,"scoped_orgs":["{A}","acme"],"scopes":null"#
        ))
        .unwrap();
        assert_eq!(key.scoped_organizations, [id(A), NOBODY]);
    }

    #[test]
    fn what_is_not_an_entry_teaches_nothing() {
        for text in [
            "",
            "{}",
            "null",
            r#"["secret",7]"#,
            r#"{"team_id":7}"#,
            r#"{"type":"oauth","team_id":7}"#,
            r#"{"type":5,"team_id":7}"#,
            r#"{"type":"secret"}"#,
            r#"{"type":"secret","team_id":-7}"#,
            r#"{"type":"secret","team_id":"7"}"#,
            r#"{"type":"secret","team_id":7}x"#,
            r#"{"type":"secret","team_id":7,"team_id":8}"#,
            // A missing restriction is not "none".
            r#"{"type":"project_secret","team_id":7}"#,
            r#"{"type":"personal","org_ids":[],"scoped_orgs":null,"scopes":null}"#,
            r#"{"type":"personal","org_ids":[],"scoped_teams":null,"scopes":null}"#,
            r#"{"type":"personal","org_ids":[],"scoped_teams":null,"scoped_orgs":null}"#,
            r#"{"type":"personal","org_ids":[],"scoped_teams":[-1],"scoped_orgs":null,"scopes":null}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&bytes), None);
        }

        #[test]
        fn scoped_organizations_never_become_fewer(ids in prop::collection::vec(".{0,40}", 0..5)) {
            let list = serde_json::to_string(&ids).unwrap();
            let key = personal(&format!(
                r#""org_ids":[],"scoped_teams":null,"scoped_orgs":{list},"scopes":null"#
            ));
            prop_assert_eq!(key.unwrap().scoped_organizations.len(), ids.len());
        }
    }
}
