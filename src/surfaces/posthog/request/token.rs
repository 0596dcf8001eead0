//! The project token: which team's definitions are asked for.
//!
//! It is public (web pages carry it), so its text may be kept; still it is shown nowhere.

use std::borrow::Cow;
use std::fmt;

use crate::hash::{Hashed, MAX_SECRET, Sha256Hash};
use crate::http::query::{decode, owned, split_at_byte};

/// The project token of the query, or of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// The request names none.
    Absent,
    /// A token that can be known.
    Named(ProjectToken<'a>),
    /// A token that is longer than any: unknown without looking.
    Oversized,
    /// Two `token` parameters: whose definitions are asked for cannot be told.
    Repeated,
}

/// A project token of at most 200 bytes. Its text is kept where it is plausible ([`Hashed`]), and `Debug` does not
/// show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProjectToken<'a> {
    hash: Sha256Hash,
    text: Option<Cow<'a, [u8]>>,
}

impl<'a> ProjectToken<'a> {
    /// Takes a token's text.
    pub fn of(text: &'a [u8]) -> Self {
        Self::new(Cow::Borrowed(text), Hashed::of(text))
    }

    fn new(text: Cow<'a, [u8]>, hashed: Hashed) -> Self {
        Self {
            hash: hashed.hash,
            text: hashed.plausible.then_some(text),
        }
    }

    /// The same, kept beyond its request.
    pub fn into_owned(self) -> ProjectToken<'static> {
        ProjectToken {
            hash: self.hash,
            text: self.text.map(owned),
        }
    }

    /// What its record is found by.
    pub const fn hash(&self) -> &Sha256Hash {
        &self.hash
    }

    /// Its text; `None` when it is none that may be looked up outside the snapshot.
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(self.text.as_deref()?).ok()
    }
}

impl fmt::Debug for ProjectToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectToken").field(&self.hash).finish()
    }
}

impl<'a> Token<'a> {
    /// Reads the `token` parameter of a query (WHATWG URL §5.1, `application/x-www-form-urlencoded`).
    pub(super) fn of_query(query: &'a [u8], hash: &mut impl FnMut(&[u8]) -> Hashed) -> Self {
        let mut token = Self::Absent;
        for pair in query.split(|byte| *byte == b'&') {
            let (name, value) = split_at_byte(pair, b'=');
            // Few names have an escape in them, and none needs one.
            let named = name == b"token" || (name.contains(&b'%') && *decode(name) == *b"token");
            if !named {
                continue;
            }
            if token != Self::Absent {
                return Self::Repeated;
            }
            // An escape takes three bytes, so what is longer than this is oversized once decoded, too.
            token = if value.len() > 3 * MAX_SECRET {
                Self::Oversized
            } else {
                Self::of(decode(value), hash)
            };
        }
        token
    }

    /// Reads the token's header. An empty one names no team: unlike `token=`, nobody sends it on purpose.
    pub(super) fn of_header(value: &'a [u8], hash: &mut impl FnMut(&[u8]) -> Hashed) -> Self {
        match value.trim_ascii() {
            b"" => Self::Absent,
            value => Self::of(Cow::Borrowed(value), hash),
        }
    }

    /// Bytes that keeping it costs, beyond its own size.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Named(token) => token.text.as_ref().map_or(0, |text| text.len()),
            Self::Absent | Self::Oversized | Self::Repeated => 0,
        }
    }

    /// The same, kept beyond its request.
    pub(super) fn into_owned(self) -> Token<'static> {
        match self {
            Self::Absent => Token::Absent,
            Self::Named(token) => Token::Named(token.into_owned()),
            Self::Oversized => Token::Oversized,
            Self::Repeated => Token::Repeated,
        }
    }

    fn of(text: Cow<'a, [u8]>, hash: &mut impl FnMut(&[u8]) -> Hashed) -> Self {
        if text.len() > MAX_SECRET {
            return Self::Oversized;
        }
        let hashed = hash(&text);
        Self::Named(ProjectToken::new(text, hashed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn token(query: &str) -> Token<'_> {
        Token::of_query(query.as_bytes(), &mut Hashed::of)
    }

    fn named(text: &str) -> Token<'_> {
        Token::Named(ProjectToken::of(text.as_bytes()))
    }

    #[test]
    fn tokens() {
        for (query, expected) in [
            ("", Token::Absent),
            ("send_cohorts", Token::Absent),
            ("Token=x", Token::Absent),
            ("token=phc_a&send_cohorts", named("phc_a")),
            ("send_cohorts=true&token=phc_a", named("phc_a")),
            ("token=", named("")),
            ("token", named("")),
            ("token=a%62c", named("abc")),
            ("tok%65n=abc", named("abc")),
            ("token=a+b", named("a b")),
            ("token=%", named("%")),
            ("token=%zz", named("%zz")),
            ("token=%e", named("%e")),
            ("token=a=b", named("a=b")),
            ("token=a?b", named("a?b")),
            ("token=a&token=a", Token::Repeated),
            ("token=a&x&token=b", Token::Repeated),
        ] {
            assert_eq!(token(query), expected, "{query}");
        }
        assert_eq!(
            token(&format!("token={}", "a".repeat(50_000))),
            Token::Oversized
        );
        assert_eq!(
            token(&format!("token={}", "a".repeat(201))),
            Token::Oversized
        );
        assert_eq!(
            token(&format!("token={}", "%61".repeat(200))),
            named(&"a".repeat(200))
        );
    }

    #[test]
    fn only_letters_digits_underscores_and_hyphens_are_plausible() {
        let longest = "a".repeat(200);
        for text in ["a", "phc_Az09-_", &longest] {
            assert!(Hashed::of(text.as_bytes()).plausible, "{text}");
            assert_eq!(ProjectToken::of(text.as_bytes()).text(), Some(text));
        }
        let too_long = "a".repeat(201);
        for text in [
            "", " ", "a b", "a/b", "a:b", "a.b", "a\0", "a\n", "é", "*", &too_long,
        ] {
            assert!(!Hashed::of(text.as_bytes()).plausible, "{text:?}");
            assert_eq!(ProjectToken::of(text.as_bytes()).text(), None);
        }
    }

    #[test]
    fn a_token_does_not_show_its_text() {
        let shown = format!("{:?}", named("phc_public"));
        assert!(!shown.contains("phc_public"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_token_is_found_however_it_is_escaped(text in "[ -~]{1,40}", escape in any::<u64>()) {
            let query: String = text
                .bytes()
                .enumerate()
                .map(|(index, byte)| {
                    let plain = byte.is_ascii_alphanumeric() && escape >> (index % 64) & 1 == 0;
                    if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
                })
                .collect();
            let query = format!("token={query}");
            prop_assert_eq!(token(&query), named(&text));
        }
    }
}
