//! The project token: which team's definitions are asked for.
//!
//! It is public (web pages carry it), so its text may be kept; still it is shown nowhere.

use std::borrow::Cow;
use std::fmt;

use super::split_at_byte;
use crate::directory::Sha256Hash;

/// Longest token or credential that is looked up, in bytes; PostHog's have about 50.
const MAX_SECRET: usize = 200;

/// Whether a token or credential may be looked up outside the snapshot: 1 to 200 characters of
/// `A-Z a-z 0-9 _ -`. PostHog hands out no others, and these cannot leave their place in a Redis key.
pub fn is_plausible(text: &[u8]) -> bool {
    (1..=MAX_SECRET).contains(&text.len())
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The project token of the query, or of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The request names none.
    Absent,
    /// A token that can be known.
    Named(ProjectToken),
    /// A token that is longer than any: unknown without looking.
    Oversized,
    /// Two `token` parameters: whose definitions are asked for cannot be told.
    Repeated,
}

/// A project token of at most 200 bytes. Its text is kept where it is plausible ([`is_plausible`]), and
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProjectToken {
    hash: Sha256Hash,
    text: Option<Box<str>>,
}

impl ProjectToken {
    /// Takes a token's text.
    pub fn of(text: &[u8]) -> Self {
        Self::with_hash(text, Sha256Hash::of(text))
    }

    fn with_hash(text: &[u8], hash: Sha256Hash) -> Self {
        let plausible = is_plausible(text);
        let kept = plausible.then(|| str::from_utf8(text).ok()).flatten();
        Self {
            hash,
            text: kept.map(Into::into),
        }
    }

    /// What its record is found by.
    pub const fn hash(&self) -> &Sha256Hash {
        &self.hash
    }

    /// Its text; `None` when it is none that may be looked up outside the snapshot.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

impl fmt::Debug for ProjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectToken").field(&self.hash).finish()
    }
}

impl Token {
    /// Reads the `token` parameter of a query (WHATWG URL §5.1, `application/x-www-form-urlencoded`).
    pub(super) fn of_query(query: &[u8], hash: &mut impl FnMut(&[u8]) -> Sha256Hash) -> Self {
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
                Self::of(&decode(value), hash)
            };
        }
        token
    }

    /// Reads the token's header. An empty one names no team: unlike `token=`, nobody sends it on purpose.
    pub(super) fn of_header(value: &[u8], hash: &mut impl FnMut(&[u8]) -> Sha256Hash) -> Self {
        match value.trim_ascii() {
            b"" => Self::Absent,
            value => Self::of(value, hash),
        }
    }

    /// Bytes that keeping it costs, beyond its own size.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Named(token) => token.text().map_or(0, str::len),
            Self::Absent | Self::Oversized | Self::Repeated => 0,
        }
    }

    fn of(text: &[u8], hash: &mut impl FnMut(&[u8]) -> Sha256Hash) -> Self {
        if text.len() > MAX_SECRET {
            Self::Oversized
        } else {
            Self::Named(ProjectToken::with_hash(text, hash(text)))
        }
    }
}

/// Percent-decodes; `+` is a blank, and an incomplete escape stands for itself.
fn decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return Cow::Owned(out),
            [b'+', tail @ ..] => {
                out.push(b' ');
                tail
            }
            [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn token(query: &str) -> Token {
        Token::of_query(query.as_bytes(), &mut Sha256Hash::of)
    }

    fn named(text: &str) -> Token {
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
            assert!(is_plausible(text.as_bytes()), "{text}");
            assert_eq!(ProjectToken::of(text.as_bytes()).text(), Some(text));
        }
        let too_long = "a".repeat(201);
        for text in [
            "", " ", "a b", "a/b", "a:b", "a.b", "a\0", "a\n", "é", "*", &too_long,
        ] {
            assert!(!is_plausible(text.as_bytes()), "{text:?}");
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
            prop_assert_eq!(token(&format!("token={query}")), named(&text));
        }
    }
}
