//! What the script that reads the list answers.

use super::{Clock, MAX_MEMBERS, QuotaEnd};
use crate::hash::Sha256Hash;
use crate::redis::{Command, Reply, Script};
use crate::time::Monotonic;

/// PostHog's list: a sorted set, member = a team's API token, score = Unix seconds until which it is limited.
const KEY: &str = "@posthog/quota-limits/feature_flag_requests";

/// Answers `quota`, Redis' time in seconds and microseconds, and one string with all members whose score lies
/// ahead, those that end first in front: `<length>:<member><score>\n` each. One string, because an array of
/// all of them is more than a reply of webdis is read for. Longer members than any token are left out.
static SCRIPT: Script = Script::new(include_str!("read.lua"));

/// The command that reads the list.
pub fn command() -> Command {
    let most = MAX_MEMBERS.to_string();
    Command::eval_ro(&SCRIPT, [KEY], [most])
}

/// The list as read.
#[derive(Debug, PartialEq, Eq)]
pub struct Scores {
    pub clock: Clock,
    pub members: Vec<(Sha256Hash, QuotaEnd)>,
}

impl Scores {
    /// Reads the script's reply. A member whose score is no time is left out; `None` when it is not that
    /// script's reply.
    pub fn of(reply: &Reply<'_>, asked_at: Monotonic) -> Option<Self> {
        let [b"quota", seconds, micros, packed] = *reply.strings()? else {
            return None;
        };
        let mut members = Vec::new();
        let mut rest = packed;
        while !rest.is_empty() && members.len() < MAX_MEMBERS {
            let (member, score) = entry(&mut rest)?;
            if let Some(end) = end(score) {
                members.push((Sha256Hash::of(member), end));
            }
        }
        Some(Self {
            clock: clock(seconds, micros, asked_at)?,
            members,
        })
    }
}

/// The reply of Redis' `TIME`.
pub fn clock(seconds: &[u8], micros: &[u8], asked_at: Monotonic) -> Option<Clock> {
    let number = |digits| -> Option<u64> { std::str::from_utf8(digits).ok()?.parse().ok() };
    let millis = number(seconds)?.checked_mul(1_000)?;
    Some(Clock {
        asked_at,
        millis: millis.checked_add(number(micros)? / 1_000)?,
    })
}

fn entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let (length, tail) = rest.split_at_checked(colon)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let (member, tail) = tail.get(1..)?.split_at_checked(length)?;
    let line = tail.iter().position(|byte| *byte == b'\n')?;
    let (score, tail) = tail.split_at_checked(line)?;
    *rest = tail.get(1..)?;
    Some((member, score))
}

/// A score as Redis prints it: a decimal, with an exponent or `inf`. A part of a millisecond is dropped.
fn end(score: &[u8]) -> Option<QuotaEnd> {
    let seconds: f64 = std::str::from_utf8(score).ok()?.parse().ok()?;
    // The cast saturates, and an end that large is one that never comes.
    (seconds > 0.0).then(|| QuotaEnd::from_millis((seconds * 1_000.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn scores(packed: &[u8]) -> Option<Scores> {
        let parts = vec![&b"quota"[..], b"1763728123", b"456789", packed];
        Scores::of(&Reply::array(parts), Monotonic::from_millis(9))
    }

    #[test]
    fn scores_in_every_form_that_redis_prints() {
        for (score, expected) in [
            ("1763728123", Some(1_763_728_123_000)),
            ("1763728123.5", Some(1_763_728_123_500)),
            ("1763728123.4567001", Some(1_763_728_123_456)),
            ("1.7637281230000001e+09", Some(1_763_728_123_000)),
            ("inf", Some(QuotaEnd::NEVER.as_millis())),
            ("1e+300", Some(QuotaEnd::NEVER.as_millis())),
            ("-inf", None),
            ("nan", None),
            ("-5", None),
            ("0", None),
            ("soon", None),
            ("", None),
        ] {
            let end = end(score.as_bytes()).map(QuotaEnd::as_millis);
            assert_eq!(end, expected, "{score}");
        }
    }

    #[test]
    fn members_may_hold_any_bytes_and_garbage_scores_are_left_out() {
        let list = scores(b"5:phc_a1763728200\n4:a\n:b1763728201\n1:xsoon\n").unwrap();
        assert_eq!(list.clock.millis, 1_763_728_123_456);
        assert_eq!(list.clock.asked_at, Monotonic::from_millis(9));
        let member = |text: &[u8], end| (Sha256Hash::of(text), QuotaEnd::from_millis(end));
        assert_eq!(
            list.members,
            [
                member(b"phc_a", 1_763_728_200_000),
                member(b"a\n:b", 1_763_728_201_000)
            ]
        );
        assert_eq!(scores(b"").unwrap().members, []);
    }

    #[test]
    fn another_reply_is_not_the_list() {
        for packed in [&b"5:phc"[..], b"9999999999999:a", b":a1\n", b"1:a5", b"x"] {
            assert_eq!(scores(packed), None, "{packed:?}");
        }
        let of = |reply| Scores::of(&reply, Monotonic::default());
        assert_eq!(of(Reply::Nil), None);
        assert_eq!(of(Reply::array([&b"latch"[..], b"1", b"2", b""])), None);
        assert_eq!(of(Reply::array([&b"quota"[..], b"x", b"2", b""])), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = scores(&bytes);
        }
    }
}
