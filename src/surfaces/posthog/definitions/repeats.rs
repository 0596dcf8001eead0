//! What the flags of a list say alike, so that it is read once.
//!
//! Most flags have the same members in the same order, and most of those the same values as in the flag before. Where a
//! member begins, a reader of JSON knows no more than which brackets are open, and those are the same for the members of
//! all flags. So where the text goes on as it did at the same member of the flag before, it is whole up to each place
//! where another member began there: it need not be read again, only compared, eight bytes at a time.

use super::syntax::skip_white_space;

/// Most members of a flag that are remembered; PostHog writes 13.
const MOST: usize = 32;

/// Where the members of the flag at hand begin, and those of the flag before.
pub struct Repeats<'a> {
    text: &'a [u8],
    members: [Members; 2],
    /// Which of the two is of the flag at hand: to say so is cheaper than to move them.
    odd: bool,
}

#[derive(Clone, Copy, Default)]
struct Members {
    /// How much of the text is left where each of them begins.
    left: [usize; MOST],
    count: usize,
    /// A bit for each whose value counts.
    counting: u32,
}

impl Members {
    #[inline(always)]
    fn push(&mut self, left: usize) {
        if let Some(member) = self.left.get_mut(self.count) {
            *member = left;
            self.count += 1;
        }
    }
}

impl<'a> Repeats<'a> {
    /// Of a text that nothing was read of yet.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            members: [Members::default(); 2],
            odd: false,
        }
    }

    /// Of the flag at hand, and of the flag before.
    #[inline(always)]
    fn both(&mut self) -> (&mut Members, &Members) {
        let [even, odd] = &mut self.members;
        match self.odd {
            true => (odd, even),
            false => (even, odd),
        }
    }

    /// A member of a flag begins. Returns the rest from where a member begins that is to be read: mostly a later one.
    #[inline(never)]
    pub fn skip(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let text = self.text;
        let (here, before) = self.both();
        let number = here.count;
        here.push(rest.len());
        let members = before.left.get(..before.count).unwrap_or_default();
        let Some([left, next @ .., last]) = members.get(number..) else {
            return rest;
        };
        // A value that counts is looked at in each flag.
        let mut counting = before.counting >> number;
        if counting & 1 != 0 {
            return rest;
        }
        // A word more than there is use for.
        let before = text.get(text.len() - left..).unwrap_or_default();
        let before = before.get(..left - last + 8).unwrap_or(before);
        let same = common(before, rest);
        let mut skipped = 0;
        for next in next.iter().chain([last]) {
            let length = left - next;
            if counting & 1 != 0 || length > same {
                break;
            }
            skipped = length;
            here.push(rest.len() - length);
            counting >>= 1;
        }
        // What follows may be more of the white space that ended there.
        skip_white_space(rest.get(skipped..).unwrap_or_default())
    }

    /// The value of the member at hand counts.
    #[inline(always)]
    pub fn counts(&mut self) {
        let (here, _) = self.both();
        here.counting |= 1 << here.count.saturating_sub(1);
    }

    /// The flag at hand ends.
    #[inline(always)]
    pub fn end(&mut self) {
        self.odd = !self.odd;
        let (here, _) = self.both();
        here.count = 0;
        here.counting = 0;
    }
}

/// How long the beginning is that two texts share, at least: less than eight bytes at an end are not looked at.
#[inline(always)]
fn common(one: &[u8], other: &[u8]) -> usize {
    // What is the same is long for the most part.
    let blocks = words::<32>(one).zip(words::<32>(other));
    let same = 32
        * blocks
            .take_while(|(one, other)| differing(*one, *other) == 0)
            .count();
    let rest = |text| words::<8>(<[u8]>::get(text, same..).unwrap_or_default());
    let mut more = 0;
    for (one, other) in rest(one).zip(rest(other)) {
        let differing = differing(one, other);
        if differing != 0 {
            more += (differing.trailing_zeros() / 8) as usize;
            break;
        }
        more += 8;
    }
    same + more
}

fn words<const N: usize>(text: &[u8]) -> impl Iterator<Item = &[u8; N]> {
    text.as_chunks().0.iter()
}

/// The bits in which any words differ.
#[inline(always)]
fn differing(one: &[u8], other: &[u8]) -> u64 {
    let words = words::<8>(one).zip(words::<8>(other));
    words.fold(0, |all, (one, other)| {
        all | (u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other))
    })
}

#[cfg(test)]
mod tests {
    use super::super::flags::is_billable;
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// What a reader of whole documents says of a list of flags.
    fn expected(text: &[u8]) -> Option<bool> {
        let value: serde_json::Value = serde_json::from_slice(text).ok()?;
        let flags = value.as_object()?.get("flags")?.as_array()?;
        let own = |flag: &serde_json::Value| {
            let key = flag.get("key").and_then(serde_json::Value::as_str);
            key.is_some_and(|key| !key.starts_with("survey-targeting-"))
        };
        Some(flags.iter().any(own))
    }

