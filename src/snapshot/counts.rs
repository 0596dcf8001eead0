//! How many records a snapshot holds, by kind.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How versions ([`crate::records::VERSION`]) are called in every snapshot. All other names are the surface's.
pub const VERSIONS: &str = "etags";

/// Number of records by kind, in the order in which the publisher wrote them: an object in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindCounts(Vec<(String, u64)>);

impl KindCounts {
    /// These numbers of these kinds.
    pub fn new<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let counts = counts.into_iter();
        Self(
            counts
                .map(|(kind, count)| (kind.to_owned(), count))
                .collect(),
        )
    }

    /// Number of records of a kind; 0 of one that is not there.
    pub fn of(&self, kind: &str) -> u64 {
        let found = self.0.iter().find(|(name, _)| name == kind);
        found.map_or(0, |(_, count)| *count)
    }

    /// Number of records that tell of a hash of their own: all but versions, which tell of a tenant. Saturates.
    ///
    /// ```
    /// use flag_definitions_filter::snapshot::counts::{KindCounts, VERSIONS};
    /// let counts = KindCounts::new([("owners", 3), (VERSIONS, 2), ("keys", 4)]);
    /// assert_eq!((counts.of("owners"), counts.of("unheard of")), (3, 0));
    /// assert_eq!(counts.hashes(), 7, "a version belongs to a tenant");
    /// ```
    pub fn hashes(&self) -> u64 {
        let own = self.0.iter().filter(|(kind, _)| kind != VERSIONS);
        own.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

impl Serialize for KindCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(kind, count)| (kind, count)))
    }
}

impl<'de> Deserialize<'de> for KindCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Counted)
    }
}

struct Counted;

impl<'de> Visitor<'de> for Counted {
    type Value = KindCounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers of records by kind")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KindCounts, A::Error> {
        let mut counts = Vec::new();
        while let Some(entry) = map.next_entry()? {
            counts.push(entry);
        }
        Ok(KindCounts(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn kinds_keep_their_order_in_json() {
        let json = r#"{"owners":3,"keys":2,"etags":1}"#;
        let counts: KindCounts = serde_json::from_str(json).unwrap();
        assert_eq!(
            counts,
            KindCounts::new([("owners", 3), ("keys", 2), ("etags", 1)])
        );
        assert_eq!(serde_json::to_string(&counts).unwrap(), json);
        assert_eq!((counts.of("keys"), counts.of("others")), (2, 0));
        for wrong in ["[]", r#"{"keys":-1}"#, r#"{"keys":"2"}"#] {
            assert!(serde_json::from_str::<KindCounts>(wrong).is_err());
        }
    }

    #[test]
    fn versions_have_no_hash_of_their_own() {
        let counts = KindCounts::new([("owners", 3), (VERSIONS, 9), ("keys", 2)]);
        assert_eq!(counts.hashes(), 5);
        let most = KindCounts::new([("owners", u64::MAX), ("keys", 2)]);
        assert_eq!(most.hashes(), u64::MAX);
    }
}
