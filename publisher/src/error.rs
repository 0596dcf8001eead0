//! Everything that can go wrong. Each message says what to do, and whether anything was written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use flag_definitions_filter::snapshot::document::DocumentError;

use crate::server::{Problem, UrlError};

/// Exit code when Redis, or writing the result, failed.
pub const FAILED: u8 = 1;

/// Exit code for bad usage or a bad document. Nothing was written.
pub const BAD_USAGE: u8 = 2;

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub enum Error {
    /// The source document cannot be read.
    File(PathBuf, io::Error),
    /// The source document is refused.
    Document(PathBuf, DocumentError),
    /// The Redis URL is refused.
    Url(UrlError),
    /// Another option is refused.
    Option(&'static str, String),
    /// Redis is not there, or does not let us in.
    Connect(Problem),
    /// Redis refused a command, or went away.
    Redis {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        problem: Problem,
    },
    /// Another publisher holds the lock.
    LockHeld,
    /// Another publisher took the lock, because this one did not renew it in time.
    LockLost,
    /// Redis lost a page of a snapshot that was about to be published: flushed or evicted.
    PageLost {
        /// The generation that was not published.
        generation: u64,
    },
    /// The system has no randomness.
    Random(getrandom::Error),
    /// Signals cannot be handled.
    Signals(io::Error),
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
        problem: Problem,
    },
    /// The manifest has no JSON.
    Encode(serde_json::Error),
    /// Standard input holds no token.
    NoToken,
    /// Standard input is too long to be a token.
    TokenTooLong,
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written. What was to be done is done.
    Output(io::Error),
}

/// The place of a manifest in the order of snapshots, as far as it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its generation, as text.
    pub generation: String,
    /// Its stream id, as text.
    pub stream_id: String,
}

impl Error {
    /// The program's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Connect(_)
            | Self::Redis { .. }
            | Self::LockHeld
            | Self::LockLost
            | Self::PageLost { .. }
            | Self::Random(_)
            | Self::Signals(_)
            | Self::Overtaken { .. }
            | Self::Uncertain { .. }
            | Self::Encode(_)
            | Self::Output(_) => FAILED,
            Self::File(..)
            | Self::Document(..)
            | Self::Url(_)
            | Self::Option(..)
            | Self::NoToken
            | Self::TokenTooLong
            | Self::Input(_) => BAD_USAGE,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                write!(f, "--file: cannot read {}: {error}", path.display())
            }
            Self::Document(path, error) => {
                write!(f, "{}: {error} (nothing was written)", path.display())
            }
            Self::Url(error) => write!(f, "--redis-url: {error}"),
            Self::Option(option, problem) => write!(f, "{option}: {problem}"),
            Self::LockHeld => f.write_str(
                "another publisher is at work (it holds the lock): stop the one that runs `watch`, or wait a few \
                 seconds when it was a `publish` (nothing was written)",
            ),
            Self::LockLost => f.write_str(
                "another publisher took over, because this one did not renew its lock in time",
            ),
            Self::PageLost { generation } => write!(
                f,
                "generation {generation} was not published: Redis lost a page of it meanwhile; check that it \
                 evicts no keys without expiry (maxmemory-policy noeviction or volatile-*)"
            ),
            Self::Random(error) => write!(f, "the system has no randomness: {error}"),
            Self::Signals(error) => write!(f, "signals cannot be handled: {error}"),
            Self::Connect(problem) => write!(f, "{problem}"),
            Self::Redis { doing, problem } => {
                write!(f, "{doing}: {problem}")
            }
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
            Self::Encode(error) => write!(f, "a fault of this program: encoding the manifest: {error}"),
            Self::NoToken => f.write_str(
                "standard input holds no token: printf %s \"$TOKEN\" | flag-definitions-publisher hash",
            ),
            Self::TokenTooLong => f.write_str("standard input is longer than 64 KiB, not a token"),
            Self::Input(error) => write!(f, "cannot read standard input: {error}"),
            Self::Output(error) => {
                write!(f, "done, but standard output cannot be written: {error}")
            }
        }
    }
}

impl std::error::Error for Error {}
