//! Publishes the snapshot that `flag-definitions-filter` decides from.
//!
//! | room | job |
//! |---|---|
//! | [`cli`] | subcommands and options |
//! | [`publish`] | the order in which a document becomes the snapshot |
//! | [`diff`], [`comparison`] | what a publish or a full read would change |
//! | [`inspect`] | what a filter would decide, and why |
//! | [`describe`] | records in words |
//! | [`server`] | the Redis URL, the connection, and what Redis says when it refuses |
//! | [`store`] | the commands sent to Redis |
//! | [`published`] | what is in Redis: manifest, pages, and the changes after them |
//! | [`lock`] | one publisher at a time |
//! | [`watch`] | keeps the snapshot up to date with the database and with PostHog's ETags |
//! | [`progress`] | what is shown while pages are written |
//! | [`hash`] | a token's SHA-256, as source documents want it |
//! | [`logging`] | events of `watch` on standard error |
//! | [`monitor`] | `/metrics` and `/healthz` of `watch` |
//! | [`postgres`] | what PostHog's database holds, and what changes there |
//! | [`error`] | everything that can go wrong, and the exit code |

pub mod cli;
pub mod comparison;
pub mod describe;
pub mod diff;
pub mod error;
pub mod hash;
pub mod inspect;
pub mod lock;
pub mod logging;
pub mod monitor;
pub mod postgres;
pub mod progress;
pub mod publish;
pub mod published;
pub mod server;
pub mod store;
pub mod watch;

use std::io::Write;
use std::process::ExitCode;

use cli::{Cli, Subcommand};
use error::Error;

/// Exit code when what was compared differs, or what was asked for is not found or refused.
pub const DIFFERENT: u8 = 3;

/// What a command came to.
#[derive(Debug, Default)]
pub struct Done {
    /// For standard output; empty: nothing.
    pub text: String,
    /// The program's exit code.
    pub code: u8,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(shown) => return shown,
    };
    let result = match cli.subcommand {
        Subcommand::Publish(options) => publish::run(&options).map(Done::from),
        Subcommand::Diff(options) => diff::run(&options),
        Subcommand::Inspect(what) => inspect::run(&what),
        Subcommand::Watch(options) => watch::run(&options).map(|()| Done::default()),
        Subcommand::Hash => hash::run().map(Done::from),
        Subcommand::Completions { shell } => Ok(cli::completions(shell).into()),
    };
    match result.and_then(|done| print(&done.text).map(|()| done.code)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            progress::say(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Unlike `println!`, survives a reader that went away.
fn print(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(std::io::stdout(), "{text}").map_err(Error::Output)
}
