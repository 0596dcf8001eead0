//! Entity tags (RFC 9110 §8.8.3).

use std::fmt;
use std::sync::Arc;

use crate::hash::Sha256Hash;

/// Length of a computed entity tag.
const DIGITS: usize = 16;

/// The opaque part of an entity tag: 1 to 64 characters that need no escaping in a header.
/// Computed ones are 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(Arc<[u8]>);

impl ETag {
    /// Takes bytes that may stand between the quotes and in a Redis argument; `None` for anything else, so
    /// that a stored value can never break a header.
    ///
    /// ```
    /// use flag_definitions_filter::http::ETag;
    /// assert!(ETag::new(b"2f1c-t62t8g").is_some());
    /// assert_eq!(ETag::new(br#"a"b"#), None, "would end the header's quotes");
    /// assert_eq!(ETag::new(&[b'a'; 65]), None);
    /// ```
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=64).contains(&bytes.len());
        let plain = bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        (fits && plain).then(|| Self(bytes.into()))
    }

    /// The tag that is computed of a text: the first 16 hexadecimal digits of the SHA-256 of its stored
    /// text. Hashing takes longer than decompressing the text, so a stored tag is preferred.
    pub fn of_text(text: &[u8]) -> Self {
        Self::of_hash(Sha256Hash::of(text))
    }

    /// The same, of a text with this SHA-256.
    pub fn of_hash(hash: Sha256Hash) -> Self {
        Self(hash.digits().take(DIGITS).collect())
    }

    /// One of twice as many digits.
    pub fn long(hash: Sha256Hash) -> Self {
        Self(hash.digits().take(2 * DIGITS).collect())
    }

    /// The digits of a computed tag, without what may follow behind a hyphen; `None` for one of
    /// another form.
    ///
    /// ```
    /// use flag_definitions_filter::http::ETag;
    /// let computed = ETag::of_text(b"{}");
    /// assert_eq!(computed.digits(), Some(&b"44136fa355b3678a"[..]));
    /// let latched = ETag::new(b"44136fa355b3678a-t62t8g").unwrap();
    /// assert_eq!(latched.digits(), computed.digits());
    /// assert_eq!(ETag::new(b"v7").unwrap().digits(), None);
    /// ```
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
