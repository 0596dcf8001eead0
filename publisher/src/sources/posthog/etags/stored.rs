//! The ETag of a team as clients see it, from what Redis holds: `tag.lua` and `pair.lua` of the filter, for all teams
//! at once.

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::posthog::definitions::latch::{Suffix, latched};

/// Longest stored ETag; a longer one would leave no room for a suffix.
const MAX_BYTES: usize = 50;

/// The ETag that PostHog stored, pickled or plain; `None` for anything that the filter takes for absent.
pub fn stored(value: &[u8]) -> Option<ETag> {
    let text = match value {
        [128, .., 46] => pickled(value)?,
        [128, ..] => return None,
        plain => plain,
    };
    ETag::new(text).filter(|_| text.len() <= MAX_BYTES)
}

fn pickled(value: &[u8]) -> Option<&[u8]> {
    // Protocol, or protocol and frame.
    let header = if value.get(2) == Some(&149) { 11 } else { 2 };
    let (length, text) = match value.get(header..)? {
        [140, length, rest @ ..] => (usize::from(*length), rest),
        [88, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return None,
    };
    // At least one byte follows the string: the end of the pickle.
    (text.len() > length).then(|| text.get(..length))?
}

/// The ETag with the suffix that a quota period left, if that has ended by `now`, Unix milliseconds of the Redis
/// that holds both. `None` when there must be no ETag, as while the end lies ahead: then a 304 would leave clients
/// without flags that were told 402.
pub fn seen(value: &[u8], latch: &[u8], now: u64) -> Option<ETag> {
    let etag = stored(value)?;
    let Some((end, suffix, held)) = parse_latch(latch) else {
        return Some(etag);
    };
    if end > now as f64 {
        return None;
    }
    let holds = held.is_empty() || held == etag.as_bytes();
    if !holds {
        return Some(etag);
    }
    latched(&etag, Some(&suffix))
}

/// Most digits of an end that the filter's script takes for one.
const MAX_END_DIGITS: usize = 15;

/// End in milliseconds, suffix, ETag that is meant.
fn parse_latch(latch: &[u8]) -> Option<(f64, Suffix, &[u8])> {
    let mut parts = latch.splitn(3, |byte| *byte == b':');
    let (end, suffix, held) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = (1..=MAX_END_DIGITS).contains(&end.len());
    if !fits || !end.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let end = std::str::from_utf8(end).ok()?.parse().ok()?;
    Some((end, Suffix::new(suffix)?, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Option<ETag> {
        Some(ETag::new(text.as_bytes()).unwrap())
    }

    #[test]
    fn stored_etags_are_pickled_or_plain() {
        let pickle4 = b"\x80\x04\x95\x14\0\0\0\0\0\0\0\x8c\x10ccbb299897f0a689\x94.";
        let pickle3 = b"\x80\x03X\x03\0\0\0abcq\0.";
        assert_eq!(stored(pickle4), tag("ccbb299897f0a689"));
        assert_eq!(stored(pickle3), tag("abc"));
        assert_eq!(stored(b"ccbb299897f0a689"), tag("ccbb299897f0a689"));
        for bad in [
            &b""[..],
            b"a b",
            b"\x80\x04.",
            b"\x80\x03X\x09\0\0\0abc.",
            &[b'a'; 51],
            &pickle4[..20],
        ] {
            assert_eq!(stored(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn there_is_no_etag_before_the_end_and_a_suffix_after_it_for_its_etag_only() {
        for (latch, now, expected) in [
            ("", 9, tag("aa")),
            ("1000:zz:aa", 999, None),
            ("1000:zz:bb", 999, None),
            ("9999999999999999:zz:aa", 999, tag("aa")),
            ("1000:zz:aa", 1_000, tag("aa-zz")),
            ("1000:zz:bb", 1_000, tag("aa")),
            ("1000:zz:", 1_000, tag("aa-zz")),
            ("1000:zz", 1_000, tag("aa")),
            (":zz:aa", 1_000, tag("aa")),
            ("x:zz:aa", 1_000, tag("aa")),
            // As the filter's script has it: no suffix, so no latch.
            ("1000:ZZ:aa", 999, tag("aa")),
            ("1000:ZZ:aa", 1_000, tag("aa")),
            ("1000::aa", 999, tag("aa")),
            ("1000:1234567890123:aa", 1_000, tag("aa-1234567890123")),
            ("1000:12345678901234:aa", 999, tag("aa")),
            ("1000:12345678901234:aa", 1_000, tag("aa")),
        ] {
            assert_eq!(seen(b"aa", latch.as_bytes(), now), expected, "{latch}");
        }
        assert_eq!(seen(b"", b"1000:zz:", 1_000), None);
    }
}
