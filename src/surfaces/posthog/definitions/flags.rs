//! Which payloads count as usage, and which are payloads at all.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

use super::syntax::{
    Nesting, Open, first, skip_literal, skip_number, skip_separator, skip_string, skip_white_space,
};

/// Flags with these prefixes are made by PostHog itself for surveys and product tours.
const FREE: [&[u8]; 2] = [b"survey-targeting-", b"product-tour-targeting-"];

/// Whether a payload has at least one flag that its team made, so that handing it out counts as usage. `None` when it
/// is not one JSON object and nothing more (RFC 8259 §2); white space around it is JSON.
///
/// The text is read once, from end to end, and nothing is built of it. JSON has no bound on depth, and a level costs a
/// bit here: the length of the text is the only one. That strings are UTF-8 is for [`super::encoding`] to check.
///
/// ```
/// use flag_definitions_filter::surfaces::posthog::definitions::flags::is_billable;
/// let payload = br#"{"cohorts": {}, "flags": [{"id": 1, "key": "new-checkout"}]}"#;
/// assert_eq!(is_billable(payload), Some(true));
/// assert_eq!(is_billable(br#"{"flags": [{"key": "survey-targeting-88"}]}"#), Some(false));
/// assert_eq!(is_billable(br#"{"flags": [{"key": "cut-short"}"#), None);
/// ```
pub fn is_billable(text: &[u8]) -> Option<bool> {
    let mut nesting = Nesting::default();
    let mut flags = Flags::default();
    let mut rest = skip_white_space(text);
    if first(rest) != b'{' {
        return None;
    }
    // A name comes before the next value.
    let mut is_member = false;
    loop {
        if is_member {
            let name = Quoted::read(rest)?;
            flags.name(nesting.depth(), name);
            rest = skip_separator(name.behind, b':')?;
        }
        match first(rest) {
            b'"' => {
                let string = Quoted::read(rest)?;
                flags.string(nesting.depth(), string);
                rest = string.behind;
            }
            b'{' => {
                nesting.open(Open::Object);
                flags.open(nesting.depth(), Open::Object);
                rest = skip_white_space(rest.get(1..)?);
                is_member = first(rest) != b'}';
                if is_member {
                    continue;
                }
            }
            b'[' => {
                nesting.open(Open::List);
                flags.open(nesting.depth(), Open::List);
                rest = skip_white_space(rest.get(1..)?);
                is_member = false;
                if first(rest) != b']' {
                    continue;
                }
            }
            b'-' | b'0'..=b'9' => rest = skip_number(rest)?,
            _ => rest = skip_literal(rest)?,
        }
        // A value is behind us: ends, until another one comes.
        loop {
            let open = nesting.last()?;
            is_member = open == Open::Object;
            if let Some(next) = skip_separator(rest, b',') {
                rest = next;
                break;
            }
            rest = skip_white_space(rest);
            match (first(rest), open) {
                (b']', Open::List) | (b'}', Open::Object) => {
                    flags.close(nesting.depth());
                    nesting.close();
                    rest = rest.get(1..)?;
                    if nesting.depth() == 0 {
                        let whole = skip_white_space(rest).is_empty();
                        return whole.then_some(flags.found);
                    }
                }
                _ => return None,
            }
        }
    }
}

/// A string of the text.
#[derive(Clone, Copy)]
struct Quoted<'a> {
    /// From its quotation mark to the end of the text.
    begin: &'a [u8],
    /// What is left of the text behind it.
    behind: &'a [u8],
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// `None` where no string begins, or none ends.
    #[inline(always)]
    fn read(begin: &'a [u8]) -> Option<Self> {
        let [b'"', inside @ ..] = begin else {
            return None;
        };
        let (behind, escaped) = skip_string(inside)?;
        Some(Self {
            begin,
            behind,
            escaped,
        })
    }

    /// The answer to one question about what it says.
    #[inline(always)]
    fn says(self, question: impl Fn(&[u8]) -> bool) -> bool {
        let length = self.begin.len() - self.behind.len();
        match self.begin.get(..length).unwrap_or_default() {
            [b'"', plain @ .., b'"'] if !self.escaped => question(plain),
            quoted => says_escaped(quoted, &question),
        }
    }
}

/// How many brackets are open at the members of the payload, at its flags, and at the members of a flag.
const PAYLOAD: usize = 1;
const LIST: usize = 2;
const FLAG: usize = 3;

/// Where a scan is in `{"flags": [{"key": …}]}`.
#[derive(Debug, Default)]
struct Flags {
    /// The next value is that of a name which is looked for.
    named: bool,
    /// In the list of flags.
    inside: bool,
    /// The flag at hand is its team's own.
    own: bool,
    /// One that is was there.
    found: bool,
}

