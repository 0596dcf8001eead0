//! The command line. Every option of `publish` may come from the environment.
//!
//! The Redis URL is checked where it is used, not by clap: clap's messages repeat a refused value, and the
//! URL holds a password.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser};
use clap_complete::Shell;
use flag_definitions_filter::json::parse_duration;

use crate::diff::Diff;
use crate::error::{BAD_USAGE, Error};
use crate::inspect::Inspect;
use crate::logging::Logging;
use crate::monitor::Listen;
use crate::progress;
use crate::server::Server;
use crate::watch::doubt::MAX_REMOVAL_PERCENT;

/// Publishes the snapshot that flag-definitions-filter decides from.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 bad usage or bad document (nothing written), 3 different (`diff`), not found or \
refused (`inspect`)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub subcommand: Subcommand,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Check a source document and make it the current snapshot in Redis
    #[command(after_help = "\
Examples:
  flag-definitions-publisher publish --file snapshot.json --redis-url redis://127.0.0.1:6379
  flag-definitions-publisher publish --file snapshot.json --dry-run
  REDIS_URL=redis://publisher:password@redis:6379 flag-definitions-publisher publish --file - < snapshot.json

Filters take the new snapshot at their next poll. The pages of the one before expire after 10 minutes.
When a publish fails or is interrupted, the snapshot before it stays.")]
    Publish(Publish),
    /// Show what a publish, or `watch`, would change; writes nothing
    #[command(after_help = "\
Examples:
  flag-definitions-publisher diff --file snapshot.json --redis-url redis://127.0.0.1:6379
  flag-definitions-publisher diff --file - --examples 0 < snapshot.json
  DATABASE_URL=postgres://… REDIS_URL=rediss://… flag-definitions-publisher diff

Compares with what filters have that are up to date: the current snapshot and all changes after it. ETags are
left out. Tokens are shown by the first digits of their SHA-256.
Exit codes: 0 no difference, 1 failed, 2 bad usage or bad document, 3 there are differences.")]
    Diff(Diff),
    /// Show what filters would decide from what is published, and why
    #[command(subcommand)]
    Inspect(Inspect),
    /// Keep the snapshot in Redis up to date with PostHog's database and with its cache of flag definitions
    #[command(after_help = "\
Examples:
  flag-definitions-publisher watch --postgres-url postgres://reader@db/posthog --redis-url redis://127.0.0.1:6379
  DATABASE_URL=… REDIS_URL=… flag-definitions-publisher watch --snapshot-interval 5m

Several instances may run: one writes, the others wait and take over within 5 seconds of its end.
SIGTERM and SIGINT end it after the write under way.")]
    Watch(Watch),
    /// Print the SHA-256 of a token, as source documents hold it
    #[command(after_help = "\
Examples:
  printf %s \"$TOKEN\" | flag-definitions-publisher hash
  flag-definitions-publisher hash < token.txt

The token is read from standard input, not from an argument that other users see in the process list.
One newline at its end is not part of it.")]
    Hash,
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  flag-definitions-publisher completions bash > /etc/bash_completion.d/flag-definitions-publisher
  flag-definitions-publisher completions zsh > \"${fpath[1]}/_flag-definitions-publisher\"")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The completions of a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    let name = env!("CARGO_PKG_NAME");
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    String::from_utf8_lossy(&script).trim_end().to_owned()
}

/// Options of `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// Source document (JSON); - reads standard input
    #[arg(long, value_name = "FILE", env = "FLAG_DEFINITIONS_FILE")]
    pub file: PathBuf,
    /// redis://user:password@host:port/database, rediss://… for TLS, or unix:///path
    // The value stays hidden: --help would show the password that is in the environment.
    #[arg(
        long,
        value_name = "URL",
        env = "REDIS_URL",
        hide_env_values = true,
        required_unless_present = "dry_run"
    )]
    pub redis_url: Option<String>,
    /// What there is to know of Redis besides its URL.
    #[command(flatten)]
    pub redis: Redis,
    /// Publish a document without teams too, with which filters refuse every token
    #[arg(
        long,
        env = "FLAG_DEFINITIONS_ALLOW_EMPTY",
        value_parser = FalseyValueParser::new()
    )]
    pub allow_empty: bool,
    /// Check the document and show what would be written; with a Redis URL also what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// What there is to know of Redis besides its URL.
#[derive(Debug, Args)]
pub struct Redis {
    /// CA of Redis' certificate (PEM), with rediss:// [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "REDIS_CA_FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// What the keys begin with: snapshot.prefix of the plugin configuration
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLAG_DEFINITIONS_PREFIX",
        default_value = "flag_definitions:",
        value_parser = prefix
    )]
    pub prefix: String,
}

impl Redis {
    /// The server of this URL.
    ///
    /// # Errors
    /// When the URL or the CA file is refused.
    pub fn server(&self, url: &str) -> Result<Server, Error> {
        let server = Server::parse(url).map_err(Error::Url)?;
        match &self.redis_ca_file {
            None => Ok(server),
            Some(file) => server
                .trusting(file)
                .map_err(|error| Error::Ca(file.clone(), error)),
        }
    }
}

