//! What the loader tells of itself.

use crate::labels::labels;

/// What the loader did. The label of `flag_definitions_loader_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoaderEvent {
    /// A load began.
    Started,
    /// A load ended well.
    Loaded,
    /// There is no manifest.
    ManifestMissing,
    /// The manifest cannot be used.
    ManifestInvalid,
    /// The manifest is older than what is live.
    ManifestOlder,
    /// The manifest is the live one again, after a newer snapshot was partly applied.
    RolledBack,
    /// A page is not there.
    PageMissing,
    /// A page is not the one that the manifest names.
    PageMismatch,
    /// A page cannot be read; its snapshot is not tried again.
    PageCorrupt,
    /// Redis did not answer.
    ReadFailed,
    /// Shared data failed.
    StoreFailed,
    /// Another VM has the lease now.
    LeaseLost,
    /// Two owners vanished at the same place; the snapshot is not tried again.
    MarkedBad,
    /// A newer manifest describes the records that are here already, thanks to the changes.
    Adopted,
    /// A change is missing: a newer snapshot is needed before anything is confirmed or refused again.
    ChangeMissing,
    /// A change cannot be read, or two owners vanished at it; it counts as missing.
    ChangeCorrupt,
    /// A change of a publisher that had lost its lock; it counts as missing.
    ChangeFenced,
}

labels! {
    LoaderEvent {
        Started: "started",
        Loaded: "loaded",
        ManifestMissing: "manifest_missing",
        ManifestInvalid: "manifest_invalid",
        ManifestOlder: "manifest_older",
        RolledBack: "rolled_back",
        PageMissing: "page_missing",
        PageMismatch: "page_mismatch",
        PageCorrupt: "page_corrupt",
        ReadFailed: "read_failed",
        StoreFailed: "store_failed",
        LeaseLost: "lease_lost",
        MarkedBad: "marked_bad",
        Adopted: "adopted",
        ChangeMissing: "change_missing",
        ChangeCorrupt: "change_corrupt",
        ChangeFenced: "change_fenced",
    }
}

impl LoaderEvent {
    /// Whether an operator should look.
    pub const fn is_problem(self) -> bool {
        !matches!(self, Self::Started | Self::Loaded | Self::Adopted)
    }
}
