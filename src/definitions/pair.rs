//! One atomic read of a team's ETag and payload.
//!
//! A newer ETag with an older payload would pin the client to old flags, so both come from one script. The
//! script compares first: a client that already holds the current version costs no payload.

use super::etag::{Candidate, ETag};
use crate::config::Definitions;
use crate::directory::TeamId;
use crate::redis::{Command, Failure, Reply};

/// What must be read from Redis for a request. Requests with equal needs share one callout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Whose definitions.
    pub team: TeamId,
    /// What the client already holds.
    pub held: Option<Candidate>,
}

/// Three strings, because webdis leaves out what is not one: `same <etag>`, `full <etag> <payload>` or
/// `none`. An absent ETag is empty.
const SCRIPT: &str = "local e=redis.call('GET',KEYS[2]) or '' \
if e~='' and (ARGV[1]=='*' or ARGV[1]==e) then return {'same',e,''} end \
local p=redis.call('GET',KEYS[1]) \
if p then return {'full',e,p} end return {'none',e,''}";

/// PostHog's key of a team's payload (Django's `KEY_PREFIX:VERSION:key`).
pub fn payload_key(settings: &Definitions, team: TeamId) -> String {
    format!(
        "{}{}:cache/teams/{team}/feature_flags/flags_with_cohorts.json",
        settings.key_prefix, settings.cache_version
    )
}

impl Need {
    /// The command that reads it.
    pub fn command(&self, settings: &Definitions) -> Command {
        let payload = payload_key(settings, self.team);
        let etag = format!("{payload}:etag");
        let held: &[u8] = match &self.held {
            None => b"",
            Some(Candidate::Any) => b"*",
            Some(Candidate::Tag(tag)) => tag.as_bytes(),
        };
        Command::eval_ro(SCRIPT, &[&payload, &etag], &[held])
    }
}

/// What the read came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The client's version is current.
    Same(ETag),
    /// The current version. PostHog writes payload and ETag one after the other, so the ETag may be absent.
    Full {
        /// Its entity tag.
        etag: Option<ETag>,
        /// The JSON text, as stored.
        body: &'a [u8],
    },
    /// There is no payload: a true miss.
    Missing,
    /// There is one, and it cannot be read.
    Undecodable,
    /// It is not known whether there is one.
    Failed(Failure),
}

impl<'a> Outcome<'a> {
    /// Reads the script's reply.
    pub fn of(reply: Result<Reply<'a>, Failure>, settings: &Definitions) -> Self {
        let parts = match &reply {
            Ok(Reply::Array(parts)) => parts.as_slice(),
            Ok(_) => return Self::Failed(Failure::Malformed),
            Err(failure) => return Self::Failed(*failure),
        };
        let most = usize::try_from(settings.max_bytes).unwrap_or(usize::MAX);
        match *parts {
            [b"same", etag, _] => match ETag::new(etag) {
                Some(etag) => Self::Same(etag),
                None => Self::Failed(Failure::Malformed),
            },
            [b"full", _, body] if body.len() > most => Self::Failed(Failure::TooBig),
            // Plain JSON is an object; anything else is an encoding that this release does not read.
            [b"full", etag, body] if body.starts_with(b"{") => Self::Full {
                etag: ETag::new(etag),
                body,
            },
            [b"full", _, _] => Self::Undecodable,
            [b"none", _, _] => Self::Missing,
            _ => Self::Failed(Failure::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn settings() -> Definitions {
        Definitions {
            max_bytes: 10,
            ..Definitions::default()
        }
    }

    fn outcome<'a>(parts: &[&'a str]) -> Outcome<'a> {
        let parts = parts.iter().map(|part| part.as_bytes()).collect();
        Outcome::of(Ok(Reply::Array(parts)), &settings())
    }

    #[test]
    fn keys_are_djangos() {
        assert_eq!(
            payload_key(&Definitions::default(), TeamId(42)),
            "posthog:1:cache/teams/42/feature_flags/flags_with_cohorts.json"
        );
    }

    #[test]
    fn the_command_names_both_keys_and_what_the_client_holds() {
        let tag = ETag::new(b"aa").unwrap();
        for (held, argument) in [
            (None, &b""[..]),
            (Some(Candidate::Any), b"*"),
            (Some(Candidate::Tag(tag)), b"aa"),
        ] {
            let need = Need {
                team: TeamId(1),
                held,
            };
            let Command(parts) = need.command(&Definitions::default());
            assert_eq!(parts[0], b"EVAL_RO");
            assert_eq!(parts[2], b"2");
            assert_eq!(parts[4], [&parts[3][..], b":etag"].concat());
            assert_eq!(parts[5], argument);
        }
    }

    #[test]
    fn replies() {
        let tag = ETag::new(b"e1").unwrap();
        assert_eq!(outcome(&["same", "e1", ""]), Outcome::Same(tag.clone()));
        assert_eq!(
            outcome(&["full", "e1", "{}"]),
            Outcome::Full {
                etag: Some(tag),
                body: b"{}"
            }
        );
        assert_eq!(
            outcome(&["full", "", "{}"]),
            Outcome::Full {
                etag: None,
                body: b"{}"
            }
        );
        assert_eq!(outcome(&["none", "e1", ""]), Outcome::Missing);
        assert_eq!(outcome(&["full", "e1", "nonsense"]), Outcome::Undecodable);
        assert_eq!(outcome(&["full", "e1", ""]), Outcome::Undecodable);
        assert_eq!(
            outcome(&["full", "e1", "{234567890}"]),
            Outcome::Failed(Failure::TooBig)
        );
        for parts in [
            &["same", "", ""][..],
            &["full", "e1"],
            &["what", "", ""],
            &[],
        ] {
            assert_eq!(outcome(parts), Outcome::Failed(Failure::Malformed));
        }
        assert_eq!(
            Outcome::of(Err(Failure::Timeout), &settings()),
            Outcome::Failed(Failure::Timeout)
        );
        assert_eq!(
            Outcome::of(Ok(Reply::Nil), &settings()),
            Outcome::Failed(Failure::Malformed)
        );
    }
}
