//! The command line. Every option of `publish` may come from the environment.
//!
//! The Redis URL is checked where it is used, not by clap: clap's messages repeat a refused value, and the
//! URL holds a password.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser};
use clap_complete::Shell;

use crate::diff::Diff;
use crate::error::{BAD_USAGE, Error};
use crate::inspect::Inspect;
use crate::progress;
use crate::server::Server;

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
