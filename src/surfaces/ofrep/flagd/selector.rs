//! Which flags a request is about: the header `Flagd-Selector`.

use std::fmt;

use super::value::{JsonValue, write_object};

/// Longest selector, in bytes.
pub const MAX_SELECTOR: usize = 256;

/// What a request selects. The same selection is always the same value, whatever its spelling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All flags.
    All,
    /// The flags of this set; of the empty name those of no set.
    FlagSet(String),
    /// The flags of this source.
    Source(String),
}

/// A selector that is refused: status 400, `GENERAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSelector {
    /// Its key is neither `flagSetId` nor `source`, and this.
    Key(String),
    /// It is longer than [`MAX_SELECTOR`], or no UTF-8.
    Unreadable,
}

impl Selector {
    /// Reads the header's value; a request without the header has the empty one.
    ///
    /// # Errors
    /// A key that flagd does not know, see [`BadSelector`].
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::ofrep::flagd::{BadSelector, Selector};
    /// assert_eq!(Selector::parse(b"flagSetId=a,source=b"), Ok(Selector::FlagSet("a,source=b".into())));
    /// assert_eq!(Selector::parse(b"shop.json"), Ok(Selector::Source("shop.json".into())));
    /// assert_eq!(Selector::parse(b"flagsetid=a"), Err(BadSelector::Key("flagsetid".into())));
    /// ```
    pub fn parse(header: &[u8]) -> Result<Self, BadSelector> {
        let text = std::str::from_utf8(header).map_err(|_| BadSelector::Unreadable)?;
        if text.len() > MAX_SELECTOR {
            return Err(BadSelector::Unreadable);
        }
        match text.split_once('=') {
            None if text.is_empty() => Ok(Self::All),
            None => Ok(Self::Source(text.to_owned())),
            Some(("flagSetId", id)) => Ok(Self::FlagSet(id.to_owned())),
            Some(("source", source)) => Ok(Self::Source(source.to_owned())),
            Some((key, _)) => Err(BadSelector::Key(key.to_owned())),
        }
    }

    /// The member of metadata that shows it; `None` for all flags, and for those of no set.
    pub fn reflected(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::FlagSet(id) if !id.is_empty() => Some(("flagSetId", id)),
            Self::Source(source) if !source.is_empty() => Some(("source", source)),
            _ => None,
        }
    }

    /// Its one spelling, such as `source=shop.json`; empty for all flags.
    pub fn text(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::FlagSet(id) => format!("flagSetId={id}"),
            Self::Source(source) => format!("source={source}"),
        }
    }

    /// Writes the metadata of an answer as a whole.
    pub(super) fn write_metadata(&self, out: &mut Vec<u8>) {
        let member = self.reflected().into_iter();
        let member = member.map(|(name, value)| (name, JsonValue::text(value)));
        write_object(member, out, |value, out| value.write(out));
    }
}

impl fmt::Display for BadSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(
                f,
                "invalid selector: invalid selector key {key:?}, valid keys: \"flagSetId\", \"source\""
            ),
            Self::Unreadable => {
                write!(
                    f,
                    "invalid selector: longer than {MAX_SELECTOR} bytes, or no UTF-8"
                )
            }
        }
    }
}

impl std::error::Error for BadSelector {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn selectors_are_read_as_flagd_reads_them() {
        let set = |id: &str| Ok(Selector::FlagSet(id.to_owned()));
        let source = |name: &str| Ok(Selector::Source(name.to_owned()));
        let key = |key: &str| Err(BadSelector::Key(key.to_owned()));
        for (header, expected, reflected) in [
            ("", Ok(Selector::All), None),
            ("flagSetId=a", set("a"), Some(("flagSetId", "a"))),
            ("flagSetId=a=b", set("a=b"), Some(("flagSetId", "a=b"))),
            ("flagSetId=", set(""), None),
            ("source=a", source("a"), Some(("source", "a"))),
            ("a", source("a"), Some(("source", "a"))),
            ("source=", source(""), None),
            ("team=x", key("team"), None),
            ("=x", key(""), None),
            ("key=x", key("key"), None),
            ("flagsetid=x", key("flagsetid"), None),
        ] {
            let parsed = Selector::parse(header.as_bytes());
            assert_eq!(parsed, expected, "{header}");
            if let Ok(selector) = parsed {
                assert_eq!(selector.reflected(), reflected);
                assert_eq!(Selector::parse(selector.text().as_bytes()), Ok(selector));
            }
        }
    }

    #[test]
    fn selectors_are_bounded() {
        assert!(Selector::parse(&[b'a'; MAX_SELECTOR]).is_ok());
        for refused in [&[b'a'; MAX_SELECTOR + 1][..], b"\xff"] {
            assert_eq!(Selector::parse(refused), Err(BadSelector::Unreadable));
        }
    }
}
