//! Everything that can go wrong. Each message says what to do, and whether anything was written.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use flag_definitions_filter::surfaces::posthog::document::DocumentError;

use crate::postgres;
use crate::server::{CaError, Problem, UrlError};

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
    /// The source document has no teams, and nobody said that it may have none.
    NoTeams(PathBuf),
    /// The Redis URL is refused.
    Url(UrlError),
    /// The file with the CA of Redis' certificate is refused.
    Ca(PathBuf, CaError),
    /// It is not clear what to compare.
    TwoSources,
    /// The database's URL is refused.
    DatabaseUrl(postgres::UrlError),
    /// The database cannot be read.
    Database(postgres::Problem),
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
    /// The address for metrics and health cannot be listened on.
    Listen(SocketAddr, String),
    /// What is to be written has no JSON.
    Encode(serde_json::Error),
    /// Standard input holds no token.
    NoToken,
    /// Standard input holds no second line, and a credential was asked for.
    NoCredential,
    /// Standard input holds more lines than asked for.
    TooManyLines,
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
            Self::Database(_)
            | Self::Connect(_)
            | Self::Redis { .. }
            | Self::LockHeld
            | Self::LockLost
            | Self::PageLost { .. }
            | Self::Random(_)
            | Self::Signals(_)
            | Self::Overtaken { .. }
            | Self::Uncertain { .. }
            | Self::Listen(..)
            | Self::Encode(_)
            | Self::Output(_) => FAILED,
            Self::File(..)
            | Self::Document(..)
            | Self::NoTeams(_)
            | Self::Url(_)
            | Self::Ca(..)
            | Self::TwoSources
            | Self::DatabaseUrl(_)
            | Self::Option(..)
            | Self::NoToken
            | Self::NoCredential
            | Self::TooManyLines
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
            Self::NoTeams(path) => write!(
                f,
                "{}: the document has no teams, so filters would refuse every token; give --allow-empty if that is \
                 meant (nothing was written)",
                path.display()
            ),
            Self::Url(error) => write!(f, "--redis-url: {error}"),
            Self::Ca(path, error) => write!(f, "--redis-ca-file: {} {error}", path.display()),
            Self::TwoSources => f.write_str(
                "both --file (FLAG_DEFINITIONS_FILE) and --postgres-url (DATABASE_URL) are given; unset one",
            ),
            Self::DatabaseUrl(error) => write!(f, "--postgres-url: {error}"),
            Self::Database(problem) => write!(f, "{problem}"),
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
            Self::Listen(address, problem) => write!(
                f,
                "cannot listen on {address}: {problem}; choose another address with --listen, or off"
            ),
            Self::Encode(error) => write!(f, "a fault of this program: encoding JSON: {error}"),
            Self::NoToken => f.write_str(
                "standard input holds no token: printf %s \"$TOKEN\" | flag-definitions-publisher …",
            ),
            Self::NoCredential => f.write_str(
                "standard input holds no credential in its second line: \
                 printf '%s\\n%s\\n' \"$PROJECT_TOKEN\" \"$PERSONAL_KEY\" | flag-definitions-publisher …",
            ),
            Self::TooManyLines => f.write_str(
                "standard input holds another line than the token; --credential reads two",
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