impl Flags {
    #[inline(always)]
    fn name(&mut self, depth: usize, name: Quoted<'_>) {
        self.named = match depth {
            PAYLOAD => name.says(|name| name == b"flags"),
            FLAG if self.inside => name.says(|name| name == b"key"),
            _ => return,
        };
    }

    #[inline(always)]
    fn string(&mut self, depth: usize, text: Quoted<'_>) {
        if self.named && self.inside && depth == FLAG {
            self.own = text.says(is_own);
        }
    }

    #[inline(always)]
    fn open(&mut self, depth: usize, open: Open) {
        self.inside |= self.named && depth == LIST && open == Open::List;
        self.named = false;
    }

    #[inline(always)]
    fn close(&mut self, depth: usize) {
        match depth {
            FLAG => self.found |= std::mem::take(&mut self.own),
            LIST => self.inside = false,
            _ => {}
        }
    }
}

fn is_own(key: &[u8]) -> bool {
    !FREE.iter().any(|prefix| key.starts_with(prefix))
}

// Rare, and no small code: once in the module.
#[cold]
fn says_escaped(quoted: &[u8], question: &dyn Fn(&[u8]) -> bool) -> bool {
    // As bytes: half of a surrogate pair in a key is not worth an error.
    let mut json = serde_json::Deserializer::from_slice(quoted);
    json.deserialize_bytes(Question(question)).unwrap_or(false)
}

struct Question<'q>(&'q dyn Fn(&[u8]) -> bool);

