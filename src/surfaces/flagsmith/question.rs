//! What a request asks of rules: its digest, and its answer.

use super::engine::{Environment, IdentityRequest, Sees};
use super::request::{FlagsmithRequest, Parameter, Route};
use crate::hash::{Hasher, Sha256Hash};
use crate::http::ETag;

/// Flags that somebody asks for.
pub struct FlagQuestion<'q> {
    /// Which of them are seen.
    pub sees: Sees,
    /// Whether disabled ones are left out where the document says so.
    pub hide_disabled: bool,
    /// Of whom.
    pub subject: Subject<'q>,
}

/// Of whom flags are asked for.
pub enum Subject<'q> {
    /// Of nobody: all of the environment.
    All,
    /// Of nobody: one by name.
    One(&'q str),
    /// Of an identity.
    Identity(&'q IdentityRequest<'q>),
}

impl<'q> FlagQuestion<'q> {
    /// What a request asks. `identity`: that of its body.
    pub fn of(
        request: &'q FlagsmithRequest<'_>,
        identity: Option<&'q IdentityRequest<'q>>,
        is_server: bool,
        hide_disabled: bool,
    ) -> Option<Self> {
        let subject = match (request.route, identity, &request.parameter) {
            (Route::Identities, Some(identity), _) => Subject::Identity(identity),
            (Route::Flags, _, Parameter::Value(name)) => Subject::One(name),
            (Route::Flags, _, Parameter::Absent) => Subject::All,
            _ => return None,
        };
        Some(Self {
            sees: match is_server {
                true => Sees::Everything,
                false => Sees::Public,
            },
            // Server-side keys are shown everything.
            hide_disabled: hide_disabled && !is_server,
            subject,
        })
    }

    /// Digest of all that the answer depends on, with the document in this version. Equal questions have equal digests.
    pub fn digest(&self, version: &ETag) -> Sha256Hash {
        let mut hasher = Hasher::default();
        let mut add = |part: &[u8]| {
            hasher.add(&(part.len() as u64).to_le_bytes());
            hasher.add(part);
        };
        add(version.as_bytes());
        add(&[
            u8::from(self.sees == Sees::Everything),
            u8::from(self.hide_disabled),
        ]);
        match &self.subject {
            Subject::All => add(b"all"),
            Subject::One(name) => {
                add(b"one");
                add(name.as_bytes());
            }
            Subject::Identity(identity) => {
                add(b"identity");
                add(identity.identifier.as_bytes());
                let mut value = Vec::new();
                for given in &identity.traits {
                    add(given.key.as_bytes());
                    value.clear();
                    given.value.write(&mut value);
                    add(&value);
                }
            }
        }
        hasher.finish()
    }

    /// Whether there is an answer, for who asks.
    pub fn has_answer(&self, environment: &Environment) -> bool {
        match &self.subject {
            Subject::One(name) => environment
                .flag(name, self.sees, self.hides(environment))
                .is_some(),
            Subject::All | Subject::Identity(_) => true,
        }
    }

    fn hides(&self, environment: &Environment) -> bool {
        self.hide_disabled && environment.hides_disabled_flags()
    }

    /// The answer's text, and whether [its evaluation was cut short](super::engine::Flags::is_cut_short); `None`: there is no
    /// such feature, for who asks.
    pub fn answer(&self, environment: &Environment) -> Option<(Vec<u8>, bool)> {
        let hide_disabled = self.hides(environment);
        let mut text = Vec::new();
        let is_cut_short = match &self.subject {
            Subject::All => {
                let flags = environment.flags(self.sees, hide_disabled);
                flags.write(&mut text);
                flags.is_cut_short()
            }
            Subject::One(name) => {
                let flag = environment.flag(name, self.sees, hide_disabled)?;
                flag.write(&mut text);
                false
            }
            Subject::Identity(identity) => {
                let flags = environment.identity(identity, self.sees, hide_disabled);
                flags.write_identity(&identity.traits, &mut text);
                flags.is_cut_short()
            }
        };
        Some((text, is_cut_short))
    }
}
