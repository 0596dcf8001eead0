//! Why a request is not decided here.

use crate::labels::labels;

/// Why a request could not be decided or served here. Becomes a 503, or the reason of a forward.
///
/// ```
/// use flag_definitions_filter::surfaces::Reason;
/// assert_eq!(Reason::Redis.label(), "redis");
/// assert!(Reason::ALL.iter().all(|reason| !reason.label().is_empty()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No snapshot was loaded yet.
    SnapshotMissing,
    /// The snapshot is too old to decide anything.
    SnapshotExpired,
    /// The snapshot is too old to refuse anybody.
    SnapshotAging,
    /// The snapshot does not know the token or credential.
    UnknownCredential,
    /// Shared data or the clock failed, or what they hold, or the request's header fields, cannot be read.
    SharedData,
    /// Redis or its gateway is away, or answers nonsense.
    Redis,
    /// Redis did not answer in time.
    Timeout,
    /// The object store is away, or answers nonsense.
    ObjectStore,
    /// Too many requests of this worker wait already.
    Overloaded,
    /// The request was forwarded before and came back.
    Loop,
}

labels! {
    Reason {
        SnapshotMissing: "snapshot_missing",
        SnapshotExpired: "snapshot_expired",
        SnapshotAging: "snapshot_aging",
        UnknownCredential: "unknown_credential",
        SharedData: "shared_data",
        Redis: "redis",
        Timeout: "timeout",
        ObjectStore: "object_store",
        Overloaded: "overloaded",
        Loop: "loop",
    }
}
