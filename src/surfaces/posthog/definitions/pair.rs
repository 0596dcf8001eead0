//! One atomic read of a team's ETag and payload.
//!
//! A newer ETag with an older payload would pin the client to old flags, so both come from one script. The
//! script compares first: a client that already holds the current version costs no payload. It also reads
//! the team's quota latch ([`super::latch`]), whose end it compares with Redis' own clock.
//!
//! # The script
//! `EVAL_RO pair payload etag latch · held` answers four strings, because webdis leaves out what is not one:
//! `same|full|none`, the ETag without suffix (empty when absent), the payload (of `full` only), and the quota period
//! ([`QuotaPeriod::parse`]). It compares `held` with the ETag and its suffix.
//!
//! PostHog pickles the ETag; the script unpickles it (`tag.lua`). What is no ETag, or one of more than 50
//! characters, which would leave no room for a suffix, counts as absent. So does a key of another type than string; any
//! other error of Redis, such as a missing permission, is the script's.
//!
//! Until its end a latch holds for every ETag, then for the one that it names. Where it names none, or the team has none stored, it holds for
//! any: a suffix too many costs one payload, a missing one leaves SDKs without flags.

use super::latch::{self, QuotaEnd, QuotaPeriod, latched};
use crate::http::{Candidate, ETag};
use crate::redis::{Command, Failure, Reply, Script};
use crate::surfaces::posthog::definitions::settings::Definitions;
use crate::tenant::Tenant;

/// What must be read from Redis for a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Whose definitions.
    pub team: Tenant,
    /// What need not be sent again: the version that the worker has a body of, or else the one that the client
    /// holds.
    pub held: Option<Candidate>,
}

static SCRIPT: Script = Script::new(concat!(include_str!("tag.lua"), include_str!("pair.lua")));

/// PostHog's key of a team's payload (Django's `KEY_PREFIX:VERSION:key`).
pub fn payload_key(settings: &Definitions, team: Tenant) -> String {
    format!(
        "{}{}:cache/teams/{team}/feature_flags/flags_with_cohorts.json",
        settings.key_prefix, settings.cache_version
    )
}

/// PostHog's key of a team's ETag.
pub fn etag_key(settings: &Definitions, team: Tenant) -> String {
    format!("{}:etag", payload_key(settings, team))
}

impl Need {
    /// The command that reads it. `prefix` is that of the filter's own keys (`snapshot.prefix`).
    pub fn command(&self, settings: &Definitions, prefix: &str) -> Command {
        let held: &[u8] = match &self.held {
            None => b"",
            Some(Candidate::Any) => b"*",
            Some(Candidate::Tag(tag)) => tag.as_bytes(),
        };
        let keys = [
            payload_key(settings, self.team),
            etag_key(settings, self.team),
            latch::key(prefix, self.team),
        ];
        Command::eval_ro(&SCRIPT, keys, [held])
    }
}

/// What the script said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// The client's version is current. The ETag is the public one, with its suffix.
    Same {
        /// Its ETag.
        etag: ETag,
        /// The end of a quota period that lies ahead.
        pending: Option<QuotaEnd>,
    },
    /// The current version. PostHog writes payload and ETag one after the other, so the ETag may be absent.
    Full {
        /// The stored ETag, without suffix. Where it is absent it can be computed from the text.
        etag: Option<ETag>,
        /// What the public ETag has behind it ([`latched`]), stored or computed, or whether there must be none.
        period: QuotaPeriod,
        /// The payload as stored, maybe encoded.
        stored: &'a [u8],
    },
    /// There is no payload: a true miss.
    Missing {
        /// As in [`Stored::Full`], for a payload that is found elsewhere.
        period: QuotaPeriod,
    },
    /// It is not known whether there is one.
    Failed(Failure),
}

