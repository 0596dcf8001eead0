//! The command line: reads it, and hands it to the command. The options of a command are in its own room.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use crate::commands::diff::{self, DiffOptions};
use crate::commands::inspect::{self, Inspect};
use crate::commands::publish::{self, PublishOptions};
use crate::commands::watch::{self, WatchOptions};
use crate::commands::{Done, hash};
use crate::error::{BAD_USAGE, Error};
use crate::progress;

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
    Publish(PublishOptions),
    /// Show what a publish, or `watch`, would change; writes nothing
    #[command(after_help = "\
Examples:
  flag-definitions-publisher diff --file snapshot.json --redis-url redis://127.0.0.1:6379
  flag-definitions-publisher diff --file - --examples 0 < snapshot.json
  DATABASE_URL=postgres://… REDIS_URL=rediss://… flag-definitions-publisher diff

Compares with what filters have that are up to date: the current snapshot and all changes after it. ETags are
left out. Tokens are shown by the first digits of their SHA-256.
Exit codes: 0 no difference, 1 failed, 2 bad usage or bad document, 3 there are differences.")]
    Diff(DiffOptions),
    /// Show what filters would decide from what is published, and why
    #[command(subcommand)]
    Inspect(Inspect),
    /// Keep the snapshot in Redis up to date with PostHog's database and its cache of flag definitions, or with a file
    #[command(after_help = "\
Examples:
  flag-definitions-publisher watch --postgres-url postgres://reader@db/posthog --redis-url redis://127.0.0.1:6379
  DATABASE_URL=… REDIS_URL=… flag-definitions-publisher watch --snapshot-interval 5m
  flag-definitions-publisher watch --file snapshot.json --redis-url redis://127.0.0.1:6379

Several instances may run: one writes, the others wait and take over within 5 seconds of its end.
SIGTERM and SIGINT end it after the write under way.")]
    Watch(Box<WatchOptions>),
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
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    let name = env!("CARGO_PKG_NAME");
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    String::from_utf8_lossy(&script).trim_end().to_owned()
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

impl Subcommand {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it is not done.
    pub fn run(&self) -> Result<Done, Error> {
        match self {
            Self::Publish(options) => publish::run(options).map(Done::from),
            Self::Diff(options) => diff::run(options),
            Self::Inspect(what) => inspect::run(what),
            Self::Watch(options) => watch::run(options).map(|()| Done::default()),
            Self::Hash => hash::run().map(Done::from),
            Self::Completions { shell } => Ok(completions(*shell).into()),
        }
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
