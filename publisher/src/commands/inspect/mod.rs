//! `inspect`: what a filter would decide from what is published, and why. Nothing is written, no token is shown.

mod others;
mod team;
mod token;

use std::io::{self, IsTerminal};

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use flag_definitions_filter::records::StreamId;
use serde::Serialize;

use super::{DIFFERENT, Done, input};
use crate::error::{Error, TokenInputError};
use crate::progress::say;
use crate::redis::lock::LockToken;
use crate::redis::options::ConnectionOptions;
use crate::redis::published::{self, PublishedSnapshot};
use crate::redis::store::SnapshotStore;
use others::Others;

/// What is looked into.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// A team: its tokens, who may read its definitions, and its ETag
    #[command(after_help = "\
Examples:
  flag-definitions-publisher inspect team 4021 --redis-url redis://127.0.0.1:6379
  flag-definitions-publisher inspect team 4021 --json | jq .etag

Exit codes: 0 the team is published, 1 failed, 2 bad usage, 3 it is not.")]
    Team {
        /// The team's id
        #[arg(value_name = "ID")]
        id: u32,
        /// Where it is published.
        #[command(flatten)]
        access: AccessOptions,
    },
    /// A token or credential, read from standard input: what it is, and what a request with it is answered
    #[command(after_help = "\
Examples:
  printf %s \"$TOKEN\" | flag-definitions-publisher inspect token --redis-url redis://127.0.0.1:6379
  printf '%s\\n%s\\n' \"$PROJECT_TOKEN\" \"$PERSONAL_KEY\" | flag-definitions-publisher inspect token --credential

Tokens are read from standard input, not from arguments that other users see in the process list, and are never
shown. With --credential the first line is the project token (empty: the request names none) and the second the
bearer of `Authorization`.
Exit codes: 0 found, or the request is allowed; 1 failed; 2 bad usage; 3 not found, or the request is refused.")]
    Token {
        /// Read a bearer credential from the second line, and judge both together
        #[arg(long)]
        credential: bool,
        /// Where it is published.
        #[command(flatten)]
        access: AccessOptions,
    },
}

/// Where the published state is, and how it is shown.
#[derive(Debug, Args)]
pub struct AccessOptions {
    /// Where the snapshot is.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Show one JSON object
    #[arg(
        long,
        env = "FLAG_DEFINITIONS_JSON",
        value_parser = BoolishValueParser::new()
    )]
    pub json: bool,
}

/// Looks, and returns what is found.
///
/// # Errors
/// When an option or the token is refused, or Redis fails.
pub fn run(what: &Inspect) -> Result<Done, Error> {
    match what {
        Inspect::Team { id, access } => {
            let (published, state) = access.read()?;
            let view = team::TeamView::of(*id, &published, state);
            access.show(&view, view.is_found())
        }
        Inspect::Token { credential, access } => {
            // Before anything is asked, so that a forgotten pipe does not cost a wait.
            let input = token::TokenInput::parse(&lines(*credential)?, *credential)?;
            let (published, state) = access.read()?;
            let view = token::TokenView::of(&input, &published, state);
            access.show(&view, view.is_allowed())
        }
    }
}

/// What is said of the published state as a whole.
#[derive(Debug, Serialize)]
struct StateView {
    /// `null`: nothing is published.
    generation: Option<u64>,
    /// As of when everything is true that is shown.
    stream_id: String,
    /// How long ago the newest watermark was true, by Redis' clock.
    watermark_age_ms: Option<u64>,
    /// Why what is shown may be wrong.
    fault: Option<String>,
    /// What is published beside PostHog's records.
    #[serde(skip_serializing_if = "Others::is_empty")]
    others: Others,
    /// Redis' clock.
    #[serde(skip)]
    now: u64,
}

impl AccessOptions {
    fn read(&self) -> Result<(PublishedSnapshot, StateView), Error> {
        let server = self.connection.server()?;
        let mut store =
            SnapshotStore::connect(&server, &self.connection.prefix, &LockToken::random()?)?;
        let published = published::read(&mut store, |_| Ok(()))?;
        let now = store.now()?;
        let watermark = published.watermark;
        let state = StateView {
            generation: published.manifest.as_ref().map(|m| m.generation),
            stream_id: published.last.to_string(),
            watermark_age_ms: watermark.map(|mark| now.saturating_sub(mark.etags_at)),
            fault: published.fault.as_ref().map(ToString::to_string),
            others: Others::of(&published.records),
            now,
        };
        Ok((published, state))
    }

    fn show<V: Serialize + ToString>(&self, view: &V, found: bool) -> Result<Done, Error> {
        let text = if self.json {
            serde_json::to_string(view).map_err(Error::Encode)?
        } else {
            view.to_string()
        };
        let code = if found { 0 } else { DIFFERENT };
        Ok(Done { text, code })
    }
}

impl StateView {
    fn ago(&self, id: StreamId) -> String {
        format!("{id} ({})", ago(self.now.saturating_sub(id.millis)))
    }
}

impl std::fmt::Display for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.generation {
            Some(generation) => write!(f, "generation {generation} as of {}", self.stream_id)?,
            None => f.write_str("no snapshot")?,
        }
        match self.watermark_age_ms {
            Some(age) => write!(f, ", watermark {}", ago(age))?,
            None => f.write_str(", no watermark")?,
        }
        write!(f, "{}", self.others)?;
        match &self.fault {
            Some(fault) => write!(f, "\nwarning: {fault}; what is shown may be wrong"),
            None => Ok(()),
        }
    }
}

/// An age in its largest unit.
fn ago(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Reads standard input.
fn lines(credential: bool) -> Result<Vec<u8>, TokenInputError> {
    if io::stdin().is_terminal() {
        say(if credential {
            "Enter the project token, then the credential, then Ctrl-D."
        } else {
            "Enter the token, then Ctrl-D."
        });
    }
    input::read(2 * input::MAX_TOKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (millis, text) in [
            (0, "0 s ago"),
            (119_999, "119 s ago"),
            (120_000, "2 min ago"),
            (7_200_000, "2 h ago"),
            (172_800_000, "2 days ago"),
        ] {
            assert_eq!(ago(millis), text);
        }
    }
}
