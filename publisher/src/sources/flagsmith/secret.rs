//! Keys of Flagsmith. They are sent to Flagsmith alone, and never shown.

use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use reqwest::header::HeaderValue;

/// What the keys of servers begin with.
const SERVER_SIDE: &[u8] = b"ser.";

/// Longest key, in bytes. Flagsmith's have about 50.
const MAX_LENGTH: usize = 1_024;

/// A key: 1 to 1024 characters of visible ASCII. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlagsmithKey {
    header: HeaderValue,
    hash: Sha256Hash,
}

/// A text that is no key. Says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKey;

impl FlagsmithKey {
    /// Takes a key as it is written.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character that cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, NoKey> {
        let fits = (1..=MAX_LENGTH).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoKey);
        }
        let mut header = HeaderValue::from_str(text).map_err(|_| NoKey)?;
        header.set_sensitive(true);
        let hash = Sha256Hash::of(text.as_bytes());
        Ok(Self { header, hash })
    }

    /// Whether it is a server's, by its first characters.
    pub fn is_server_side(&self) -> bool {
        self.header.as_bytes().starts_with(SERVER_SIDE)
    }

    /// What its record is found by.
    pub const fn hash(&self) -> Sha256Hash {
        self.hash
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.header.as_bytes()
    }

    /// The key itself, for a header of a request to Flagsmith.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// The key itself, for a body to Flagsmith.
    pub(super) fn text(&self) -> &str {
        // Visible ASCII only, as `new` saw to.
        self.header.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for FlagsmithKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlagsmithKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii() {
        for (text, is_key, is_server_side) in [
            ("pub.client", true, false),
            ("ser.server", true, true),
            ("server", true, false),
            ("", false, false),
            ("a b", false, false),
            ("a\n", false, false),
            ("ä", false, false),
        ] {
            let key = FlagsmithKey::new(text);
            assert_eq!(key.is_ok(), is_key, "{text}");
            assert_eq!(key.is_ok_and(|key| key.is_server_side()), is_server_side);
        }
        assert!(FlagsmithKey::new(&"a".repeat(1_024)).is_ok());
        assert!(FlagsmithKey::new(&"a".repeat(1_025)).is_err());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = FlagsmithKey::new("ser.hunter2").unwrap();
        assert!(!format!("{key:?} {:?}", key.header()).contains("hunter2"));
        assert_eq!(key.text(), "ser.hunter2");
        assert_eq!(key.hash(), Sha256Hash::of(b"ser.hunter2"));
    }
}
