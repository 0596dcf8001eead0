//! `diff`: what a publish, or a full read by `watch`, would change. Nothing is written.

use std::path::PathBuf;

use clap::Args;

use super::comparison::Comparison;
use super::{DIFFERENT, Done, document};
use crate::error::Error;
use crate::progress::say;
use crate::redis::lock::LockToken;
use crate::redis::options::ConnectionOptions;
use crate::redis::published::{self, Fault, PublishedSnapshot};
use crate::redis::store::SnapshotStore;
use crate::sources::left_out::LeftOutReason;
use crate::sources::posthog::database::Database;
use crate::sources::{Reading, Source};
use crate::watch::difference::between;
use crate::watch::doubt::{Doubt, MAX_REMOVAL_PERCENT};
use crate::watch::state::{PublishedState, RecordChange};

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffOptions {
    /// What is compared with what is published.
    #[command(flatten)]
    pub wanted: WantedOptions,
    /// CA of Postgres' certificate (PEM) [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "POSTGRES_CA_FILE")]
    pub postgres_ca_file: Option<PathBuf>,
    /// Where the snapshot is.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Show at most this many differences one by one
    #[arg(
        long,
        value_name = "COUNT",
        env = "FLAG_DEFINITIONS_EXAMPLES",
        default_value_t = 20
    )]
    pub examples: usize,
    /// What `watch` is told: largest part that one full read may remove without being doubted, in percent
    #[arg(
        long,
        value_name = "PERCENT",
        env = "FLAG_DEFINITIONS_MAX_REMOVAL_PERCENT",
        default_value_t = MAX_REMOVAL_PERCENT,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    pub max_removal_percent: u32,
}

/// What is compared: one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct WantedOptions {
    /// Source document (JSON) to compare; - reads standard input
    #[arg(long, value_name = "FILE", env = "FLAG_DEFINITIONS_FILE")]
    pub file: Option<PathBuf>,
    /// Database to compare: postgres://user:password@host:port/database
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub postgres_url: Option<String>,
}

/// Compares, and returns what differs.
///
/// # Errors
/// When an option or the document is refused, or Redis or the database fails.
pub fn run(options: &DiffOptions) -> Result<Done, Error> {
    let server = options.connection.server()?;
    let wanted = options.wanted()?;
    say(&format!(
        "reading what is published in Redis at {}",
        server.address()
    ));
    let mut store =
        SnapshotStore::connect(&server, &options.connection.prefix, &LockToken::random()?)?;
    let published = published::read(&mut store, |_| Ok(()))?;
    let percent = options.max_removal_percent;
    let difference = compare(published, wanted, options.examples, percent);
    Ok(Done {
        text: difference.text,
        code: if difference.none { 0 } else { DIFFERENT },
    })
}

impl DiffOptions {
    fn wanted(&self) -> Result<Reading, Error> {
        let url = match (&self.wanted.file, &self.wanted.postgres_url) {
            (Some(file), None) => return Ok(document::read(file)?),
            (None, Some(url)) => url,
            // Either may come from the environment: clap's message would not say so.
            _ => return Err(Error::TwoSources),
        };
        let database = Database::parse(url, None, self.postgres_ca_file.as_deref())?;
        say(&format!("reading Postgres at {}", database.address()));
        let reading = database.read_all(&mut |_| ())?;
        for reason in LeftOutReason::ALL {
            if let Some(rows) = reading.left_out.of(reason) {
                say(&format!(
                    "warning: rows {} are left out: {} ({rows})",
                    reason.text(),
                    rows.count
                ));
            }
        }
        Ok(reading)
    }
}

/// The difference in words.
#[derive(Debug)]
pub struct DifferenceInWords {
    /// Lines, without a newline at the end.
    pub text: String,
    /// Whether there is none for sure.
    pub none: bool,
}

/// Compares, and shows at most `examples` differences one by one. It says whether `watch` would hold the removals back,
/// given its `max_removal_percent`.
pub fn compare(
    published: PublishedSnapshot,
    wanted: Reading,
    examples: usize,
    max_removal_percent: u32,
) -> DifferenceInWords {
    let comparison = Comparison::of(&published.records, &wanted.records, examples);
    let mut text = format!("compared with {}\n{comparison}", what(&published));
    let manifest = published.manifest.as_ref();
    let is_lineage = published.fault.is_none() && manifest.is_some_and(|it| it.lineage != 0);
    let state = PublishedState::of(published.records);
    let changes: Vec<RecordChange> = between(state.records(), wanted.records).collect();
    let lacks_project_keys = wanted.lacks_project_keys;
    let doubt = Doubt::of(&state, &changes, lacks_project_keys, max_removal_percent);
    let doubt = doubt.filter(|doubt| is_lineage || doubt.without_lineage().is_some());
    if let Some(doubt) = doubt {
        text.push_str(&format!(
            "\n{doubt}: `watch` would hold {} removals back, `publish` would not",
            comparison.removals(),
        ));
    }
    if comparison.leaves_no_team() {
        text.push_str("\nno team would be left: `publish` needs --allow-empty");
    }
    let none = published.fault.is_none() && comparison.is_empty();
    text.push_str(match (&published.fault, none) {
        (_, true) => "\nno difference",
        (None | Some(Fault::NoManifest), false) => "",
        (Some(_), false) => "\nwhat is published is not whole, and may differ in more",
    });
    DifferenceInWords { text, none }
}

/// What it was compared with.
fn what(published: &PublishedSnapshot) -> String {
    let mut text = match &published.manifest {
        Some(manifest) => format!(
            "generation {} as of {}",
            manifest.generation, published.last
        ),
        None => "an empty snapshot".to_owned(),
    };
    if let Some(fault) = &published.fault {
        text.push_str(&format!(": {fault}"));
    }
    text
}