/// Options of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// postgres://user:password@host:port/database
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub postgres_url: String,
    /// The same database without a pooler before it, for LISTEN [default: --postgres-url]
    #[arg(
        long,
        value_name = "URL",
        env = "LISTEN_DATABASE_URL",
        hide_env_values = true
    )]
    pub listen_url: Option<String>,
    /// CA of Postgres' certificate (PEM) [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "POSTGRES_CA_FILE")]
    pub postgres_ca_file: Option<PathBuf>,
    /// redis://user:password@host:port/database, rediss://… for TLS, or unix:///path
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: String,
    /// The Redis that holds PostHog's flag definitions [default: --redis-url]
    #[arg(
        long,
        value_name = "URL",
        env = "DEFINITIONS_REDIS_URL",
        hide_env_values = true
    )]
    pub definitions_redis_url: Option<String>,
    /// CA of that Redis' certificate (PEM) [default: --redis-ca-file]
    #[arg(long, value_name = "FILE", env = "DEFINITIONS_REDIS_CA_FILE")]
    pub definitions_redis_ca_file: Option<PathBuf>,
    /// What there is to know of Redis besides its URL.
    #[command(flatten)]
    pub redis: Redis,
    /// What PostHog's keys begin with: definitions.key_prefix of the plugin configuration
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLAG_DEFINITIONS_KEY_PREFIX",
        default_value = "posthog:",
        value_parser = prefix
    )]
    pub key_prefix: String,
    /// Version in PostHog's keys: definitions.cache_version of the plugin configuration
    #[arg(
        long,
        value_name = "VERSION",
        env = "FLAG_DEFINITIONS_CACHE_VERSION",
        default_value = "1",
        value_parser = prefix
    )]
    pub cache_version: String,
    /// Time between two full reads of the database: 100ms to 24h
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_DIFF_INTERVAL",
        default_value = "30s",
        value_parser = duration
    )]
    pub diff_interval: Duration,
    /// Time between two checks of all ETags: 100ms to 24h. A filter answers 304 by itself while the last check is
    /// younger than its snapshot.etag_max_age
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_SWEEP_INTERVAL",
        default_value = "1s",
        value_parser = duration
    )]
    pub sweep_interval: Duration,
    /// Time between two snapshots when something changed: 100ms to 24h
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_SNAPSHOT_INTERVAL",
        default_value = "10m",
        value_parser = duration
    )]
    pub snapshot_interval: Duration,
    /// How long changes stay in the stream: 100ms to 24h. A filter that was away for longer loads the snapshot
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAG_DEFINITIONS_RETENTION",
        default_value = "1h",
        value_parser = duration
    )]
    pub retention: Duration,
    /// Largest part that one full read may remove without being doubted, in percent; 100 trusts all. Removals are held
    /// back when they are more than this of the teams and at least three of them, more than this of teams and credentials
    /// together and more than 100, every team, or every one of several credentials. One revoked credential always goes out
    #[arg(
        long,
        value_name = "PERCENT",
        env = "FLAG_DEFINITIONS_MAX_REMOVAL_PERCENT",
        default_value_t = MAX_REMOVAL_PERCENT,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    pub max_removal_percent: u32,
    /// Address and port of /metrics and /healthz, or off
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "FLAG_DEFINITIONS_LISTEN",
        default_value = "127.0.0.1:9105"
    )]
    pub listen: Listen,
    /// How logs are written.
    #[command(flatten)]
    pub logging: Logging,
}

impl Cli {
    /// Reads the command line. What is not a command to run (help, version, bad usage) has been shown, and
    /// is the exit code.
    ///
    /// # Errors
    /// The exit code.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let error = without_value(error);
            if error.print().is_err() {
                progress::say("error: the help could not be written");
            }
            if error.use_stderr() {
                ExitCode::from(BAD_USAGE)
            } else {
                ExitCode::SUCCESS
            }
        })
    }
}

/// What the filter's configuration takes as `snapshot.prefix`.
fn prefix(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("must not be empty"),
        text if text.len() > 200 || text.chars().any(char::is_control) => {
            Err("must be at most 200 bytes, without control characters")
        }
        text => Ok(text.to_owned()),
    }
}

/// A duration within what an interval may be.
fn duration(text: &str) -> Result<Duration, String> {
    const RANGE: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
    let duration = parse_duration(text)?;
    if RANGE.contains(&duration) {
        Ok(duration)
    } else {
        Err("is out of range, use 100ms to 24h".to_owned())
    }
}

/// Takes a misplaced value out of clap's message: it may be a token or a URL with a password.
fn without_value(mut error: clap::Error) -> clap::Error {
    if matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        let hidden = ContextValue::String("…".to_owned());
        error.insert(ContextKind::InvalidValue, hidden);
        return error;
    }
    let value = match error.kind() {
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
        _ => None,
    };
    match value {
        Some(ContextValue::String(value)) if !value.starts_with('-') => Cli::command().error(
            error.kind(),
            "an argument without an option (not shown, it may be secret); see --help. \
             `hash` reads the token from standard input",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
