//! Which source is watched. The options of a source are the source's own; here they are put together.

use std::fmt;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::posthog::PostHogOptions;
use super::{ETagSource, Source};
use crate::redis::options::ConnectionOptions;
use crate::redis::server::Server;

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
    PostHog(PostHogOptions),
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
        PostHogOptions::from_arg_matches(matches).map(Self::PostHog)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        match self {
            Self::PostHog(options) => options.update_from_arg_matches(matches),
        }
    }
}

impl Args for WatchedSource {
    fn augment_args(command: Command) -> Command {
        PostHogOptions::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        PostHogOptions::augment_args_for_update(command)
    }
}
