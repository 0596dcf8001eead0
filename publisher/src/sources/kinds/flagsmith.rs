//! Flagsmith's records, and where its documents are.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::flagsmith::records::{
    FlagsmithRecord, Round, TEXT_FIELD, VERSION_FIELD, document_key, version_hash,
};
use flag_definitions_filter::tenant::Tenant;

use super::{DocumentPlace, KindNames, Meaning, SurfaceRecords};

/// Flagsmith's.
pub(super) struct FlagsmithKinds;

impl SurfaceRecords for FlagsmithKinds {
    fn name(&self) -> &'static str {
        "flagsmith"
    }

    fn kinds(&self) -> &'static [KindNames] {
        &[
            KindNames {
                manifest: "client_keys",
                label: "client_key",
                words: "client-side keys",
            },
            KindNames {
                manifest: "server_keys",
                label: "server_key",
                words: "server-side keys",
            },
            KindNames {
                manifest: "rounds",
                label: "round",
                words: "rounds of the source",
            },
            KindNames {
                manifest: "environment_states",
                label: "environment_state",
                words: "states of environments",
            },
            KindNames {
                manifest: "environment_polls",
                label: "environment_polls",
                words: "lists of polls",
            },
        ]
    }

    fn read(&self, record: &[u8]) -> Option<(usize, Meaning)> {
        match FlagsmithRecord::decode(record).ok()? {
            FlagsmithRecord::ClientKey(environment)
            | FlagsmithRecord::CountedClientKey(environment) => {
                Some((0, Meaning::Reader(environment)))
            }
            FlagsmithRecord::ServerKey { environment, .. }
            | FlagsmithRecord::CountedServerKey { environment, .. } => {
                Some((1, Meaning::Reader(environment)))
            }
            FlagsmithRecord::Round(_) => Some((2, Meaning::Other)),
            FlagsmithRecord::State(_) => Some((3, Meaning::Other)),
            FlagsmithRecord::Polled(_) => Some((4, Meaning::Other)),
            FlagsmithRecord::Version(_) | FlagsmithRecord::Tombstone => None,
        }
    }

    fn unsure(&self, record: &[u8]) -> Option<Box<[u8]>> {
        // Keys that came since would be refused.
        match FlagsmithRecord::decode(record).ok()? {
            FlagsmithRecord::Round(round) if round.knows_keys => {
                let knows_keys = false;
                let record = FlagsmithRecord::Round(Round {
                    knows_keys,
                    ..round
                });
                Some(record.encode().into())
            }
            _ => None,
        }
    }

    fn version_hash(&self, tenant: Tenant) -> Sha256Hash {
        version_hash(tenant)
    }

    fn document(&self, prefix: &str, tenant: Tenant) -> Option<DocumentPlace> {
        Some(DocumentPlace {
            key: document_key(prefix, tenant),
            version_field: VERSION_FIELD,
            text_field: TEXT_FIELD,
        })
    }
}
