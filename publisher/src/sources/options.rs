//! Which sources are watched. The options of a source are the source's own; here they are put together.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flag_definitions_filter::json::parse_duration;

use super::combined::Combined;
use super::file::FollowedDocument;
use super::flagd::options::FlagdOptions;
use super::flagsmith::options::FlagsmithOptions;
use super::posthog::PostHogOptions;
use super::{Source, SourceError, WatchedSources};
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

/// Why sources cannot be watched. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// An option is refused.
    Option(OptionError),
    /// What is to be followed cannot be read from the beginning on.
    Source(SourceError),
    /// Nothing is to be watched.
    Nothing,
}

/// The options that name sources, for who named none.
pub const SOURCE_OPTIONS: &str = "--postgres-url (DATABASE_URL), --file (FLAG_DEFINITIONS_FILE), --flagsmith-config (FLAGSMITH_CONFIG), --flagd-uri (FLAGD_URI), or several";

/// What is watched: any of these, each with options of its own.
#[derive(Debug, Args)]
pub struct SourceOptions {
    /// PostHog's database and its cache of flag definitions.
    #[command(flatten)]
    pub posthog: PostHogOptions,
    /// Source document (JSON) with PostHog's teams and credentials and OFREP's keys, followed as it changes. With --postgres-url its records
    /// are added to the database's
    #[arg(long, value_name = "FILE", env = "FLAG_DEFINITIONS_FILE")]
    pub file: Option<PathBuf>,
    /// Flagsmith's environments.
    #[command(flatten)]
    pub flagsmith: FlagsmithOptions,
    /// flagd's definitions.
    #[command(flatten)]
    pub flagd: FlagdOptions,
}

/// Sources that are ready to be watched.
pub struct OpenSources {
    /// They.
    pub sources: WatchedSources,
    /// Where the database is, without user and password.
    pub postgres: Option<String>,
    /// The document that is followed.
    pub file: Option<PathBuf>,
}

impl SourceOptions {
    /// Takes the options apart, and reads the document. `connection` and `redis` are of the Redis that holds the snapshot.
    ///
    /// # Errors
    /// When an option or the document is refused, or nothing is named.
    pub fn open(
        &self,
        connection: &ConnectionOptions,
        redis: &Arc<Server>,
    ) -> Result<OpenSources, OpenError> {
        let database = self.posthog.database()?;
        let postgres = database.as_ref().map(|database| database.address());
        let database = database.map(|database| Arc::new(database) as Arc<dyn Source>);
        let document = self.file.as_deref().map(follow).transpose()?;
        let sources = WatchedSources {
            etags: self
                .posthog
                .etags(connection, redis, database.is_some())?
                .filter(|_| database.is_some() || document.is_some()),
            records: match (database, document) {
                (Some(database), Some(document)) => {
                    Some(Arc::new(Combined::new(database, document)))
                }
                (Some(database), None) => Some(database),
                (None, Some(document)) => Some(Arc::new(document)),
                (None, None) => None,
            },
            documents: [self.flagsmith.open()?, self.flagd.open()?]
                .into_iter()
                .flatten()
                .collect(),
        };
        if sources.records.is_none() && sources.documents.is_empty() {
            return Err(OpenError::Nothing);
        }
        Ok(OpenSources {
            sources,
            postgres,
            file: self.file.clone(),
        })
    }
}

/// A document that can be read now.
fn follow(file: &Path) -> Result<FollowedDocument, OpenError> {
    if file == Path::new("-") {
        return Err(OpenError::Option(OptionError {
            option: "--file",
            problem: "standard input cannot be followed, name a file".to_owned(),
        }));
    }
    let document = FollowedDocument::new(file);
    document.read_all(&mut |_| ()).map_err(OpenError::Source)?;
    Ok(document)
}

/// A duration within what an interval may be.
///
/// # Errors
/// What is wrong with the text.
pub fn interval(text: &str) -> Result<Duration, String> {
    const RANGE: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
    let duration = parse_duration(text)?;
    if RANGE.contains(&duration) {
        Ok(duration)
    } else {
        Err("is out of range, use 100ms to 24h".to_owned())
    }
}

impl From<OptionError> for OpenError {
    fn from(error: OptionError) -> Self {
        Self::Option(error)
    }
}