    #[test]
    fn members_that_say_the_same_are_skipped_up_to_where_they_differ() {
        let first = r#""a": true, "b": [1, {"c": 2}], "id": 1, "z": null"#;
        let second = r#""a": true, "b": [1, {"c": 2}], "id": 2, "z": null"#;
        let text = format!("{first}{second}");
        let (begin, again) = text.as_bytes().split_at(first.len());
        let mut repeats = Repeats::new(text.as_bytes());
        for name in ["\"a", "\"b", "\"id", "\"z"] {
            let rest = &text.as_bytes()[first.find(name).unwrap()..];
            assert_eq!(repeats.skip(rest), rest);
        }
        assert!(begin.starts_with(b"\"a"));
        repeats.end();
        assert!(repeats.skip(again).starts_with(b"\"id\": 2"));
    }

    #[test]
    fn more_members_than_are_remembered_are_read() {
        let members: Vec<_> = (0..2 * MOST).map(|n| format!(r#""m{n}": {n}"#)).collect();
        let flag = format!(r#"{{{}, "key": "a"}}"#, members.join(", "));
        let text = format!(r#"{{"flags": [{flag}, {flag}, {flag}]}}"#);
        assert_eq!(is_billable(text.as_bytes()), Some(true));
        let damaged = text.replacen(r#""m60": 60}"#, "", 1);
        let cut = damaged.trim_end_matches("]}");
        assert_eq!(is_billable(cut.as_bytes()), None);
    }

    #[test]
    fn each_flag_has_its_own_key_also_where_another_had_the_same() {
        for (keys, billable) in [
            (["survey-targeting-1", "survey-targeting-1"], false),
            (["survey-targeting-1", "own"], true),
            (["own", "survey-targeting-1"], true),
        ] {
            // The last of two keys counts.
            let flag = |key| {
                format!(
                    r#"{{"a": 1, "b": 2, "key": "survey-targeting-0", "c": 3, "key": "{key}", "d": 4}}"#
                )
            };
            let flags = keys.map(flag).join(", ");
            let text = format!(r#"{{"flags": [{flags}]}}"#);
            assert_eq!(is_billable(text.as_bytes()), Some(billable), "{text}");
        }
        let text = r#"{"flags": [{"a": 1, "key": "x", "key": null}, {"a": 1, "key": "survey-targeting-1"}]}"#;
        assert_eq!(is_billable(text.as_bytes()), Some(true));
    }

    proptest! {
        #[test]
        fn flags_that_repeat_each_other_are_read_like_any_others(
            flags in prop::collection::vec(prop::collection::vec(0..7_usize, 0..8), 1..6),
            blanks in prop::collection::vec(0..20_usize, 0..3), damage in prop::option::of((any::<prop::sample::Index>(), 0..8_usize)),
        ) {
            const MEMBERS: [&str; 7] = [
                r#""active": true"#,
                r#""key": "survey-targeting-1""#,
                r#""key": "mine""#,
                r#""filters": {"groups": [{"properties": [], "key": "a"}]}"#,
                r#""a name of some length": "and a text that is longer than a word or two""#,
                r#""id": 12"#,
                r#""id": 123"#,
            ];
            let flags: Vec<_> = flags.iter().enumerate().map(|(number, flag)| {
                // Some have more white space than others.
                let separator = if blanks.contains(&number) { " ,  \n" } else { ", " };
                let members: Vec<_> = flag.iter().map(|member| MEMBERS[*member]).collect();
                format!("{{{}}}", members.join(separator))
            }).collect();
            let mut text = format!(r#"{{"flags": [{}]}}"#, flags.join(", ")).into_bytes();
            if let Some((place, with)) = damage {
                let place = place.index(text.len());
                text[place] = b" \"{}[]:,"[with];
            }
            let is_read = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_billable(&text).is_some(), is_read, "{}", String::from_utf8_lossy(&text));
            if damage.is_none() {
                prop_assert_eq!(is_billable(&text), expected(&text), "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn what_two_texts_share_is_never_overestimated(
            shared in prop::collection::vec(any::<u8>(), 0..100), one in prop::collection::vec(any::<u8>(), 0..40),
            other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let texts = [[&shared[..], &one].concat(), [&shared[..], &other].concat()];
            let exactly = texts[0].iter().zip(&texts[1]).take_while(|(one, other)| one == other).count();
            let found = common(&texts[0], &texts[1]);
            let shorter = texts[0].len().min(texts[1].len());
            prop_assert!(found <= exactly && found >= exactly.min(shorter - shorter % 8), "{found} of {exactly}");
        }
    }
}
