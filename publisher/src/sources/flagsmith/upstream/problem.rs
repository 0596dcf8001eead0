//! Why Flagsmith did not answer as it should. The words are for a log: no key, no address with a query, no text of a body.

use std::fmt;
use std::time::Duration;

use crate::sources::client::reason;
use crate::sources::flagsmith::document::NoDocument;
use crate::sources::flagsmith::fields::FieldProblem;
use crate::sources::polls::PollFailure;

/// Why Flagsmith did not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamProblem {
    /// The answer was not complete in this time.
    Timeout(Duration),
    /// No connection comes about, and why.
    Connect(String),
    /// The connection broke, or what came is no HTTP, and why.
    Broken(String),
    /// It answered with this status.
    Status(u16),
    /// It sends the request elsewhere, where the key must not go: the origin.
    Redirect(String),
    /// The next page is said to be elsewhere, where the key must not go: the origin.
    NextPage(String),
    /// An address that it names cannot be read.
    Address,
    /// It sends the request on again and again.
    Redirects,
    /// The document has more pages than are read.
    Pages,
    /// A body is longer than is read.
    TooLong,
    /// A body has a coding that was not asked for.
    Coding,
    /// What came is no document.
    NoDocument(NoDocument),
    /// What came is no list of environments, and why.
    NoList(FieldProblem),
    /// A fault of this program.
    Fault,
}

impl UpstreamProblem {
    /// Whether it may be over in a second. A refusal is not: asking often makes a limit of requests last.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_)
                | Self::Connect(_)
                | Self::Broken(_)
                | Self::Status(500..=599)
                | Self::NoDocument(_)
        )
    }

    /// What it counts as.
    pub const fn failure(&self) -> PollFailure {
        match self {
            Self::Timeout(_) => PollFailure::Timeout,
            Self::Connect(_) | Self::Broken(_) => PollFailure::Connection,
            Self::Status(_) => PollFailure::Status,
            Self::Redirect(_) | Self::NextPage(_) | Self::Address | Self::Redirects => {
                PollFailure::Address
            }
            Self::Pages | Self::TooLong | Self::Coding | Self::NoDocument(_) | Self::NoList(_) => {
                PollFailure::Content
            }
            Self::Fault => PollFailure::Fault,
        }
    }

    /// Of an error of the library.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let reason = reason(error);
        match error.is_connect() {
            true => Self::Connect(reason),
            false => Self::Broken(reason),
        }
    }
}

impl fmt::Display for UpstreamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "no answer in {after:?}"),
            Self::Connect(reason) => write!(f, "no connection: {reason}"),
            Self::Broken(reason) => write!(f, "the answer broke off: {reason}"),
            Self::Status(status @ (401 | 403)) => {
                write!(f, "answered {status}: the key is refused")
            }
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Redirect(origin) => write!(
                f,
                "redirects to {origin}, where the key is not sent; if that is right, it is what api_url must say"
            ),
            Self::NextPage(origin) => {
                write!(
                    f,
                    "has its next page at {origin}, where the key is not sent"
                )
            }
            Self::Address => f.write_str("names an address that cannot be read"),
            Self::Redirects => f.write_str("redirects again and again"),
            Self::Pages => f.write_str("has more pages than are read"),
            Self::TooLong => f.write_str("has a body that is longer than is read"),
            Self::Coding => f.write_str("answered in a coding that was not asked for"),
            Self::NoDocument(problem) => problem.fmt(f),
            Self::NoList(problem) => write!(f, "the list of environments is refused: {problem}"),
            Self::Fault => f.write_str("a fault of this program"),
        }
    }
}
