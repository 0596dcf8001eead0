//! What is published: every record that a filter which followed has, of all surfaces, versions among them.

use std::collections::btree_map::Range;
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::ops::Bound;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::snapshot::counts::{KindCounts, VERSIONS};
use flag_definitions_filter::tenant::Tenant;

use crate::redis::published::RecordMap;
use crate::sources::kinds::{Belonging, Meaning, RecordOwner, belonging};

/// A change of one record; `None` removes it.
pub type RecordChange = (Sha256Hash, Option<Box<[u8]>>);

/// How versions are called as the value of a label.
const VERSION_LABEL: &str = "etag";

static NONE: RecordMap = RecordMap::new();

/// The published records. Each surface's are kept apart, as they come from sources of their own, and so are versions.
#[derive(Debug, Default)]
pub struct PublishedState {
    surfaces: BTreeMap<RecordOwner, Part>,
    versions: RecordMap,
    /// Goes up whenever a tenant comes or goes.
    tenants_revision: u64,
}

/// The records of one surface.
#[derive(Debug, Default)]
struct Part {
    records: RecordMap,
    /// How many records name a tenant.
    readers: BTreeMap<Tenant, u32>,
    /// By the place of the kind.
    counts: Vec<u64>,
    credentials: u64,
    later_credentials: u64,
}

impl PublishedState {
    /// What these records make; versions among them or not.
    pub fn of(records: RecordMap) -> Self {
        let mut state = Self::default();
        for (hash, record) in records {
            state.put((hash, Some(record)));
        }
        state
    }

    /// The records that a [`crate::sources::Source`] reads.
    pub fn records(&self) -> &RecordMap {
        self.records_of(RecordOwner::of_sources())
    }

    /// The records of a surface, without versions.
    pub fn records_of(&self, owner: RecordOwner) -> &RecordMap {
        self.surfaces
            .get(&owner)
            .map_or(&NONE, |part| &part.records)
    }

    /// A copy of what no [`crate::sources::Source`] reads: the other surfaces' records, and their tenants' versions.
    pub fn of_others(&self) -> Self {
        let mut copy = Self::default();
        for (owner, part) in &self.surfaces {
            if *owner == RecordOwner::of_sources() {
                continue;
            }
            let versions = part
                .readers
                .keys()
                .filter_map(|tenant| self.versions.get_key_value(&owner.version_hash(*tenant)));
            for (hash, record) in part.records.iter().chain(versions) {
                copy.put((*hash, Some(record.clone())));
            }
        }
        copy
    }

    /// The record of a hash, of any kind.
    pub fn get(&self, hash: &Sha256Hash) -> Option<&[u8]> {
        let mut parts = self.surfaces.values();
        let found = parts.find_map(|part| part.records.get(hash));
        found.or_else(|| self.versions.get(hash)).map(AsRef::as_ref)
    }

    /// Whether another surface has a record of this hash. It is not to be touched.
    pub fn is_of_another(&self, owner: RecordOwner, hash: &Sha256Hash) -> bool {
        let mut others = self.surfaces.iter().filter(|(other, _)| **other != owner);
        others.any(|(_, part)| part.records.contains_key(hash))
    }

    /// Makes a change, and returns what was there before.
    pub fn put(&mut self, (hash, record): RecordChange) -> Option<Box<[u8]>> {
        let before = self.take(&hash);
        let Some(record) = record else {
            return before;
        };
        match belonging(&record) {
            Belonging::Nobody => (),
            Belonging::Version => drop(self.versions.insert(hash, record)),
            Belonging::Surface(owner, kind, meaning) => {
                let part = self.surfaces.entry(owner).or_default();
                part.records.insert(hash, record);
                let came = part.count(kind, meaning, true);
                self.tenants_revision += u64::from(came);
            }
        }
        before
    }

    fn take(&mut self, hash: &Sha256Hash) -> Option<Box<[u8]>> {
        for part in self.surfaces.values_mut() {
            let Some(before) = part.records.remove(hash) else {
                continue;
            };
            if let Belonging::Surface(_, kind, meaning) = belonging(&before) {
                let went = part.count(kind, meaning, false);
                self.tenants_revision += u64::from(went);
            }
            return Some(before);
        }
        self.versions.remove(hash)
    }

    /// Whether a change is one of a version.
    pub fn is_version(&self, hash: &Sha256Hash, record: Option<&[u8]>) -> bool {
        match record {
            Some(record) => belonging(record) == Belonging::Version,
            None => self.versions.contains_key(hash),
        }
    }

    /// Number of records by kind, as a manifest tells them. Most kinds only where there are some.
    pub fn counts(&self) -> KindCounts {
        let mut counts = Vec::new();
        for owner in RecordOwner::all() {
            let is_first = owner == RecordOwner::of_sources();
            for (place, kind) in owner.kinds().iter().enumerate() {
                let count = self.count(owner, place);
                if place < owner.always_told() || count > 0 {
                    counts.push((kind.manifest, count));
                }
            }
            if is_first {
                counts.push((VERSIONS, self.versions.len() as u64));
            }
        }
        KindCounts::new(counts)
    }

