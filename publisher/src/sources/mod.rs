//! Where the records to publish come from.
//!
//! | room | job |
//! |---|---|
//! | [`documents`] | the contract of a source that brings documents |
//! | [`usage`] | the contract of a source that reports what was served |
//! | [`kinds`] | the contract of records: whose each is, and what it stands for |
//! | [`mod@file`] | a source document, read once or followed as it changes |
//! | `followed_file` | a file, and when it has to be read again |
//! | [`combined`] | a database and beside it a source document |
//! | [`posthog`] | PostHog's database and its cache of flag definitions, followed as they change |
//! | [`flagsmith`] | the environments of a Flagsmith, followed as they change |
//! | [`flagd`] | flagd's definitions, followed as they change |
//! | [`authorities`] | which certificate authorities are believed |
//! | `client` | HTTP requests to sources |
//! | [`left_out`] | rows of a source that became no records |
//! | [`polls`] | what came of polls, in figures |
//! | [`tenants`] | which number each tenant has that is known by a name |
//! | [`options`] | which source is watched, with its own options |
//!
//! The contract has three parts, as the records and the ETags of one product may stand in different places. A
//! [`Source`] says which records there are. An [`ETagSource`] says which ETag the definitions of each team have. A
//! [`documents::DocumentSource`] says both, and brings the documents. The writer knows these and no product behind them.

pub mod authorities;
mod client;
pub mod combined;
pub mod documents;
pub mod file;
pub mod flagd;
pub mod flagsmith;
mod followed_file;
pub mod kinds;
pub mod left_out;
pub mod options;
pub mod polls;
pub mod posthog;
pub mod tenants;
pub mod usage;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::posthog::directory::RecordCounts;
use flag_definitions_filter::tenant::Tenant;

use crate::redis::published::RecordMap;
use documents::DocumentSource;
use left_out::{LeftOut, Skipped};

/// All that is followed. Each of them may be missing, but not all.
#[derive(Default)]
pub struct WatchedSources {
    /// Teams and credentials.
    pub records: Option<Arc<dyn Source>>,
    /// ETags of the teams' definitions. Without it none is published.
    pub etags: Option<Box<dyn ETagSource>>,
    /// Documents, each of another surface.
    pub documents: Vec<Box<dyn DocumentSource>>,
}

/// What a [`Source`] is, for logs and figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceNature {
    /// A database.
    Database,
    /// A source document. What is wrong with it stays so until somebody changes it: that is told once.
    Document,
}

impl SourceNature {
    /// Its name in a sentence.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Database => "the database",
            Self::Document => "the source document",
        }
    }
}

/// Teams and credentials: who may read what.
pub trait Source: Send + Sync {
    /// What it is.
    fn nature(&self) -> SourceNature {
        SourceNature::Database
    }

    /// What the manifest names beside the surface, where this is its source as well.
    fn lists(&self) -> &'static [&'static str] {
        &[]
    }

    /// Reads everything as of one moment. `progress` is told the number of rows so far, now and then.
    ///
    /// # Errors
    /// When the source cannot be read, or is refused.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError>;

    /// Tells what changes, until `stop` is set. Blocks, and connects again by itself. `tell` should be quick: what
    /// changes while it runs is heard later. A source that says nothing by itself returns at once, and is known by
    /// full reads alone.
    fn listen(&self, _stop: &AtomicBool, _tell: &mut dyn FnMut(Heard)) {}
}

/// ETags of the teams' definitions.
pub trait ETagSource: Send {
    /// Starts the threads that look at the ETags, one look after the other, each `interval` after the one before
    /// began. They rest until the first order, and end when the writer is gone.
    fn start(self: Box<Self>, interval: Duration, tell: Tell) -> Sender<Order>;
}

/// Takes what an [`ETagSource`] has to say, from any of its threads.
pub type Tell = Arc<dyn Fn(ETagNews) -> Result<(), WriterGone> + Send + Sync>;

/// Nobody listens any more: the program is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterGone;

/// A place in the order of what one source is read from: the higher of two saw at least as much. Places of different
/// sources say nothing of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePosition(pub u64);

/// Everything that a source says about who may read what, as of one moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// Encoded records, in hash order.
    pub records: RecordMap,
    /// How many there are of each kind; no ETags.
    pub counts: RecordCounts,
    /// How much did not become a record.
    pub skipped: Skipped,
    /// Which rows those are.
    pub left_out: LeftOut,
    /// Whether there is no table of project secret keys, as in an old database.
    pub lacks_project_keys: bool,
    /// The place just before: the reading misses nothing further back.
    pub position: SourcePosition,
    /// The teams with a token, in the order of their keys.
    pub team_ids: Vec<Tenant>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Hashes with their encoded records now; `None`: nothing has the hash any more.
    pub changed: Vec<(Sha256Hash, Option<Box<[u8]>>)>,
    /// A place behind everything this saw. A reading with a lower position may be older than this.
    pub position: SourcePosition,
}

/// What a source says by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// From now on every change is heard.
    Listening,
    /// Changes are not heard, and why: a text for an operator, without secrets. It is tried again.
    NotListening(String),
    /// What changed.
    Announced(Announcement),
    /// Whatever was committed before this moment has been told.
    UpTo(Instant),
    /// More changed than is told one by one, or nobody knows what: a full read is needed.
    Overflow,
}

/// Why a source gives no records. A text for an operator, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// It is not there, or does not answer as it should. It may do so later.
    Unavailable(String),
    /// What it holds is refused, or it is not what it is said to be. Somebody has to change that.
    Refused(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(problem) | Self::Refused(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for SourceError {}

/// What an [`ETagSource`] is to do.
#[derive(Debug)]
pub enum Order {
    /// Look at these teams from now on, in order of their ids. In a new epoch everything is told again.
    Watch {
        /// Comes back with everything that is told.
        epoch: u64,
        /// Whom to look at.
        teams: Vec<Tenant>,
    },
    /// Look at nobody.
    Rest,
    /// The ETag of this team seems to be new.
    Hint(Tenant),
}

/// What an [`ETagSource`] tells.
#[derive(Debug)]
pub enum ETagNews {
    /// ETags that are not what they were at the look before; `None`: there is none.
    Changed {
        /// The [`Order::Watch`] that asked for it.
        epoch: u64,
        /// In the order of their teams.
        etags: Vec<(Tenant, Option<ETag>)>,
    },
    /// All ETags were looked at, and what differed was told before this.
    Swept(Swept),
    /// The ETags cannot be read at present, and why.
    Failed(String),
    /// Somebody said that the ETag of a team is new. It is looked at next.
    Hinted,
}

/// A complete check of all ETags.
#[derive(Clone, Copy, Debug)]
pub struct Swept {
    /// The [`Order::Watch`] that asked for it.
    pub epoch: u64,
    /// When it began, by the clock of the Redis that holds the stream: Unix milliseconds.
    pub at: u64,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// Teams that have an ETag.
    pub etags: u64,
}
