//! What the loader tells of itself.

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

impl LoaderEvent {
    /// All events.
    pub const ALL: [Self; 17] = [
        Self::Started,
        Self::Loaded,
        Self::ManifestMissing,
        Self::ManifestInvalid,
        Self::ManifestOlder,
        Self::RolledBack,
        Self::PageMissing,
        Self::PageMismatch,
        Self::PageCorrupt,
        Self::ReadFailed,
        Self::StoreFailed,
        Self::LeaseLost,
        Self::MarkedBad,
        Self::Adopted,
        Self::ChangeMissing,
        Self::ChangeCorrupt,
        Self::ChangeFenced,
    ];

    /// Name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Loaded => "loaded",
            Self::ManifestMissing => "manifest_missing",
            Self::ManifestInvalid => "manifest_invalid",
            Self::ManifestOlder => "manifest_older",
            Self::RolledBack => "rolled_back",
            Self::PageMissing => "page_missing",
            Self::PageMismatch => "page_mismatch",
            Self::PageCorrupt => "page_corrupt",
            Self::ReadFailed => "read_failed",
            Self::StoreFailed => "store_failed",
            Self::LeaseLost => "lease_lost",
            Self::MarkedBad => "marked_bad",
            Self::Adopted => "adopted",
            Self::ChangeMissing => "change_missing",
            Self::ChangeCorrupt => "change_corrupt",
            Self::ChangeFenced => "change_fenced",
        }
    }

    /// Whether an operator should look.
    pub const fn is_problem(self) -> bool {
        !matches!(self, Self::Started | Self::Loaded | Self::Adopted)
    }
}
