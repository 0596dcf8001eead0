//! What a callout is for.

use crate::labels::labels;

/// What a callout is for. The label `store` of `flag_definitions_callouts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Documents and their ETags.
    Definitions,
    /// Who tokens and credentials are.
    Identity,
    /// Documents in the object store.
    ObjectStore,
    /// The quota set, and the ends of quota periods.
    Quota,
    /// A request to rebuild a document that is missing.
    Rebuild,
    /// The snapshot.
    Snapshot,
    /// Usage counters.
    Usage,
    /// Documents that a publisher put beside the snapshot.
    Documents,
}

labels! {
    Purpose {
        Definitions: "definitions",
        Identity: "identity",
        ObjectStore: "object_store",
        Quota: "quota",
        Rebuild: "rebuild",
        Snapshot: "snapshot",
        Usage: "usage",
        Documents: "documents",
    }
}
