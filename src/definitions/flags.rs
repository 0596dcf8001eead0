//! Which payloads count as usage.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Flags with these prefixes are made by PostHog itself for surveys and product tours.
const FREE: [&[u8]; 2] = [b"survey-targeting-", b"product-tour-targeting-"];

/// Whether a payload has at least one flag that its team made, so that handing it out counts as usage.
///
/// The text is read up to the first such flag and nothing is built of it. In a text that is not JSON, or not
/// shaped as expected, what was found before counts: nobody is billed for what could not be read.
///
/// ```
/// use flag_definitions_filter::definitions::flags::is_billable;
/// assert!(is_billable(br#"{"cohorts": {}, "flags": [{"id": 1, "key": "new-checkout"}]}"#));
/// assert!(!is_billable(br#"{"flags": [{"key": "survey-targeting-88"}]}"#));
/// ```
pub fn is_billable(text: &[u8]) -> bool {
    let mut found = false;
    let mut json = serde_json::Deserializer::from_slice(text);
    // The error carries nothing: it is also how reading stops early.
    let _ = json.deserialize_map(Payload(&mut found));
    found
}

/// The whole text: `{"flags": […], …}`.
struct Payload<'f>(&'f mut bool);

impl<'de> Visitor<'de> for Payload<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_flags) = map.next_key_seed(Text(|name| name == b"flags"))? {
            if is_flags {
                map.next_value_seed(Flags(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The value of `flags`.
struct Flags<'f>(&'f mut bool);

impl<'de> DeserializeSeed<'de> for Flags<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Flags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of flags")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut flags: A) -> Result<(), A::Error> {
        while let Some(is_billable) = flags.next_element_seed(Flag)? {
            if is_billable {
                *self.0 = true;
                return Err(A::Error::custom("found"));
            }
        }
        Ok(())
    }
}

/// One flag: whether it is a team's own.
struct Flag;

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a flag")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut flag: A) -> Result<bool, A::Error> {
        let mut is_billable = false;
        while let Some(is_key) = flag.next_key_seed(Text(|name| name == b"key"))? {
            if is_key {
                is_billable = flag.next_value_seed(Text(is_own))?;
            } else {
                flag.next_value::<IgnoredAny>()?;
            }
        }
        Ok(is_billable)
    }
}

fn is_own(key: &[u8]) -> bool {
    !FREE.iter().any(|prefix| key.starts_with(prefix))
}

/// A string, reduced to the answer to one question about it.
struct Text(fn(&[u8]) -> bool);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        // As bytes: half of a surrogate pair in a key is not worth an error.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Text {
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
            assert_eq!(is_billable(text.as_bytes()), billable, "{text}");
        }
    }

    #[test]
    fn only_the_key_of_a_flag_counts() {
        for text in [
            r#"{"cohorts": {"1": {"flags": [{"key": "a"}]}}, "flags": []}"#,
            r#"{"flags": [{"filters": {"key": "a"}, "name": "b"}]}"#,
            r#"{"flags": [{"filters": [{"key": "a"}], "key": "survey-targeting-1"}]}"#,
            r#"{"name": "\"flags\": [{\"key\": \"a\"}]", "flags": [{"key": "survey-targeting-1"}]}"#,
            r#"[{"flags": [{"key": "a"}]}]"#,
            r#"{"flags": {"key": "a"}}"#,
            r#"{"flags": [{"key": null}]}"#,
            r#"{"flags": null}"#,
        ] {
            assert!(!is_billable(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_was_found_before_the_text_breaks_counts() {
        assert!(is_billable(br#"{"flags": [{"key": "a"}, nonsense"#));
        assert!(!is_billable(br#"{"flags": [nonsense, {"key": "a"}"#));
        assert!(!is_billable(b""));
        assert!(!is_billable(b"\xff{"));
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep = ["[".repeat(1_000_000), "]".repeat(1_000_000)].concat();
        let text = format!(r#"{{"cohorts": {deep}, "flags": [{{"key": "a"}}]}}"#);
        assert!(is_billable(text.as_bytes()));
        let unended = format!(r#"{{"flags": [{}"#, r#"{"a":["#.repeat(300_000));
        assert!(!is_billable(unended.as_bytes()));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in r#"[\[\]{}":,\\a0]{0,60}"#, before in any::<bool>()) {
            let text = if before { format!(r#"{{"flags":[{{"key":{text}"#) } else { text };
            let _ = is_billable(text.as_bytes());
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
            prop_assert_eq!(is_billable(text.as_bytes()), keys.iter().any(own));
        }
    }
}
