//! Another ETag for a team after a quota period.
//!
//! Some SDKs drop their flags on 402, keep their ETag and go on sending it; a 304 then leaves them without
//! flags until the document changes. So once a limit has ended the team's ETag gets the end behind it,
//! `<etag>-<end in seconds, base 36>`, and keeps it until the document changes.
//!
//! # The latch
//! All Envoys must agree on that ETag, so the end is kept beside the payload, under `<prefix>quota_end:<team>`:
//! `<end, ms>:<end, base 36>:<etag>`, for 7 days after the end and 60 days at most. The ETag is the team's as
//! of the last look before the end: a document that changed during the limit is latched too, since an Envoy
//! that did not know of the limit yet may have handed it out. The script behind [`command`] writes it, the one
//! of [`super::pair`] reads it, and both compare with Redis' own clock. What is no latch, or of another type, is none: the
//! first writes over it.
//!
//! # Until then: no ETag
//! While the end in a latch lies ahead ([`QuotaPeriod::Pending`]) the team is limited, or some Envoys have noticed that it is
//! no more. Clients that were told 402 have no flags then, and hold the ETag that is current still. Whoever may read
//! gets the payload without an ETag, and forgets the one that it holds; nobody gets a 304.
//!
//! # When may the suffix be seen?
//! A client that saw a suffix and is told 402 afterwards is stuck with that suffix. So the end in the latch
//! must not lie before the last 402 that any Envoy gives:
//! - a limit that ends by itself ends everywhere at its own score;
//! - a limit that was lifted or shortened ends after a grace ([`command`]), within which all Envoys read the
//!   quota again. The first that notices sets the end, the others find it;
//! - an Envoy that comes back after more than that, and may have answered 402 past the end that the others
//!   agreed on, sets a later end. It tells of the limit that it knew as gone, and of a shorter one that the list has
//!   instead after that.

use super::pair::etag_key;
use crate::http::ETag;
use crate::redis::{Command, Script};
use crate::surfaces::posthog::definitions::settings::Definitions;
use crate::tenant::Tenant;

use std::time::Duration;

/// Most teams in one command.
pub const BATCH: usize = 200;

static SCRIPT: Script = Script::new(concat!(include_str!("tag.lua"), include_str!("latch.lua")));

/// When a limit ends: milliseconds since 1970 by the clock of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEnd(u64);

impl QuotaEnd {
    /// End of the year 9999: a limit without end. Every end fits a Lua number exactly.
    pub const NEVER: Self = Self(253_402_300_799_999);

    /// An end; later ones than [`QuotaEnd::NEVER`] are that.
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::NEVER.0 {
            Self::NEVER
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

/// The end of a limit as it stands in an ETag: 1 to 13 digits of base 36, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suffix(Vec<u8>);

impl Suffix {
    /// Takes digits; `None` for anything else.
    pub fn new(digits: &[u8]) -> Option<Self> {
        let fits = (1..=13).contains(&digits.len());
        let plain = digits
            .iter()
            .all(|digit| digit.is_ascii_digit() || digit.is_ascii_lowercase());
        (fits && plain).then(|| Self(digits.to_vec()))
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A team's quota period, as Redis tells it beside the ETag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuotaPeriod {
    /// There was none, or the document changed since.
    #[default]
    None,
    /// Its end lies ahead.
    Pending(QuotaEnd),
    /// It is over.
    Over(Suffix),
}

impl QuotaPeriod {
    /// Reads what the script of [`super::pair`] says: nothing, `-<end, ms>`, or the suffix. `None` for anything else.
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::posthog::definitions::latch::{QuotaEnd, QuotaPeriod};
    /// let end = QuotaEnd::from_millis(1_763_728_000_000);
    /// assert_eq!(QuotaPeriod::parse(b""), Some(QuotaPeriod::None));
    /// assert_eq!(QuotaPeriod::parse(b"-1763728000000"), Some(QuotaPeriod::Pending(end)));
    /// let over = QuotaPeriod::parse(b"t62t8g").unwrap();
    /// assert_eq!(over.suffix().map(|suffix| suffix.as_bytes()), Some(&b"t62t8g"[..]));
    /// ```
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"" => Some(Self::None),
            [b'-', end @ ..] => {
                let end = std::str::from_utf8(end).ok()?.parse().ok()?;
                Some(Self::Pending(QuotaEnd::from_millis(end)))
            }
            suffix => Suffix::new(suffix).map(Self::Over),
        }
    }

    /// What the ETag has behind it.
    pub fn suffix(&self) -> Option<&Suffix> {
        match self {
            Self::Over(suffix) => Some(suffix),
            _ => None,
        }
    }

    /// The end that lies ahead.
    pub fn pending(&self) -> Option<QuotaEnd> {
        match self {
            Self::Pending(end) => Some(*end),
            _ => None,
        }
    }
}

/// When the quota period ended that an ETag tells of, in seconds since 1970; `None` for one without a suffix.
pub fn end_of(etag: &ETag) -> Option<u64> {
    let tag = etag.as_bytes();
    let hyphen = tag.iter().rposition(|byte| *byte == b'-')?;
    let suffix = Suffix::new(tag.get(hyphen + 1..)?)?;
    u64::from_str_radix(std::str::from_utf8(suffix.as_bytes()).ok()?, 36).ok()
}

/// The ETag that clients see: `<etag>-<suffix>`, or the ETag itself. `None` when it would be longer than an
/// ETag may be; then the answer must have none, because without its suffix it could pin a client.
///
/// ```
/// use flag_definitions_filter::http::ETag;
/// use flag_definitions_filter::surfaces::posthog::definitions::latch::{Suffix, end_of, latched};
/// let stored = ETag::new(b"44136fa355b3678a").unwrap();
/// let public = latched(&stored, Suffix::new(b"t62t8g").as_ref()).unwrap();
/// assert_eq!(public.as_bytes(), b"44136fa355b3678a-t62t8g");
/// assert_eq!(end_of(&public), Some(1_763_728_000));
/// assert_eq!(end_of(&stored), None);
/// ```
pub fn latched(etag: &ETag, suffix: Option<&Suffix>) -> Option<ETag> {
    match suffix {
        None => Some(etag.clone()),
        Some(suffix) => ETag::new(&[etag.as_bytes(), b"-", suffix.as_bytes()].concat()),
    }
}

/// What an Envoy knows of a team's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose.
    pub team: Tenant,
    /// When it ends, or was to end.
    pub end: QuotaEnd,
    /// It is there no more: it ended, or was lifted before.
    pub gone: bool,
}

