//! What the writer has to know of records, without knowing what they say: the contract of the surfaces that share a
//! snapshot.
//!
//! | room | job |
//! |---|---|
//! | `posthog` | teams, credentials and ETags |
//! | `flagsmith` | keys, states and documents |
//! | `ofrep` | selections, states and documents |
//!
//! A record belongs to a surface by its kind, whether the surface has a source here or not: what another publisher left
//! stays. Versions are of one kind for all; the hash that one is found by says whose it is.

mod flagsmith;
mod ofrep;
mod posthog;

use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::records::{TOMBSTONE, VERSION};
use flag_definitions_filter::tenant::Tenant;

/// What a record stands for, as far as removals are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A token or key that names the tenant whose definitions are read. A tenant without one is gone.
    Reader(Tenant),
    /// A secret that proves who may read.
    Credential,
    /// A secret from a table that an older database may lack.
    LaterCredential,
    /// Neither.
    Other,
}

/// How the records of one kind are called where they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindNames {
    /// In the manifest: a plural.
    pub manifest: &'static str,
    /// As the value of a label: a singular.
    pub label: &'static str,
    /// In sentences: a plural.
    pub words: &'static str,
}

/// Where the document of a tenant is in Redis: a key with a hash of two fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPlace {
    /// The key.
    pub key: String,
    /// The field with the version.
    pub version_field: &'static str,
    /// The field with the text in gzip form.
    pub text_field: &'static str,
}

/// The records of one surface.
trait SurfaceRecords: Sync {
    /// The surface, as the manifest names it.
    fn name(&self) -> &'static str;

    /// Its kinds, without tombstones and versions, in the order in which they are shown.
    fn kinds(&self) -> &'static [KindNames];

    /// The first so many kinds are told in a manifest also where there are none of them.
    fn always_told(&self) -> usize {
        0
    }

    /// The place of a record's kind among [`SurfaceRecords::kinds`], and what the record stands for. `None`: the surface
    /// cannot read it.
    fn read(&self, record: &[u8]) -> Option<(usize, Meaning)>;

    /// What takes the place of a record until its source has spoken: the record without what is true only while the source
    /// is read. `None`: it stays as it is.
    fn unsure(&self, record: &[u8]) -> Option<Box<[u8]>>;

    /// The list ([`super::Source::lists`]) that a record is of, where not every source of the surface has it.
    fn list(&self, _: &[u8]) -> Option<&'static str> {
        None
    }

    /// What the record of a tenant's version is found by.
    fn version_hash(&self, tenant: Tenant) -> Sha256Hash;

    /// Where the publisher puts the document of a tenant. `None`: documents of this surface are not the publisher's, and their
    /// versions are watched where they are.
    fn document(&self, prefix: &str, tenant: Tenant) -> Option<DocumentPlace>;
}

static SURFACES: [&dyn SurfaceRecords; 3] = [
    &posthog::PostHogKinds,
    &flagsmith::FlagsmithKinds,
    &ofrep::OfrepKinds,
];

/// A surface whose records may be in the snapshot.
#[derive(Clone, Copy)]
pub struct RecordOwner {
    place: usize,
    surface: &'static dyn SurfaceRecords,
}

impl RecordOwner {
    /// All of them, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        let surfaces = SURFACES.iter().enumerate();
        surfaces.map(|(place, surface)| Self {
            place,
            surface: *surface,
        })
    }

    /// The one whose records a [`super::Source`] reads.
    pub fn of_sources() -> Self {
        Self {
            place: 0,
            surface: &posthog::PostHogKinds,
        }
    }

    /// The one that the manifest names so.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|owner| owner.name() == name)
    }

    /// As the manifest names it.
    pub fn name(self) -> &'static str {
        self.surface.name()
    }

    /// Its kinds, in the order in which they are shown.
    pub fn kinds(self) -> &'static [KindNames] {
        self.surface.kinds()
    }

    /// The first so many of them are told in a manifest also where there are none.
    pub fn always_told(self) -> usize {
        self.surface.always_told()
    }

    /// What takes the place of one of its records until its source has spoken: the record without what is true only while the
    /// source is read. `None`: it stays as it is.
    pub fn unsure(self, record: &[u8]) -> Option<Box<[u8]>> {
        self.surface.unsure(record)
    }

    /// The list that one of its records is of, where not every source of the surface has it.
    pub fn list(self, record: &[u8]) -> Option<&'static str> {
        self.surface.list(record)
    }

    /// What the record of a tenant's version is found by.
    pub fn version_hash(self, tenant: Tenant) -> Sha256Hash {
        self.surface.version_hash(tenant)
    }

    /// Where the publisher puts the document of a tenant; `None`: it does not.
    pub fn document(self, prefix: &str, tenant: Tenant) -> Option<DocumentPlace> {
        self.surface.document(prefix, tenant)
    }

    /// Whether the publisher puts this surface's documents into Redis.
    pub fn has_documents(self) -> bool {
        self.document("", Tenant(0)).is_some()
    }
}

