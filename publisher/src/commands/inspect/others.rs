//! What the snapshot holds of other surfaces than PostHog's: how many records of each kind.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::redis::published::RecordMap;
use crate::sources::kinds::{Belonging, KindNames, Meaning, RecordOwner, belonging};

/// Number of records of each kind, by surface. Surfaces without records are left out.
#[derive(Debug, Default)]
pub struct Others(BTreeMap<RecordOwner, Vec<(KindNames, u64)>>);

/// How versions are called, which no surface names among its kinds.
const VERSIONS: KindNames = KindNames {
    manifest: "versions",
    label: "version",
    words: "documents",
};

impl Others {
    /// Counts.
    pub fn of(records: &RecordMap) -> Self {
        let mut counted: BTreeMap<RecordOwner, Vec<(KindNames, u64)>> = BTreeMap::new();
        let mut tenants = BTreeMap::new();
        for record in records.values() {
            let Belonging::Surface(owner, kind, meaning) = belonging(record) else {
                continue;
            };
            if owner == RecordOwner::of_sources() {
                continue;
            }
            let counts = counted.entry(owner).or_insert_with(|| {
                let kinds = owner.kinds().iter();
                kinds.chain([&VERSIONS]).map(|kind| (*kind, 0)).collect()
            });
            if let Some((_, count)) = counts.get_mut(kind) {
                *count += 1;
            }
            if let Meaning::Reader(tenant) = meaning {
                tenants.insert((owner, tenant), ());
            }
        }
        for (owner, tenant) in tenants.into_keys() {
            let has_version = records.contains_key(&owner.version_hash(tenant));
            let counts = counted.get_mut(&owner).and_then(|counts| counts.last_mut());
            if let Some((_, count)) = counts {
                *count += u64::from(has_version);
            }
        }
        Self(counted)
    }

    /// Whether there are no records of other surfaces.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Others {
    /// An object for each surface, by kind.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let by_kind = |counts: &[(KindNames, u64)]| -> BTreeMap<&str, u64> {
            counts
                .iter()
                .map(|(kind, count)| (kind.manifest, *count))
                .collect()
        };
        serializer.collect_map(
            self.0
                .iter()
                .map(|(owner, counts)| (owner.name(), by_kind(counts))),
        )
    }
}

impl fmt::Display for Others {
    /// A line for each surface, after what is said before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (owner, counts) in &self.0 {
            let counts = counts.iter();
            let words: Vec<String> = counts
                .map(|(kind, count)| format!("{count} {}", kind.words))
                .collect();
            write!(f, "\n{}: {}", owner.name(), words.join(", "))?;
        }
        Ok(())
    }
}
