//! Why a command ends without having done what was asked, and the exit code. Each message says what to do, and whether
//! anything was written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::redis::error::{ConnectionError, SnapshotStoreError};
use crate::sources::SourceError;
use crate::sources::options::{OpenError, OptionError, SOURCE_OPTIONS};
use crate::watch::monitor::ListenError;

/// Exit code when Redis, or writing the result, failed.
pub const FAILED: u8 = 1;

/// Exit code for bad usage or a bad document. Nothing was written.
pub const BAD_USAGE: u8 = 2;

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub enum Error {
    /// The options of the Redis that holds the snapshot are refused.
    Connection(ConnectionError),
    /// Another option is refused.
    Option(OptionError),
    /// The records to publish or to compare cannot be had.
    Source(SourceError),
    /// The source document has no teams, and nobody said that it may have none.
    NoTeams(PathBuf),
    /// It is not clear what to compare.
    TwoSources,
    /// There is nothing to watch.
    NoSource,
    /// Redis failed, or another publisher was at work meanwhile.
    Store(SnapshotStoreError),
    /// Another publisher holds the lock.
    LockHeld,
    /// Signals cannot be handled.
    Signals(io::Error),
    /// The address for metrics and health cannot be listened on.
    Listen(ListenError),
    /// What is to be shown has no JSON.
    Encode(serde_json::Error),
    /// Standard input is not the token or tokens that were asked for.
    Token(TokenInputError),
    /// Standard output cannot be written. What was to be done is done.
    Output(io::Error),
}

/// Why standard input is not what was asked for.
#[derive(Debug)]
pub enum TokenInputError {
    /// It holds no token.
    NoToken,
    /// It holds no second line, and a credential was asked for.
    NoCredential,
    /// It holds more lines than asked for.
    TooManyLines,
    /// It is too long to be a token.
    TooLong,
    /// It cannot be read.
    Unreadable(io::Error),
}

impl Error {
    /// The program's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Source(SourceError::Unavailable(_))
            | Self::Store(_)
            | Self::LockHeld
            | Self::Signals(_)
            | Self::Listen(_)
            | Self::Encode(_)
            | Self::Output(_) => FAILED,
            Self::Connection(_)
            | Self::Option(_)
            | Self::Source(SourceError::Refused(_))
            | Self::NoTeams(_)
            | Self::TwoSources
            | Self::NoSource
            | Self::Token(_) => BAD_USAGE,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Option(error) => error.fmt(f),
            Self::Source(error) => error.fmt(f),
            Self::NoTeams(path) => write!(
                f,
                "{}: the document has no teams, so filters would refuse every token; give --allow-empty if that is \
                 meant (nothing was written)",
                path.display()
            ),
            Self::TwoSources => f.write_str(
                "both --file (FLAG_DEFINITIONS_FILE) and --postgres-url (DATABASE_URL) are given; unset one",
            ),
            Self::NoSource => write!(f, "nothing is named that could be watched: give {SOURCE_OPTIONS}"),
            Self::Store(error) => error.fmt(f),
            Self::LockHeld => f.write_str(
                "another publisher is at work (it holds the lock): stop the one that runs `watch`, or wait a few \
                 seconds when it was a `publish` (nothing was written)",
            ),
            Self::Signals(error) => write!(f, "signals cannot be handled: {error}"),
            Self::Listen(error) => error.fmt(f),
            Self::Encode(error) => write!(f, "a fault of this program: encoding JSON: {error}"),
            Self::Token(error) => error.fmt(f),
            Self::Output(error) => {
                write!(f, "done, but standard output cannot be written: {error}")
            }
        }
    }
}

impl fmt::Display for TokenInputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => {
                "standard input holds no token: printf %s \"$TOKEN\" | flag-definitions-publisher …"
            }
            Self::NoCredential => {
                "standard input holds no credential in its second line: \
                 printf '%s\\n%s\\n' \"$PROJECT_TOKEN\" \"$PERSONAL_KEY\" | flag-definitions-publisher …"
            }
            Self::TooManyLines => {
                "standard input holds another line than the token; --credential reads two"
            }
            Self::TooLong => "standard input is longer than 64 KiB, not a token",
            Self::Unreadable(error) => return write!(f, "cannot read standard input: {error}"),
        })
    }
}

impl std::error::Error for Error {}

impl std::error::Error for TokenInputError {}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<OptionError> for Error {
    fn from(error: OptionError) -> Self {
        Self::Option(error)
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Option(error) => Self::Option(error),
            OpenError::Source(error) => Self::Source(error),
            OpenError::Nothing => Self::NoSource,
        }
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<SnapshotStoreError> for Error {
    fn from(error: SnapshotStoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ListenError> for Error {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<TokenInputError> for Error {
    fn from(error: TokenInputError) -> Self {
        Self::Token(error)
    }
}
