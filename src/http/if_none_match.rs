//! `If-None-Match` (RFC 9110 §13.1.2).

use std::borrow::Cow;

use super::ETag;

/// The validators of a request: all of its `If-None-Match` fields, as one list (RFC 9110 §5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IfNoneMatch<'a>(Option<Cow<'a, [u8]>>);

impl<'a> IfNoneMatch<'a> {
    /// Adds one header field.
    pub fn add(&mut self, value: &'a [u8]) {
        match &mut self.0 {
            None => self.0 = Some(Cow::Borrowed(value)),
            Some(list) => {
                let list = list.to_mut();
                list.extend_from_slice(b", ");
                list.extend_from_slice(value);
            }
        }
    }

    /// Whether the request is conditional.
    pub fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// Length of all fields, in bytes.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.len())
    }

    /// Whether they are absent or empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same, kept beyond its request.
    pub fn into_owned(self) -> IfNoneMatch<'static> {
        IfNoneMatch(self.0.map(|list| Cow::Owned(list.into_owned())))
    }

    /// Weak comparison with the current entity tag. `*` matches any. Beyond the RFC, a bare value matches
    /// like a quoted one: services that compare one trimmed value have it so.
    ///
    /// ```
    /// use flag_definitions_filter::http::{ETag, IfNoneMatch};
    /// let current = ETag::new(b"abc").unwrap();
    /// for (field, matches) in [(r#""old", W/"abc""#, true), ("*", true), ("abc", true), (r#""ABC""#, false)] {
    ///     let mut held = IfNoneMatch::default();
    ///     held.add(field.as_bytes());
    ///     assert_eq!(held.matches(&current), matches, "{field}");
    /// }
    /// ```
    pub fn matches(&self, current: &ETag) -> bool {
        self.tags()
            .any(|tag| tag == b"*" || *tag == *current.as_bytes())
    }

    /// The same without `*`, which is about a representation that there is: before that is known, only a tag counts.
    pub fn names(&self, current: &ETag) -> bool {
        self.tags().any(|tag| *tag == *current.as_bytes())
    }

    /// The tag whose match would spare reading the payload: the first that can be one of ours, or `*`.
    ///
    /// ```
    /// use flag_definitions_filter::http::{Candidate, ETag, IfNoneMatch};
    /// let mut held = IfNoneMatch::default();
    /// held.add(br#""not ours: blanks", W/"abc""#);
    /// assert_eq!(held.candidate(), ETag::new(b"abc").map(Candidate::Tag));
    /// ```
    pub fn candidate(&self) -> Option<Candidate> {
        self.tags().find_map(|tag| match tag {
            b"*" => Some(Candidate::Any),
            tag => ETag::new(tag).map(Candidate::Tag),
        })
    }

    fn tags(&self) -> Tags<'_> {
        Tags(self.0.as_deref().unwrap_or_default())
    }
}

/// What a client holds, for the Redis side to compare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Candidate {
    /// `*`.
    Any,
    /// One entity tag.
    Tag(ETag),
}

/// The opaque parts of a list of entity tags, one after the other. A comma inside quotes is part of its tag.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while let [b' ' | b'\t' | b',', rest @ ..] = self.0 {
                self.0 = rest;
            }
            if self.0.is_empty() {
                return None;
            }
            let unprefixed = match self.0 {
                [b'W', b'/', rest @ ..] if rest.starts_with(b"\"") => rest,
                rest => rest,
            };
            let tag = match unprefixed {
                [b'"', rest @ ..] => {
                    let end = rest.iter().position(|byte| *byte == b'"');
                    // A quote that is never closed ends with the field, as if it were trimmed.
                    let (tag, rest) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
                    // Up to the next comma nothing more belongs to this tag.
                    let next = rest.iter().position(|byte| *byte == b',');
                    self.0 = next.and_then(|next| rest.get(next..)).unwrap_or_default();
                    tag
                }
                bare => {
                    let end = bare.iter().position(|byte| *byte == b',');
                    let (tag, rest) = bare.split_at_checked(end.unwrap_or(bare.len()))?;
                    self.0 = rest;
                    tag.trim_ascii().trim_suffix_quote()
                }
            };
            if !tag.is_empty() {
                return Some(tag);
            }
        }
    }
}

