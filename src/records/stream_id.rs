//! Redis stream ids order everything that is written.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};

/// A Redis stream id, `<milliseconds>-<sequence>`: as of when something is true.
///
/// ```
/// use flag_definitions_filter::records::StreamId;
/// let id = |text: &str| text.parse::<StreamId>().unwrap();
/// assert!(id("9-5") < id("10-0"), "by number, not by text");
/// assert_eq!(id("9-5").next(), id("9-6"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// Unix milliseconds of the Redis server's clock.
    pub millis: u64,
    /// Order within the millisecond.
    pub sequence: u64,
}

impl StreamId {
    /// The next one that there can be; saturates.
    pub const fn next(self) -> Self {
        Self {
            millis: self.millis,
            sequence: self.sequence.saturating_add(1),
        }
    }

    /// The id that is `millis` older; saturates at zero.
    pub const fn minus_millis(self, millis: u64) -> Self {
        Self {
            millis: self.millis.saturating_sub(millis),
            sequence: 0,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// Text that is not `<milliseconds>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStreamId;

impl fmt::Display for InvalidStreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a stream id, expected <milliseconds>-<sequence>")
    }
}

impl std::error::Error for InvalidStreamId {}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, InvalidStreamId> {
        let (millis, sequence) = text.split_once('-').ok_or(InvalidStreamId)?;
        Ok(Self {
            millis: millis.parse().map_err(|_| InvalidStreamId)?,
            sequence: sequence.parse().map_err(|_| InvalidStreamId)?,
        })
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn ids_are_ordered_by_time_then_sequence() {
        let id = |text: &str| text.parse::<StreamId>().unwrap();
        assert!(id("9-9") < id("10-0") && id("10-0") < id("10-1"));
        assert_eq!(id("10-1").to_string(), "10-1");
        for bad in ["", "1", "-", "1-", "-1", "a-b", "1-2-3"] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad}");
        }
    }
}
