//! OFREP's records, and where its documents are: each selection is a tenant. Its keys come from source documents, so they are
//! among the records of the [`crate::sources::Source`].

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::ofrep::records::{
    OfrepRecord, SourcesState, document_key, version_hash,
};
use flag_definitions_filter::tenant::Tenant;

use super::{DocumentPlace, KindNames, Meaning, SurfaceRecords};

/// OFREP's.
pub(super) struct OfrepKinds;

impl SurfaceRecords for OfrepKinds {
    fn name(&self) -> &'static str {
        "ofrep"
    }

    fn kinds(&self) -> &'static [KindNames] {
        &[
            KindNames {
                manifest: "selections",
                label: "selection",
                words: "selections of flags",
            },
            KindNames {
                manifest: "flag_sources",
                label: "flag_sources",
                words: "states of the sources of flags",
            },
        ]
    }

    fn read(&self, record: &[u8]) -> Option<(usize, Meaning)> {
        match OfrepRecord::decode(record).ok()? {
            OfrepRecord::Selection(selection) => Some((0, Meaning::Reader(selection))),
            OfrepRecord::Sources(_) => Some((1, Meaning::Other)),
            OfrepRecord::Key(_) | OfrepRecord::Version(_) | OfrepRecord::Tombstone => None,
        }
    }

    fn unsure(&self, record: &[u8]) -> Option<Box<[u8]>> {
        // Flags of a selection that came since would not be there.
        match OfrepRecord::decode(record).ok()? {
            OfrepRecord::Sources(state) if state.knows_selections => {
                let knows_selections = false;
                let state = SourcesState {
                    knows_selections,
                    ..state
                };
                Some(OfrepRecord::Sources(state).encode().into())
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
            version_field: "version",
            text_field: "text",
        })
    }
}