impl fmt::Debug for RecordOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for RecordOwner {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for RecordOwner {}

impl PartialOrd for RecordOwner {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RecordOwner {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

/// Whose a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// Nobody's: a tombstone, or bytes that no filter would take either.
    Nobody,
    /// A version, of the tenant whose hash it is found by.
    Version,
    /// A surface's: the place of its kind, and what it stands for.
    Surface(RecordOwner, usize, Meaning),
}

/// Whose a record is.
pub fn belonging(record: &[u8]) -> Belonging {
    match record.split_first() {
        None | Some((&TOMBSTONE, _)) => Belonging::Nobody,
        Some((&VERSION, version)) => match ETag::new(version) {
            Some(_) => Belonging::Version,
            None => Belonging::Nobody,
        },
        Some(_) => {
            let read = |owner: RecordOwner| {
                let (kind, meaning) = owner.surface.read(record)?;
                Some(Belonging::Surface(owner, kind, meaning))
            };
            RecordOwner::all()
                .find_map(read)
                .unwrap_or(Belonging::Nobody)
        }
    }
}

/// The record of a version.
pub fn version_record(version: &ETag) -> Box<[u8]> {
    [&[VERSION], version.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::surfaces::flagsmith::records::{FlagsmithRecord, Round};
    use flag_definitions_filter::surfaces::ofrep::records::{OfrepRecord, SourcesState};
    use flag_definitions_filter::surfaces::posthog::directory::{PersonalKey, Record, Team};

    #[test]
    fn a_record_belongs_to_one_surface_by_its_kind() {
        let (posthog, flagsmith) = (
            RecordOwner::of_sources(),
            RecordOwner::named("flagsmith").unwrap(),
        );
        let team = Team {
            id: Tenant(7),
            organization: None,
        };
        let project = Record::ProjectSecret {
            team: Tenant(7),
            reads_flags: true,
        };
        for (record, place, meaning) in [
            (Record::Team(team), 0, Meaning::Reader(Tenant(7))),
            (Record::TeamSecret(Tenant(7)), 1, Meaning::Credential),
            (project, 2, Meaning::LaterCredential),
            (
                Record::Personal(PersonalKey::default()),
                3,
                Meaning::Credential,
            ),
        ] {
            let found = belonging(&record.encode().unwrap());
            assert_eq!(found, Belonging::Surface(posthog, place, meaning));
        }
        let key = FlagsmithRecord::ClientKey(Tenant(7)).encode();
        let reader = Meaning::Reader(Tenant(7));
        assert_eq!(belonging(&key), Belonging::Surface(flagsmith, 0, reader));
        let ofrep = RecordOwner::named("ofrep").unwrap();
        let selection = OfrepRecord::Selection(Tenant(7)).encode();
        let found = belonging(&selection);
        assert_eq!(found, Belonging::Surface(ofrep, 0, reader));
        // Keys stand in source documents, whoever is asked with them.
        for bound in [None, Some(Sha256Hash::of(b"source=a"))] {
            let found = belonging(&OfrepRecord::Key(bound).encode());
            assert_eq!(found, Belonging::Surface(posthog, 4, Meaning::Credential));
        }
        let version = version_record(&ETag::new(b"v1").unwrap());
        assert_eq!(belonging(&version), Belonging::Version);
        for nobodys in [
            &[][..],
            &[TOMBSTONE],
            &[VERSION],
            &[VERSION, b'"'],
            &[99, 1],
            &key[..2],
        ] {
            assert_eq!(belonging(nobodys), Belonging::Nobody, "{nobodys:?}");
        }
    }

    #[test]
    fn every_kind_and_every_surface_has_names_of_its_own() {
        let all = || RecordOwner::all().flat_map(RecordOwner::kinds);
        for names in [
            all().map(|kind| kind.manifest).collect::<Vec<_>>(),
            all().map(|kind| kind.label).collect(),
            RecordOwner::all().map(RecordOwner::name).collect(),
        ] {
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len(), "{names:?}");
        }
        assert_eq!(RecordOwner::all().next(), Some(RecordOwner::of_sources()));
        assert_eq!(RecordOwner::named("nobody"), None);
    }

    #[test]
    fn only_what_a_source_knew_of_its_keys_is_unsure_without_it() {
        let flagsmith = RecordOwner::named("flagsmith").unwrap();
        let round = |knows_keys| {
            let round = Round {
                completed_at: 7,
                grace: Some(120),
                knows_keys,
            };
            FlagsmithRecord::Round(round).encode()
        };
        let unsure = flagsmith.unsure(&round(true));
        assert_eq!(unsure.as_deref(), Some(&*round(false)));
        let ofrep = RecordOwner::named("ofrep").unwrap();
        let sources = |knows_selections| {
            let read_at = 7;
            OfrepRecord::Sources(SourcesState {
                read_at,
                knows_selections,
            })
            .encode()
        };
        let unsure = ofrep.unsure(&sources(true));
        assert_eq!(unsure.as_deref(), Some(&*sources(false)));
        assert_eq!(ofrep.unsure(&sources(false)), None);
        let key = FlagsmithRecord::ClientKey(Tenant(7)).encode();
        for stays in [&*round(false), &key, &[TOMBSTONE], &[]] {
            assert_eq!(flagsmith.unsure(stays), None, "{stays:?}");
        }
        let secret = Record::TeamSecret(Tenant(7)).encode().unwrap();
        assert_eq!(RecordOwner::of_sources().unsure(&secret), None);
    }

    #[test]
    fn a_tenant_of_one_surface_is_not_that_of_another() {
        let hashes: Vec<_> = RecordOwner::all()
            .map(|owner| owner.version_hash(Tenant(7)))
            .collect();
        let once: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(once.len(), 3);
        let places: Vec<_> = RecordOwner::all()
            .map(|owner| owner.document("p:", Tenant(7)))
            .collect();
        assert_eq!(places[0], None);
        assert_eq!(places[1].as_ref().unwrap().key, "p:flagsmith:7");
        assert_eq!(places[2].as_ref().unwrap().key, "p:ofrep:7");
    }
}