impl Visitor<'_> for Question<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<bool, E> {
        Ok((self.0)(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn one_flag_of_the_teams_own_makes_a_payload_billable() {
        for (text, billable) in [
            (r#"{"flags": []}"#, false),
            (r#"{}"#, false),
            (r#"{"flags": [{"key": "a"}]}"#, true),
            (r#"{"flags": [{"key": ""}]}"#, true),
            (r#"{"flags": [{"key": "survey-targeting-1"}]}"#, false),
            (r#"{"flags": [{"key": "product-tour-targeting-1"}]}"#, false),
            (
                r#"{"flags": [{"key": "survey-targeting-"}, {"key": "product-tour-targeting-x"}]}"#,
                false,
            ),
            (
                r#"{"flags": [{"key": "survey-targeting-1"}, {"id": 2, "key": "b"}]}"#,
                true,
            ),
            // A prefix is case-sensitive, whole, and at the start.
            (r#"{"flags": [{"key": "Survey-targeting-1"}]}"#, true),
            (r#"{"flags": [{"key": "survey-targeting"}]}"#, true),
            (r#"{"flags": [{"key": "my-survey-targeting-1"}]}"#, true),
            (r#"{"flags": [{"key": "product-tour-1"}]}"#, true),
            // Escapes are read.
            (r#"{"flags": [{"key": "\u0073urvey-targeting-1"}]}"#, false),
            (r#"{"fl\u0061gs": [{"k\u0065y": "a\ud800"}]}"#, true),
        ] {
            assert_eq!(is_billable(text.as_bytes()), Some(billable), "{text}");
        }
    }

    #[test]
    fn only_the_key_of_a_flag_counts() {
        for text in [
            r#"{"cohorts": {"1": {"flags": [{"key": "a"}]}}, "flags": []}"#,
            r#"{"flags": [{"filters": {"key": "a"}, "name": "b"}]}"#,
            r#"{"flags": [{"filters": [{"key": "a"}], "key": "survey-targeting-1"}]}"#,
            r#"{"name": "\"flags\": [{\"key\": \"a\"}]", "flags": [{"key": "survey-targeting-1"}]}"#,
            r#"{"flags": {"key": "a"}}"#,
            r#"{"flags": [{"key": null}]}"#,
            r#"{"flags": [{"key": ["a"]}, {"key": {"key": "a"}}]}"#,
            r#"{"flags": [["a"], "a", 1]}"#,
            r#"{"flags": [["key", "a"], [{"key": "a"}]]}"#,
            r#"{"flags": null}"#,
            r#"{"flags": "key"}"#,
            r#"{"flags": 1, "others": [{"key": "a"}]}"#,
        ] {
            assert_eq!(is_billable(text.as_bytes()), Some(false), "{text}");
        }
    }

    #[test]
    fn white_space_around_and_between_is_json() {
        let blanks = " \t\r\n";
        for text in [
            "{}".to_owned(),
            format!("{blanks}{{{blanks}}}{blanks}"),
            format!(
                r#"{blanks}{{{blanks}"a"{blanks}:{blanks}[{blanks}1{blanks},{blanks}[{blanks}]{blanks}]{blanks}}}"#
            ),
        ] {
            assert_eq!(is_billable(text.as_bytes()), Some(false), "{text:?}");
        }
        let text = format!(
            r#"{blanks}{{{blanks}"flags"{blanks}:{blanks}[{blanks}{{{blanks}"key"{blanks}:{blanks}"a"{blanks}}}]}}"#
        );
        assert_eq!(is_billable(text.as_bytes()), Some(true), "{text:?}");
    }

    #[test]
    fn what_is_not_one_object_is_no_payload() {
        for text in [
            "",
            " ",
            "null",
            "[]",
            "[{}]",
            r#"[{"flags": [{"key": "a"}]}]"#,
            "\u{feff}{}",
            "\u{b}{}",
            "\u{a0}{}",
            "{nope",
            "{}{}",
            "{},",
            "{} x",
            "{}\0",
            "\0{}",
            r#"{"flags": [{"key": "a"}, nonsense"#,
            r#"{"flags": [{"key": "a"}]}}"#,
            r#"{"flags": [{"key": "a"}]"#,
            r#"{"flags": [nonsense, {"key": "a"}]}"#,
            r#"{"flags": [{"key": "a"]}"#,
            r#"{"flags": [{"key": "a"}}"#,
            r#"{"a" 1}"#,
            r#"{"a": 1,}"#,
            r#"{,"a": 1}"#,
            r#"{"a": [1,]}"#,
            r#"{"a": [,1]}"#,
            r#"{"a": [1 2]}"#,
            r#"{"a": 1 "b": 2}"#,
            r#"{a: 1}"#,
            r#"{'a': 1}"#,
            r#"{1: 1}"#,
            r#"{"a": }"#,
            r#"{"a":: 1}"#,
            r#"{"a": 01}"#,
            r#"{"a": NaN}"#,
            r#"{"a": Infinity}"#,
            r#"{"a": truefalse}"#,
            r#"{"a": tru}"#,
            "{\"a\": \"\n\"}",
            r#"{"a": "\x"}"#,
            r#"{"a": 1} // why"#,
        ] {
            assert_eq!(is_billable(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(is_billable(b"\xff{"), None);
    }

    #[test]
    fn a_payload_that_is_cut_short_is_none_wherever_it_is_cut() {
        let text = r#" {"cohorts": {"88": {"a": [1.5e-3, true, null, "\u00e9"]}}, "flags": [{"key": "a"}]}"#;
        assert_eq!(is_billable(text.as_bytes()), Some(true));
        for end in 0..text.len() {
            assert_eq!(
                is_billable(&text.as_bytes()[..end]),
                None,
                "{}",
                &text[..end]
            );
        }
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep = ["[".repeat(1_000_000), "]".repeat(1_000_000)].concat();
        let text = format!(r#"{{"cohorts": {deep}, "flags": [{{"key": "a"}}]}}"#);
        assert_eq!(is_billable(text.as_bytes()), Some(true));
        let unended = format!(r#"{{"flags": [{}"#, r#"{"a":["#.repeat(300_000));
        assert_eq!(is_billable(unended.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn it_takes_what_another_reader_takes(
            text in r#"[ \n]?\{("a":)?[\[\]{}":,\\aune01\-.+ \n]{0,40}\}?"#, before in any::<bool>(),
        ) {
            let text = if before { format!(r#"{{"flags":[{{"key":{text}"#) } else { text };
            let whole = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_billable(text.as_bytes()).is_some(), whole, "{}", text);
        }

        #[test]
        fn it_takes_any_document_and_none_that_is_damaged(
            keys in prop::collection::vec("[a-z\"é\n]{0,12}", 1..5), numbers in prop::collection::vec(any::<f64>(), 0..4),
            pretty in any::<bool>(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let value = serde_json::json!({"flags": [{"key": keys}], "numbers": numbers, "keys": keys});
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
            let mut text = text.unwrap();
            prop_assert_eq!(is_billable(&text), Some(false));
            let place = place.index(text.len());
            text[place] = byte;
            // What is not UTF-8 comes here never.
            if std::str::from_utf8(&text).is_ok() {
                let whole = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
                let object = text.first() == Some(&b'{') || text.trim_ascii_start().first() == Some(&b'{');
                prop_assert_eq!(is_billable(&text).is_some(), whole && object);
            }
        }

        #[test]
        fn it_agrees_with_a_reader_of_whole_documents(
            keys in prop::collection::vec("(survey-targeting-|product-tour-targeting-|)[a-z\"é]{0,3}", 0..5),
        ) {
            let flags: Vec<_> = keys.iter().map(|key| serde_json::json!({"active": true, "key": key})).collect();
            let text = serde_json::json!({"cohorts": {"key": "x"}, "flags": flags}).to_string();
            let own = |key: &String| {
                !key.starts_with("survey-targeting-") && !key.starts_with("product-tour-targeting-")
            };
            prop_assert_eq!(is_billable(text.as_bytes()), Some(keys.iter().any(own)));
        }
    }
}
