//! What clients see: each surface is one product's API over the same machinery.

use crate::http::Response;

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

impl Reason {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::SnapshotMissing,
        Self::SnapshotExpired,
        Self::SnapshotAging,
        Self::UnknownCredential,
        Self::SharedData,
        Self::Redis,
        Self::Timeout,
        Self::ObjectStore,
        Self::Overloaded,
        Self::Loop,
    ];

    /// Name in metrics, logs and the forward header.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SnapshotMissing => "snapshot_missing",
            Self::SnapshotExpired => "snapshot_expired",
            Self::SnapshotAging => "snapshot_aging",
            Self::UnknownCredential => "unknown_credential",
            Self::SharedData => "shared_data",
            Self::Redis => "redis",
            Self::Timeout => "timeout",
            Self::ObjectStore => "object_store",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
        }
    }
}
