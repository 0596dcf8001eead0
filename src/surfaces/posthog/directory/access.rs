//! PostHog's rules: may this credential read this team's flag definitions?

use super::record::{PersonalKey, Record, Team};
use crate::hash::Sha256Hash;
use crate::labels::labels;
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::request::{Bearer, BearerKind, Request, Token};
use crate::tenant::Tenant;

/// How a request proved that it may read. The label of `flag_definitions_auth_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The team's secret token or its backup.
    SecretApiKey,
    /// A project secret key.
    ProjectSecretApiKey,
    /// A personal API key.
    PersonalApiKey,
}

labels! {
    AuthMethod {
        SecretApiKey: "secret_api_key",
        ProjectSecretApiKey: "project_secret_api_key",
        PersonalApiKey: "personal_api_key",
    }
}

/// What the rules say of one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may read this team's definitions.
    Accepted(Tenant, AuthMethod),
    /// It is known, or known to be gone, and may not.
    Refused(Answer),
    /// Nothing is known of it; this is the answer when that knowledge is complete and fresh.
    Unknown(Answer),
}

/// The two halves of what a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The project token.
    Token,
    /// The credential.
    Bearer,
}

/// Where tokens and credentials are found.
pub trait Directory {
    /// Why one cannot be looked for.
    type Error;

    /// What is known of one.
    ///
    /// # Errors
    /// When that cannot be said.
    fn find(&mut self, half: Half, hash: &Sha256Hash) -> Result<Option<&Record>, Self::Error>;
}

/// What PostHog's checks say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It may read this team's definitions.
    Accepted(Tenant, AuthMethod),
    /// What it shows is not complete; nothing that is known matters.
    Incomplete(Answer),
    /// What is known says no.
    Refused(Answer),
    /// Nothing is known of this half; this is the answer when that knowledge is complete and fresh.
    Unknown(Half, Answer),
    /// Its token cannot be anybody's.
    Impossible(Answer),
}

/// PostHog's checks in PostHog's order: the token, then the credential. A request that fails two gets the answer of the
/// first.
///
/// # Errors
/// Those of `directory`.
pub fn check<D: Directory>(request: &Request<'_>, directory: &mut D) -> Result<Checked, D::Error> {
    let bearer = request.bearer.as_ref();
    let mut team = None;
    match &request.token {
        Token::Repeated => return Ok(Checked::Incomplete(Answer::TokenRepeated)),
        Token::Oversized => return Ok(Checked::Impossible(Answer::TokenInvalid)),
        Token::Absent => match bearer {
            None => return Ok(Checked::Incomplete(Answer::NotAuthenticated)),
            Some(bearer) if bearer.kind == BearerKind::Personal => {
                return Ok(Checked::Incomplete(Answer::TokenRequired));
            }
            Some(_) => {}
        },
        Token::Named(token) => match directory.find(Half::Token, token.hash())? {
            Some(Record::Team(found)) => team = Some(found.clone()),
            Some(_) => return Ok(Checked::Refused(Answer::TokenInvalid)),
            None => return Ok(Checked::Unknown(Half::Token, Answer::TokenInvalid)),
        },
    }
    let Some(bearer) = bearer else {
        return Ok(Checked::Incomplete(Answer::NotAuthenticated));
    };
    let record = directory.find(Half::Bearer, &bearer.hash)?;
    Ok(match judge(team.as_ref(), bearer, record) {
        Verdict::Accepted(team, method) => Checked::Accepted(team, method),
        Verdict::Refused(answer) => Checked::Refused(answer),
        Verdict::Unknown(answer) => Checked::Unknown(Half::Bearer, answer),
    })
}

/// Applies the rules. `team` is the team that the request named, if it named one; without one a secret key
/// brings its own team.
pub fn judge(team: Option<&Team>, bearer: &Bearer, record: Option<&Record>) -> Verdict {
    let invalid = match bearer.kind {
        BearerKind::Secret => Answer::SecretInvalid,
        BearerKind::Personal => Answer::PersonalInvalid,
    };
    let Some(record) = record else {
        return Verdict::Unknown(invalid);
    };
    let names = |owner: &Tenant| team.is_none_or(|team| team.id == *owner);
    match (bearer.kind, record) {
        (BearerKind::Secret, Record::TeamSecret(owner)) if names(owner) => {
            Verdict::Accepted(*owner, AuthMethod::SecretApiKey)
        }
        (
            BearerKind::Secret,
            Record::ProjectSecret {
                team: owner,
                reads_flags: true,
            },
        ) if names(owner) => Verdict::Accepted(*owner, AuthMethod::ProjectSecretApiKey),
        (BearerKind::Personal, Record::Personal(key)) => match team {
            Some(team) => judge_personal(team, key),
            None => Verdict::Refused(invalid),
        },
        _ => Verdict::Refused(invalid),
    }
}

/// PostHog's checks of a personal key, in PostHog's order: a key that fails two of them gets the first answer.
fn judge_personal(team: &Team, key: &PersonalKey) -> Verdict {
    let invalid = Verdict::Refused(Answer::PersonalInvalid);
    if !key.user_active {
        return invalid;
    }
    if !key.scoped_teams.is_empty() && !key.scoped_teams.contains(&team.id) {
        return invalid;
    }
    if !key.reads_flags {
        return Verdict::Refused(Answer::ScopeMissing);
    }
    if let Some(organization) = &team.organization {
        let restricted = !key.scoped_organizations.is_empty();
        if restricted && !key.scoped_organizations.contains(organization) {
            return invalid;
        }
        // Membership is needed even where the restriction names the organization.
        if !key.organizations.contains(organization) {
            return invalid;
        }
    }
    Verdict::Accepted(team.id, AuthMethod::PersonalApiKey)
}

