//! Entity tags and `If-None-Match` (RFC 9110 §8.8.3, §13.1.2).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::directory::Sha256Hash;

/// Length of PostHog's ETags.
const DIGITS: usize = 16;

/// The opaque part of an entity tag: 1 to 64 characters that need no escaping in a header.
/// PostHog's are 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(Arc<[u8]>);

impl ETag {
    /// Takes bytes that may stand between the quotes and in a Redis argument; `None` for anything else, so
    /// that a stored value can never break a header.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=64).contains(&bytes.len());
        let plain = bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        (fits && plain).then(|| Self(bytes.into()))
    }

    /// What PostHog stores beside a payload: the first 16 hexadecimal digits of the SHA-256 of its stored
    /// text. Hashing takes longer than decompressing the text, so a stored tag is preferred.
    pub fn of_text(text: &[u8]) -> Self {
        Self::of_hash(Sha256Hash::of(text))
    }

    /// The same, of a text with this SHA-256.
    pub fn of_hash(hash: Sha256Hash) -> Self {
        let digits = hash.to_hex();
        Self(digits.as_bytes().get(..DIGITS).unwrap_or_default().into())
    }

    /// The digits that PostHog's ETag has of its text, without a suffix ([`super::latch`]); `None` for one of
    /// another form.
    pub fn digits(&self) -> Option<&[u8]> {
        let digits = self.0.split(|byte| *byte == b'-').next()?;
        let hexadecimal = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == DIGITS && digits.iter().all(hexadecimal)).then_some(digits)
    }

    /// The opaque part.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({})", String::from_utf8_lossy(&self.0))
    }
}

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
    /// like a quoted one, as PostHog's service has it.
    pub fn matches(&self, current: &ETag) -> bool {
        self.tags().any(|tag| tag == b"*" || *tag == *current.0)
    }

    /// The tag whose match would spare reading the payload: the first that can be one of ours, or `*`.
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
                    // A quote that is never closed ends with the field, as for PostHog's trimming.
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
    fn the_tag_of_a_text_is_posthogs() {
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

        #[test]
        fn what_we_send_comes_back_as_a_match(text in "[A-Za-z0-9._-]{1,64}", weak in any::<bool>()) {
            let tag = tag(&text);
            let mut list = IfNoneMatch::default();
            let cors = crate::request::Cors::default();
            let reply = crate::reply::Reply::not_modified(tag.clone(), &cors);
            let headers = reply.headers();
            let mut fields = headers.iter().flatten();
            let sent = fields.find(|(name, _)| *name == "etag").unwrap().1.concat();
            list.add(if weak { &sent } else { &sent[2..] });
            prop_assert!(list.matches(&tag));
            prop_assert_eq!(list.candidate(), Some(Candidate::Tag(tag)));
        }
    }
}
