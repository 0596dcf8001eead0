//! Where the records to publish come from.
//!
//! | room | job |
//! |---|---|
//! | [`file`] | a source document, read once |
//! | [`posthog`] | PostHog's database and its cache of flag definitions, followed as they change |
//! | [`left_out`] | rows of a source that became no records |
//!
//! The contract has two halves, as the records and the ETags of one product may stand in different places. A
//! [`Source`] says which records there are. An [`ETagSource`] says which ETag the definitions of each team have. Whoever
//! publishes or watches knows these two and no product behind them. The options of a source are the source's own;
//! [`WatchedSource`] puts together those of all that can be watched.

pub mod file;
pub mod left_out;
pub mod posthog;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::manifest::RecordCounts;
use flag_definitions_filter::tenant::Tenant;

use crate::redis::options::ConnectionOptions;
use crate::redis::published::RecordMap;
use crate::redis::server::Server;
use left_out::{LeftOut, Skipped};

/// Teams and credentials: who may read what.
pub trait Source: Send + Sync {
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

/// An option of a source that is refused. Says nothing of a URL's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// Its name, with the dashes.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}

/// A source that can be watched, with its options: one variant for each product.
#[derive(Debug)]
pub enum WatchedSource {
    /// PostHog's database and its cache of flag definitions.
    PostHog(posthog::PostHogOptions),
}

impl WatchedSource {
    /// Takes the options apart. `connection` and `redis` are of the Redis that holds the snapshot.
    ///
    /// # Errors
    /// When an option is refused.
    pub fn open(
        &self,
        connection: &ConnectionOptions,
        redis: &Arc<Server>,
    ) -> Result<OpenSource, OptionError> {
        match self {
            Self::PostHog(options) => options.open(connection, redis),
        }
    }
}

/// Both halves of a source that is watched.
pub struct OpenSource {
    /// Where the records are read, without user and password.
    pub address: String,
    /// Teams and credentials.
    pub records: Arc<dyn Source>,
    /// ETags.
    pub etags: Box<dyn ETagSource>,
}

// The derive knows structs alone. With a second source the options say which one is meant.
impl FromArgMatches for WatchedSource {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        posthog::PostHogOptions::from_arg_matches(matches).map(Self::PostHog)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        match self {
            Self::PostHog(options) => options.update_from_arg_matches(matches),
        }
    }
}

impl Args for WatchedSource {
    fn augment_args(command: Command) -> Command {
        posthog::PostHogOptions::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        posthog::PostHogOptions::augment_args_for_update(command)
    }
}