trait TrimQuote {
    fn trim_suffix_quote(&self) -> &[u8];
}

impl TrimQuote for [u8] {
    fn trim_suffix_quote(&self) -> &[u8] {
        self.strip_suffix(b"\"").unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn validators<'a>(fields: &[&'a str]) -> IfNoneMatch<'a> {
        let mut list = IfNoneMatch::default();
        for field in fields {
            list.add(field.as_bytes());
        }
        list
    }

    fn tag(text: &str) -> ETag {
        ETag::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn weak_comparison_with_lists_and_bare_values() {
        let current = tag("abc123");
        for (field, matches) in [
            (r#"W/"abc123""#, true),
            (r#""abc123""#, true),
            ("abc123", true),
            ("  abc123\t", true),
            (r#"  W/"abc123"  "#, true),
            ("*", true),
            (r#""x", W/"abc123", "y""#, true),
            (r#""x",,,"abc123""#, true),
            (r#""x,abc123""#, false),
            (r#""x, abc123", "y""#, false),
            ("x, abc123", true),
            (r#"w/"abc123""#, false),
            (r#"W/ "abc123""#, false),
            (r#""ABC123""#, false),
            (r#""abc1234""#, false),
            (r#""""#, false),
            ("", false),
            (",", false),
            (r#""abc123"#, true),
            (r#"abc123""#, true),
            (r#""abc123"x"#, true),
        ] {
            assert_eq!(validators(&[field]).matches(&current), matches, "{field}");
        }
    }

    #[test]
    fn repeated_fields_are_one_list() {
        let list = validators(&[r#""x""#, r#"W/"y""#]);
        assert!(list.matches(&tag("x")) && list.matches(&tag("y")) && !list.matches(&tag("z")));
        assert!(list.names(&tag("x")) && !list.names(&tag("z")));
        assert!(!validators(&["*"]).names(&tag("x")) && validators(&["*, x"]).names(&tag("x")));
        assert!(!validators(&[]).is_present() && validators(&[""]).is_present());
    }

    #[test]
    fn a_tag_found_in_2500_entries() {
        let mut field: String = (0..2_499).map(|n| format!("\"{n}\", ")).collect();
        field.push_str("W/\"last\"");
        assert!(validators(&[&field]).matches(&tag("last")));
        assert!(!validators(&[&field]).matches(&tag("nope")));
    }

    #[test]
    fn the_candidate_is_the_first_possible_tag() {
        let candidate = |field: &str| validators(&[field]).candidate();
        assert_eq!(candidate(r#""a b", W/"c""#), Some(Candidate::Tag(tag("c"))));
        assert_eq!(candidate("*"), Some(Candidate::Any));
        assert_eq!(candidate(r#""é""#), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn a_stored_value_that_would_break_a_header_is_no_etag() {
        for bad in [
            "",
            "a\r\nset-cookie: x",
            "a\"b",
            "a b",
            "é",
            &"a".repeat(65),
        ] {
            assert_eq!(ETag::new(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_tag_of_a_text_is_computed_from_its_hash() {
        for (text, expected) in [
            (r#"{"flags":[]}"#, "ccbb299897f0a689"),
            (
                r#"{"cohorts": {}, "flags": [], "group_type_mapping": {}}"#,
                "f3268f0150b30bf3",
            ),
        ] {
            assert_eq!(ETag::of_text(text.as_bytes()), tag(expected));
        }
        // A text of several pieces, from Python's hashlib.
        assert_eq!(ETag::of_text(&[b' '; 10_000]), tag("7c99bc050d0856d0"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_end_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut list = IfNoneMatch::default();
            list.add(&bytes);
            prop_assert!(list.tags().count() <= bytes.len());
            let _ = list.candidate();
        }
    }
}
