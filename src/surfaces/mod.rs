//! What clients see: each surface is one product's API over the same machinery.

use crate::http::Response;
use crate::labels::labels;

pub mod posthog;

/// What happens to a request next. `Read` says what has to be read first, `Receipt` what an answer owes once it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a, Read, Receipt> {
    /// Answer it.
    Reply(Response<'a>, Receipt),
    /// Let it go on to the upstream.
    Forward(Reason),
    /// Read this first.
    Read(Read),
}

/// Why a request could not be decided or served here. Becomes a 503, or the reason of a forward.
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
    /// Shared data failed, or holds what cannot be read.
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
