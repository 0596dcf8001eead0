//! Publishes the snapshot that `flag-definitions-filter` decides from.
//!
//! | room | job |
//! |---|---|
//! | [`cli`] | subcommands and options |
//! | [`publish`] | the order in which a document becomes the snapshot |
//! | [`server`] | the Redis URL, the connection, and what Redis says when it refuses |
//! | [`store`] | the commands sent to Redis |
//! | [`lock`] | one publisher at a time |
//! | [`watch`] | keeps the snapshot up to date with the database and with PostHog's ETags |
//! | [`progress`] | what is shown while pages are written |
//! | [`hash`] | a token's SHA-256, as source documents want it |
//! | [`postgres`] | what PostHog's database holds, and what changes there |
//! | [`error`] | everything that can go wrong, and the exit code |

pub mod cli;
pub mod error;
pub mod hash;
pub mod lock;
pub mod postgres;
pub mod progress;
pub mod publish;
pub mod server;
pub mod store;
pub mod watch;

use std::io::Write;
use std::process::ExitCode;

use cli::{Cli, Subcommand};
use error::Error;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(shown) => return shown,
    };
    let result = match cli.subcommand {
        Subcommand::Publish(options) => publish::run(&options).map(Some),
        Subcommand::Watch(options) => watch::run(&options).map(|()| None),
        Subcommand::Hash => hash::run().map(Some),
    };
    match result.and_then(|line| line.as_deref().map_or(Ok(()), print)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Unlike `println!`, survives a reader that went away.
fn print(line: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{line}").map_err(Error::Output)
}