/// Key of a team's latch. `prefix` is that of the filter's own keys.
pub fn key(prefix: &str, team: Tenant) -> String {
    format!("{prefix}quota_end:{team}")
}

/// The command that brings the latches of teams up to date, for the Redis that holds their payloads. Takes the
/// first [`BATCH`] of `limits`. `grace` is how long after a limit was lifted some Envoy may still answer 402.
pub fn command(settings: &Definitions, prefix: &str, grace: Duration, limits: &[Limit]) -> Command {
    let limits = limits.get(..BATCH).unwrap_or(limits);
    let keys = limits.iter().map(|limit| key(prefix, limit.team));
    let mut arguments = vec![grace.as_millis().to_string()];
    for limit in limits {
        let state = if limit.gone { "gone" } else { "limited" };
        arguments.push(state.to_owned());
        arguments.push(limit.end.0.to_string());
        // Not among the keys: of those EVAL must be allowed to write each, and PostHog's are for reading only.
        arguments.push(etag_key(settings, limit.team));
    }
    Command::eval(&SCRIPT, keys, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_suffix_is_base_36_and_joins_with_a_hyphen() {
        let etag = ETag::new(b"ccbb299897f0a689").unwrap();
        let suffix = Suffix::new(b"t64vbk").unwrap();
        assert_eq!(
            latched(&etag, Some(&suffix)),
            ETag::new(b"ccbb299897f0a689-t64vbk")
        );
        assert_eq!(latched(&etag, None), Some(etag));
        for bad in [&b""[..], b"A", b"a-b", b"a\n", &[b'1'; 14]] {
            assert_eq!(Suffix::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tag_without_room_for_its_suffix_is_not_shown_without_it() {
        let etag = ETag::new(&[b'a'; 60]).unwrap();
        assert_eq!(latched(&etag, Suffix::new(b"t64vbk").as_ref()), None);
        assert_eq!(latched(&etag, None), Some(etag));
    }

    #[test]
    fn a_period_is_none_ahead_or_over() {
        let ahead = QuotaEnd::from_millis(1_763_728_123_456);
        let suffix = Suffix::new(b"t64vbk").unwrap();
        for (text, expected) in [
            (&b""[..], Some(QuotaPeriod::None)),
            (b"-1763728123456", Some(QuotaPeriod::Pending(ahead))),
            (b"t64vbk", Some(QuotaPeriod::Over(suffix))),
            (b"-", None),
            (b"--1", None),
            (b"-99999999999999999999", None),
            (b"A", None),
        ] {
            assert_eq!(QuotaPeriod::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_etag_tells_which_period_ended() {
        for (tag, expected) in [
            ("ccbb299897f0a689-t64vbk", Some(1_763_824_016)),
            ("ccbb299897f0a689", None),
            ("a-b-10", Some(36)),
            ("a-", None),
            ("a-B", None),
            ("a-zzzzzzzzzzzzz", None),
        ] {
            let etag = ETag::new(tag.as_bytes()).unwrap();
            assert_eq!(end_of(&etag), expected, "{tag}");
        }
    }

    #[test]
    fn an_end_is_bounded() {
        assert_eq!(QuotaEnd::from_millis(u64::MAX), QuotaEnd::NEVER);
        assert_eq!(QuotaEnd::from_millis(5).as_millis(), 5);
    }

    #[test]
    fn only_the_latches_are_keys_that_the_command_may_write() {
        let limit = |team, end, gone| Limit {
            team: Tenant(team),
            end: QuotaEnd::from_millis(end),
            gone,
        };
        let limits = [limit(7, 1_000, false), limit(8, 2_000, true)];
        let grace = Duration::from_secs(21);
        let command = command(&Definitions::default(), "fd:", grace, &limits);
        let words = command.words().into_iter();
        let parts: Vec<&str> = words
            .map(|word| std::str::from_utf8(word).unwrap())
            .collect();
        let etag = |team| etag_key(&Definitions::default(), Tenant(team));
        assert_eq!(parts[0], "EVAL");
        assert_eq!(
            parts[2..],
            [
                "2",
                "fd:quota_end:7",
                "fd:quota_end:8",
                "21000",
                "limited",
                "1000",
                &etag(7),
                "gone",
                "2000",
                &etag(8),
            ]
        );
    }

    #[test]
    fn a_command_is_bounded() {
        let limit = Limit {
            team: Tenant(1),
            end: QuotaEnd::NEVER,
            gone: false,
        };
        let limits = [limit; BATCH + 1];
        let command = command(&Definitions::default(), "", Duration::ZERO, &limits);
        assert_eq!(command.words().len(), 4 + 4 * BATCH);
    }
}
