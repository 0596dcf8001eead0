//! Logs of a program that runs for long: events on standard error, as text or as one JSON object a line.
//!
//! What a command says to the person who started it is no log: [`crate::progress`].

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// Options of the logs.
#[derive(Clone, Copy, Debug, Args)]
pub struct LoggingOptions {
    /// How logs are written [default: text on a terminal, else json]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "FLAG_DEFINITIONS_LOG_FORMAT",
        value_enum
    )]
    pub log_format: Option<Format>,
    /// The least important events that are logged
    #[arg(
        long,
        value_name = "LEVEL",
        env = "FLAG_DEFINITIONS_LOG_LEVEL",
        value_enum,
        default_value_t = Level::Info
    )]
    pub log_level: Level,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One object a line: `timestamp`, `level`, `message`, and the event's own fields.
    Json,
}

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Somebody has to act.
    Error,
    /// Something is not as it should be, and is dealt with.
    Warn,
    /// What happens now and then.
    Info,
    /// What happens all the time.
    Debug,
}

impl LoggingOptions {
    /// Begins to write events.
    pub fn start(self) {
        let terminal = io::stderr().is_terminal();
        let unless_said = if terminal { Format::Text } else { Format::Json };
        let events = fmt()
            .with_writer(io::stderr)
            .with_max_level(self.log_level.filter())
            .with_target(false)
            .with_ansi(terminal);
        // It fails where events are written already.
        let _ = match self.log_format.unwrap_or(unless_said) {
            Format::Text => tracing::subscriber::set_global_default(events.finish()),
            Format::Json => {
                tracing::subscriber::set_global_default(events.json().flatten_event(true).finish())
            }
        };
    }
}

impl Level {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}