/// Whether scopes contain reading flags: absent scopes mean all, an empty list has none.
pub fn scopes_read_flags<S: AsRef<str>>(scopes: Option<&[S]>) -> bool {
    scopes.is_none_or(|scopes| {
        scopes.iter().any(|scope| {
            matches!(
                scope.as_ref(),
                "*" | "feature_flag:read" | "feature_flag:write"
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::OrganizationId;
    use super::*;
    use crate::hash::Sha256Hash;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const OURS: OrganizationId = OrganizationId([1; 16]);
    const THEIRS: OrganizationId = OrganizationId([2; 16]);

    fn team() -> Team {
        Team {
            id: Tenant(7),
            organization: Some(OURS),
        }
    }

    fn bearer(kind: BearerKind) -> Bearer {
        Bearer {
            kind,
            hash: Sha256Hash::of(b"any"),
            plausible: true,
        }
    }

    fn secret(record: Option<Record>) -> Verdict {
        judge(Some(&team()), &bearer(BearerKind::Secret), record.as_ref())
    }

    fn personal(change: impl FnOnce(&mut PersonalKey)) -> Verdict {
        let mut key = PersonalKey {
            user_active: true,
            reads_flags: true,
            organizations: vec![OURS],
            ..PersonalKey::default()
        };
        change(&mut key);
        let record = Record::Personal(key);
        judge(Some(&team()), &bearer(BearerKind::Personal), Some(&record))
    }

    #[test]
    fn secret_keys() {
        let refused = Verdict::Refused(Answer::SecretInvalid);
        let project = |team, reads_flags| Record::ProjectSecret { team, reads_flags };
        for (record, verdict) in [
            (
                Record::TeamSecret(Tenant(7)),
                Verdict::Accepted(Tenant(7), AuthMethod::SecretApiKey),
            ),
            (Record::TeamSecret(Tenant(8)), refused),
            (
                project(Tenant(7), true),
                Verdict::Accepted(Tenant(7), AuthMethod::ProjectSecretApiKey),
            ),
            (project(Tenant(7), false), refused),
            (project(Tenant(8), true), refused),
            (Record::Personal(PersonalKey::default()), refused),
            (Record::Team(team()), refused),
            (Record::Tombstone, refused),
        ] {
            assert_eq!(secret(Some(record.clone())), verdict, "{record:?}");
        }
        assert_eq!(secret(None), Verdict::Unknown(Answer::SecretInvalid));
    }

    #[test]
    fn a_secret_key_brings_its_own_team() {
        let record = Record::TeamSecret(Tenant(9));
        assert_eq!(
            judge(None, &bearer(BearerKind::Secret), Some(&record)),
            Verdict::Accepted(Tenant(9), AuthMethod::SecretApiKey)
        );
    }

    #[test]
    fn personal_keys_are_checked_in_posthogs_order() {
        let accepted = Verdict::Accepted(Tenant(7), AuthMethod::PersonalApiKey);
        let invalid = Verdict::Refused(Answer::PersonalInvalid);
        let scope = Verdict::Refused(Answer::ScopeMissing);
        assert_eq!(personal(|_| ()), accepted);
        assert_eq!(personal(|key| key.user_active = false), invalid);
        assert_eq!(personal(|key| key.scoped_teams = vec![Tenant(7)]), accepted);
        assert_eq!(personal(|key| key.scoped_teams = vec![Tenant(8)]), invalid);
        assert_eq!(personal(|key| key.reads_flags = false), scope);
        assert_eq!(
            personal(|key| key.scoped_organizations = vec![OURS]),
            accepted
        );
        assert_eq!(
            personal(|key| key.scoped_organizations = vec![THEIRS]),
            invalid
        );
        assert_eq!(personal(|key| key.organizations = vec![THEIRS]), invalid);
        // Two failures: the earlier check answers.
        assert_eq!(
            personal(|key| {
                key.scoped_teams = vec![Tenant(8)];
                key.reads_flags = false;
            }),
            invalid
        );
        assert_eq!(
            personal(|key| {
                key.reads_flags = false;
                key.organizations = vec![];
            }),
            scope
        );
        // A restriction that names the organization does not replace membership.
        assert_eq!(
            personal(|key| {
                key.scoped_organizations = vec![OURS];
                key.organizations = vec![];
            }),
            invalid
        );
    }

    #[test]
    fn a_team_without_an_organization_admits_any() {
        let team = Team {
            id: Tenant(7),
            organization: None,
        };
        let key = Record::Personal(PersonalKey {
            user_active: true,
            reads_flags: true,
            scoped_organizations: vec![THEIRS],
            ..PersonalKey::default()
        });
        assert_eq!(
            judge(Some(&team), &bearer(BearerKind::Personal), Some(&key)),
            Verdict::Accepted(Tenant(7), AuthMethod::PersonalApiKey)
        );
    }

    #[test]
    fn scopes() {
        assert!(scopes_read_flags::<&str>(None));
        assert!(!scopes_read_flags::<&str>(Some(&[])));
        for (scope, reads) in [
            ("*", true),
            ("feature_flag:read", true),
            ("feature_flag:write", true),
            ("feature_flag", false),
            ("insight:read", false),
        ] {
            assert_eq!(scopes_read_flags(Some(&[scope])), reads, "{scope}");
        }
    }
}
