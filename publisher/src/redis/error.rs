//! What can go wrong between this program and the Redis that holds the snapshot. Each message says what to do, and
//! whether anything was written.

use std::fmt;
use std::path::PathBuf;

use super::server::{CaError, RedisProblem, RedisUrlError};

/// Options of the connection that are refused.
#[derive(Debug)]
pub enum ConnectionError {
    /// The URL.
    Url(RedisUrlError),
    /// The file with the CA of the server's certificate.
    Ca(PathBuf, CaError),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => write!(f, "--redis-url: {error}"),
            Self::Ca(path, error) => write!(f, "--redis-ca-file: {} {error}", path.display()),
        }
    }
}

impl std::error::Error for ConnectionError {}

/// Why Redis does not hold what was to be written, or does not say what it holds.
#[derive(Debug)]
pub enum SnapshotStoreError {
    /// Redis is not there, or does not let us in.
    Connect(RedisProblem),
    /// Redis refused a command, or went away.
    Command {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        problem: RedisProblem,
    },
    /// Another publisher took the lock, because this one did not renew it in time.
    LockLost,
    /// Redis lost a page of a snapshot that was about to be published: flushed or evicted.
    PageLost {
        /// The generation that was not published.
        generation: u64,
    },
    /// Redis has a manifest that this one would roll back.
    Overtaken {
        /// The generation that was not published.
        generation: u64,
        /// What the other manifest says of itself.
        current: Standing,
    },
    /// The connection broke after the manifest was sent: it may be there or not.
    Uncertain {
        /// The generation that may have been published.
        generation: u64,
        /// What went wrong.
        problem: RedisProblem,
    },
    /// The system has no randomness.
    Random(getrandom::Error),
    /// What is to be written has no JSON.
    Encode(serde_json::Error),
}

/// The place of a manifest in the order of snapshots, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its generation, as text.
    pub generation: String,
    /// Its stream id, as text.
    pub stream_id: String,
}

impl fmt::Display for SnapshotStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(problem) => write!(f, "{problem}"),
            Self::Command { doing, problem } => write!(f, "{doing}: {problem}"),
            Self::LockLost => f.write_str(
                "another publisher took over, because this one did not renew its lock in time",
            ),
            Self::PageLost { generation } => write!(
                f,
                "generation {generation} was not published: Redis lost a page of it meanwhile; check that it \
                 evicts no keys without expiry (maxmemory-policy noeviction or volatile-*)"
            ),
            Self::Overtaken {
                generation,
                current,
            } => write!(
                f,
                "generation {generation} was not published: Redis holds generation {} as of {}, published \
                 meanwhile. Publish again if this document is to replace it",
                current.generation, current.stream_id
            ),
            Self::Uncertain {
                generation,
                problem,
            } => write!(
                f,
                "writing the manifest: {problem}. Generation {generation} may or may not be published: \
                 publish again, which settles it"
            ),
            Self::Random(error) => write!(f, "the system has no randomness: {error}"),
            Self::Encode(error) => write!(f, "a fault of this program: encoding JSON: {error}"),
        }
    }
}

impl std::error::Error for SnapshotStoreError {}
