//! Publishes the snapshot that `flag-definitions-filter` decides from.
//!
//! | room | job |
//! |---|---|
//! | [`progress`], [`logging`] | what a person or a log is told on standard error |
//! | [`redis`] | the Redis that holds the snapshot: connection, lock, commands, what is published |
//! | [`sources`] | where the records to publish come from, and whose each is |
//! | [`watch`] | keeps the snapshot up to date with its sources |
//! | [`error`] | everything that can go wrong, and the exit code |
//! | [`commands`] | `publish`, `diff`, `inspect`, `watch`, `hash`, with their options |
//! | [`cli`] | the command line |
//!
//! A room imports from those above it (`tests/floors.rs` of the workspace).

pub mod cli;
pub mod commands;
pub mod error;
pub mod logging;
pub mod progress;
pub mod redis;
pub mod sources;
pub mod watch;

use std::io::Write;
use std::process::ExitCode;

use cli::Cli;
use error::Error;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(shown) => return shown,
    };
    let result = cli.subcommand.run();
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
