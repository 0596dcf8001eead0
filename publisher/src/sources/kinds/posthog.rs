//! PostHog's records, and OFREP's keys: what a [`crate::sources::Source`] reads. PostHog's documents are its own: their ETags are watched in its cache.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::ofrep::health::KEYS as OFREP_KEYS;
use flag_definitions_filter::surfaces::ofrep::records::OfrepRecord;
use flag_definitions_filter::surfaces::posthog::directory::{Record, etag_hash};
use flag_definitions_filter::tenant::Tenant;

use super::{DocumentPlace, KindNames, Meaning, SurfaceRecords};

/// PostHog's.
pub(super) struct PostHogKinds;

impl SurfaceRecords for PostHogKinds {
    fn name(&self) -> &'static str {
        "posthog"
    }

    fn kinds(&self) -> &'static [KindNames] {
        &[
            KindNames {
                manifest: "teams",
                label: "team",
                words: "teams",
            },
            KindNames {
                manifest: "team_secrets",
                label: "team_secret",
                words: "team secrets",
            },
            KindNames {
                manifest: "project_secret_keys",
                label: "project_secret_key",
                words: "project secret keys",
            },
            KindNames {
                manifest: "personal_keys",
                label: "personal_key",
                words: "personal keys",
            },
            KindNames {
                manifest: OFREP_KEYS,
                label: "ofrep_key",
                words: "OFREP keys",
            },
        ]
    }

    fn always_told(&self) -> usize {
        4
    }

    fn read(&self, record: &[u8]) -> Option<(usize, Meaning)> {
        if let Ok(OfrepRecord::Key(_)) = OfrepRecord::decode(record) {
            return Some((4, Meaning::Credential));
        }
        match Record::decode(record).ok()? {
            Record::Team(team) => Some((0, Meaning::Reader(team.id))),
            Record::TeamSecret(_) => Some((1, Meaning::Credential)),
            Record::ProjectSecret { .. } => Some((2, Meaning::LaterCredential)),
            Record::Personal(_) => Some((3, Meaning::Credential)),
            Record::ETag(_) | Record::Tombstone => None,
        }
    }

    fn unsure(&self, _: &[u8]) -> Option<Box<[u8]>> {
        // As of when its records are known, watermarks say.
        None
    }

    fn list(&self, record: &[u8]) -> Option<&'static str> {
        let is_key = matches!(OfrepRecord::decode(record), Ok(OfrepRecord::Key(_)));
        is_key.then_some(OFREP_KEYS)
    }

    fn version_hash(&self, tenant: Tenant) -> Sha256Hash {
        etag_hash(tenant)
    }

    fn document(&self, _: &str, _: Tenant) -> Option<DocumentPlace> {
        None
    }
}