    /// Number of records of every kind, by its label.
    pub fn labelled_counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts = Vec::new();
        for owner in RecordOwner::all() {
            let kinds = owner.kinds().iter().enumerate();
            counts.extend(kinds.map(|(place, kind)| (kind.label, self.count(owner, place))));
            if owner == RecordOwner::of_sources() {
                counts.push((VERSION_LABEL, self.versions.len() as u64));
            }
        }
        counts
    }

    fn count(&self, owner: RecordOwner, place: usize) -> u64 {
        let part = self.surfaces.get(&owner);
        part.and_then(|part| part.counts.get(place))
            .copied()
            .unwrap_or(0)
    }

    /// Number of a surface's credentials.
    pub fn credentials(&self, owner: RecordOwner) -> u64 {
        let part = self.surfaces.get(&owner);
        part.map_or(0, |part| part.credentials)
    }

    /// Those of them that come from a table which an older database may lack.
    pub fn later_credentials(&self, owner: RecordOwner) -> u64 {
        let part = self.surfaces.get(&owner);
        part.map_or(0, |part| part.later_credentials)
    }

    /// A surface's tenants, in order.
    pub fn tenants(&self, owner: RecordOwner) -> impl Iterator<Item = Tenant> {
        let part = self.surfaces.get(&owner).into_iter();
        part.flat_map(|part| part.readers.keys().copied())
    }

    /// How many records name the tenant.
    pub fn readers(&self, owner: RecordOwner, tenant: Tenant) -> u32 {
        let part = self.surfaces.get(&owner);
        part.and_then(|part| part.readers.get(&tenant))
            .copied()
            .unwrap_or(0)
    }

    /// Another number whenever a tenant came or went.
    pub fn tenants_revision(&self) -> u64 {
        self.tenants_revision
    }

    /// Whether a record names the tenant.
    pub fn has_tenant(&self, owner: RecordOwner, tenant: Tenant) -> bool {
        self.readers(owner, tenant) > 0
    }

    /// Versions that are nobody's, in hash order: their tenants are no longer there, or of a surface that has no documents here
    /// and whose versions nobody watches (`are_watched`). Those in `spared` stay.
    pub fn orphaned_versions(
        &self,
        are_watched: bool,
        spared: &HashSet<Sha256Hash>,
    ) -> Vec<Sha256Hash> {
        let counted = |owner: &RecordOwner| are_watched || owner.has_documents();
        let owners = self.surfaces.keys().copied().filter(counted);
        let known: HashSet<Sha256Hash> = owners
            .flat_map(|owner| {
                self.tenants(owner)
                    .map(move |tenant| owner.version_hash(tenant))
            })
            .collect();
        let hashes = self.versions.keys().copied();
        hashes
            .filter(|hash| !known.contains(hash) && !spared.contains(hash))
            .collect()
    }

    /// All records after a hash, in hash order.
    pub fn after(&self, last: Option<Sha256Hash>) -> InOrder<'_> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let maps = self.surfaces.values().map(|part| &part.records);
        let maps = maps.chain([&self.versions]);
        InOrder(maps.map(|map| map.range(range).peekable()).collect())
    }

    /// Bytes of all records and their hashes.
    pub fn bytes(&self) -> usize {
        self.after(None).map(|(_, record)| record.len() + 34).sum()
    }
}

impl Part {
    /// Counts a record that came or went; whether its tenant did, too.
    fn count(&mut self, kind: usize, meaning: Meaning, more: bool) -> bool {
        let count = |number: &mut u64| {
            *number = if more {
                *number + 1
            } else {
                number.saturating_sub(1)
            };
        };
        if self.counts.len() <= kind {
            self.counts.resize(kind + 1, 0);
        }
        if let Some(number) = self.counts.get_mut(kind) {
            count(number);
        }
        match meaning {
            Meaning::Credential => count(&mut self.credentials),
            Meaning::LaterCredential => {
                count(&mut self.credentials);
                count(&mut self.later_credentials);
            }
            Meaning::Other => (),
            Meaning::Reader(tenant) => return self.count_reader(tenant, more),
        }
        false
    }

    fn count_reader(&mut self, tenant: Tenant, more: bool) -> bool {
        let readers = self.readers.entry(tenant).or_default();
        *readers = if more {
            *readers + 1
        } else {
            readers.saturating_sub(1)
        };
        match *readers {
            0 => {
                self.readers.remove(&tenant);
                true
            }
            readers => more && readers == 1,
        }
    }
}

/// Several maps as one, in hash order. They have no hash in common.
pub struct InOrder<'a>(Vec<Peekable<Range<'a, Sha256Hash, Box<[u8]>>>>);