impl<'a> Stored<'a> {
    /// Reads the script's reply.
    ///
    /// ```
    /// use flag_definitions_filter::redis::{Failure, Reply};
    /// use flag_definitions_filter::surfaces::posthog::definitions::pair::Stored;
    /// let full = Ok(Reply::array([&b"full"[..], b"abc", b"{}", b""]));
    /// assert!(matches!(Stored::of(&full), Stored::Full { stored: b"{}", etag: Some(_), .. }));
    /// let none = Ok(Reply::array([&b"none"[..], b"", b"", b""]));
    /// assert!(matches!(Stored::of(&none), Stored::Missing { .. }));
    /// let late = Err(Failure::Timeout);
    /// assert_eq!(Stored::of(&late), Stored::Failed(Failure::Timeout), "which is no miss");
    /// ```
    pub fn of(reply: &'a Result<Reply<'_>, Failure>) -> Self {
        let parts = match reply {
            Ok(reply) => reply.strings().unwrap_or_default(),
            Err(failure) => return Self::Failed(*failure),
        };
        let [kind, etag, stored, period] = *parts else {
            return Self::Failed(Failure::Malformed);
        };
        let etag = ETag::new(etag);
        let Some(period) = QuotaPeriod::parse(period) else {
            return Self::Failed(Failure::Malformed);
        };
        match kind {
            b"same" => match etag.and_then(|etag| latched(&etag, period.suffix())) {
                Some(etag) => Self::Same {
                    etag,
                    pending: period.pending(),
                },
                None => Self::Failed(Failure::Malformed),
            },
            b"full" => Self::Full {
                etag,
                period,
                stored,
            },
            b"none" => Self::Missing { period },
            _ => Self::Failed(Failure::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn reply(parts: &[&'static str]) -> Result<Reply<'static>, Failure> {
        let parts = parts.iter().map(|part| part.as_bytes().into());
        Ok(Reply::Array(parts.collect()))
    }

    #[test]
    fn keys_are_djangos() {
        assert_eq!(
            payload_key(&Definitions::default(), Tenant(42)),
            "posthog:1:cache/teams/42/feature_flags/flags_with_cohorts.json"
        );
    }

    #[test]
    fn the_command_names_all_keys_and_what_the_client_holds() {
        let tag = ETag::new(b"aa").unwrap();
        for (held, argument) in [
            (None, &b""[..]),
            (Some(Candidate::Any), b"*"),
            (Some(Candidate::Tag(tag)), b"aa"),
        ] {
            let need = Need {
                team: Tenant(1),
                held,
            };
            let command = need.command(&Definitions::default(), "p:");
            let parts = command.words();
            assert_eq!(parts[0], b"EVAL_RO");
            assert_eq!(parts[2], b"3");
            assert_eq!(parts[4], [parts[3], b":etag"].concat());
            assert_eq!(parts[5], b"p:quota_end:1");
            assert_eq!(parts[6], argument);
        }
    }

    #[test]
    fn replies() {
        let tag = |text: &str| ETag::new(text.as_bytes()).unwrap();
        let period = |text: &str| QuotaPeriod::parse(text.as_bytes()).unwrap();
        let full = |etag, suffix: Option<&str>, stored: &'static str| Stored::Full {
            etag,
            period: period(suffix.unwrap_or_default()),
            stored: stored.as_bytes(),
        };
        let same = |text, pending| Stored::Same {
            etag: tag(text),
            pending,
        };
        let end = QuotaEnd::from_millis(1_763_728_000_000);
        for (parts, expected) in [
            (["same", "e1", "", ""], same("e1", None)),
            (["same", "e1", "", "z9"], same("e1-z9", None)),
            (["same", "e1", "", "-1763728000000"], same("e1", Some(end))),
            (
                ["full", "e1", "{}", "-1763728000000"],
                full(Some(tag("e1")), Some("-1763728000000"), "{}"),
            ),
            (["full", "e1", "{}", ""], full(Some(tag("e1")), None, "{}")),
            (["full", "", "{}", ""], full(None, None, "{}")),
            (["full", "", "{}", "z9"], full(None, Some("z9"), "{}")),
            (
                ["full", "e1", "\u{28}\u{b5}", "z9"],
                full(Some(tag("e1")), Some("z9"), "\u{28}\u{b5}"),
            ),
            (
                ["none", "e1", "", "z9"],
                Stored::Missing {
                    period: period("z9"),
                },
            ),
        ] {
            assert_eq!(Stored::of(&reply(&parts)), expected, "{parts:?}");
        }
        for parts in [
            &["same", "", "", ""][..],
            &["full", "e1", "{}"],
            &["full", "e1", "{}", "not base 36"],
            &["what", "", "", ""],
            &[],
        ] {
            assert_eq!(
                Stored::of(&reply(parts)),
                Stored::Failed(Failure::Malformed)
            );
        }
        assert_eq!(
            Stored::of(&Err(Failure::Timeout)),
            Stored::Failed(Failure::Timeout)
        );
        assert_eq!(
            Stored::of(&Ok(Reply::Nil)),
            Stored::Failed(Failure::Malformed)
        );
    }
}