impl<'a> Iterator for InOrder<'a> {
    type Item = (Sha256Hash, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let Self(maps) = self;
        let heads = maps.iter_mut().filter_map(Peekable::peek);
        let least = heads.map(|(hash, _)| **hash).min()?;
        let mut maps = maps.iter_mut();
        let next = maps.find_map(|map| map.next_if(|(hash, _)| **hash == least))?;
        let (hash, record) = next;
        Some((*hash, record.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use flag_definitions_filter::http::ETag;
    use flag_definitions_filter::surfaces::flagsmith::records::FlagsmithRecord;
    use flag_definitions_filter::surfaces::posthog::directory::{Record, Team, etag_hash};

    fn bytes(record: &Record) -> Option<Box<[u8]>> {
        Some(record.encode().unwrap().into())
    }

    fn orphans(state: &PublishedState) -> Vec<Sha256Hash> {
        state.orphaned_versions(true, &HashSet::new())
    }

    #[test]
    fn records_and_etags_come_in_one_order_and_are_counted() {
        let mut state = PublishedState::default();
        let owner = RecordOwner::of_sources();
        let team = Tenant(7);
        let token = Sha256Hash::of(b"phc_a");
        let organization = None;
        state.put((
            token,
            bytes(&Record::Team(Team {
                id: team,
                organization,
            })),
        ));
        let etag = Record::ETag(ETag::new(b"aa").unwrap());
        state.put((etag_hash(team), bytes(&etag)));
        for n in 0..50u8 {
            state.put((Sha256Hash::of(&[n]), bytes(&Record::TeamSecret(team))));
        }
        let hashes: Vec<_> = state.after(None).map(|(hash, _)| hash).collect();
        assert!(hashes.is_sorted() && hashes.len() == 52);
        let rest: Vec<_> = state
            .after(hashes.get(20).copied())
            .map(|(hash, _)| hash)
            .collect();
        assert_eq!(rest, hashes[21..]);
        let counts = state.counts();
        assert_eq!(
            (
                counts.of("teams"),
                counts.of("team_secrets"),
                counts.of("etags")
            ),
            (1, 50, 1)
        );
        assert!(orphans(&state).is_empty());

        // A second token of the team, then the first goes: the team stays.
        let other = Sha256Hash::of(b"phc_b");
        state.put((
            other,
            bytes(&Record::Team(Team {
                id: team,
                organization,
            })),
        ));
        assert!(state.put((token, None)).is_some());
        assert!(state.has_tenant(owner, team));
        state.put((other, bytes(&Record::Tombstone)));
        assert!(!state.has_tenant(owner, team));
        assert_eq!(orphans(&state), [etag_hash(team)]);
        assert_eq!(state.counts().of("teams"), 0);
    }

    #[test]
    fn surfaces_share_a_snapshot_and_no_record() {
        let mut state = PublishedState::default();
        let (posthog, flagsmith) = (
            RecordOwner::of_sources(),
            RecordOwner::named("flagsmith").unwrap(),
        );
        let json = |state: &PublishedState| serde_json::to_string(&state.counts()).unwrap();
        let alone =
            r#"{"teams":0,"team_secrets":1,"project_secret_keys":0,"personal_keys":0,"etags":0}"#;
        state.put((
            Sha256Hash::of(b"phs"),
            bytes(&Record::TeamSecret(Tenant(7))),
        ));
        assert_eq!(json(&state), alone, "as before there were several");

        let key = Sha256Hash::of(b"key");
        let record: Box<[u8]> = FlagsmithRecord::ClientKey(Tenant(7)).encode().into();
        state.put((key, Some(record)));
        let etag = || bytes(&Record::ETag(ETag::new(b"aa").unwrap()));
        for owner in [posthog, flagsmith] {
            state.put((owner.version_hash(Tenant(7)), etag()));
        }
        assert_eq!((state.records().len(), state.after(None).count()), (1, 4));
        assert!(state.is_of_another(posthog, &key) && !state.is_of_another(flagsmith, &key));
        assert!(!state.has_tenant(posthog, Tenant(7)) && state.has_tenant(flagsmith, Tenant(7)));
        assert_eq!(
            json(&state),
            alone.replace("\"etags\":0", "\"etags\":2,\"client_keys\":1")
        );
        assert_eq!(state.labelled_counts().last(), Some(&("flag_sources", 0)));
        assert_eq!(orphans(&state), [posthog.version_hash(Tenant(7))]);

        let others = state.of_others();
        let expected = BTreeSet::from([key, flagsmith.version_hash(Tenant(7))]);
        let hashes = others.after(None).map(|(hash, _)| hash);
        assert_eq!(hashes.collect::<BTreeSet<_>>(), expected);

        let team = Team {
            id: Tenant(7),
            organization: None,
        };
        state.put((Sha256Hash::of(b"phc"), bytes(&Record::Team(team))));
        assert!(orphans(&state).is_empty());
        // Nobody watches the versions of the one, and the other's are the publisher's own.
        let unwatched = state.orphaned_versions(false, &HashSet::new());
        assert_eq!(unwatched, [posthog.version_hash(Tenant(7))]);
        state.put((key, None));
        assert_eq!(orphans(&state), [flagsmith.version_hash(Tenant(7))]);
        let spared = HashSet::from([flagsmith.version_hash(Tenant(7))]);
        assert!(state.orphaned_versions(true, &spared).is_empty());
    }
}
