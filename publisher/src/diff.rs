//! `diff`: what a publish, or a full read by `watch`, would change. Nothing is written.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Redis;
use crate::comparison::Comparison;
use crate::error::Error;
use crate::lock::Token;
use crate::postgres::{Database, Skipped};
use crate::progress::say;
use crate::publish;
use crate::published::{self, Fault, Published, Records};
use crate::store::Store;
use crate::watch::difference::{MAX_REMOVAL_PERCENT, is_suspicious};
use crate::{DIFFERENT, Done};

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// What is compared with what is published.
    #[command(flatten)]
    pub wanted: Wanted,
    /// CA of Postgres' certificate (PEM) [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "POSTGRES_CA_FILE")]
    pub postgres_ca_file: Option<PathBuf>,
    /// redis://user:password@host:port/database, rediss://… for TLS, or unix:///path
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: String,
    /// What there is to know of Redis besides its URL.
    #[command(flatten)]
    pub redis: Redis,
    /// Show at most this many differences one by one
    #[arg(
        long,
        value_name = "COUNT",
        env = "FLAG_DEFINITIONS_EXAMPLES",
        default_value_t = 20
    )]
    pub examples: usize,
    /// What `watch` is told: largest part of teams and credentials that one full read may remove
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
pub struct Wanted {
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
pub fn run(options: &Diff) -> Result<Done, Error> {
    let server = options.redis.server(&options.redis_url)?;
    let wanted = options.wanted()?;
    say(&format!(
        "reading what is published in Redis at {}",
        server.address()
    ));
    let mut store = Store::connect(&server, &options.redis.prefix, &Token::random()?)?;
    let published = published::read(&mut store, |_| Ok(()))?;
    let percent = options.max_removal_percent;
    let difference = compare(&published, &wanted, options.examples, percent);
    Ok(Done {
        text: difference.text,
        code: if difference.none { 0 } else { DIFFERENT },
    })
}

impl Diff {
    fn wanted(&self) -> Result<Records, Error> {
        let url = match (&self.wanted.file, &self.wanted.postgres_url) {
            (Some(file), None) => return publish::read_document(file).map(publish::records),
            (None, Some(url)) => url,
            // Either may come from the environment: clap's message would not say so.
            _ => return Err(Error::TwoSources),
        };
        let ca_file = self.postgres_ca_file.as_deref();
        let database = Database::parse(url, None, ca_file).map_err(Error::DatabaseUrl)?;
        say(&format!("reading Postgres at {}", database.address()));
        let reading = database.read_all(&mut |_| ()).map_err(Error::Database)?;
        let Skipped {
            pbkdf2,
            malformed,
            conflicting,
            oversized,
        } = reading.skipped;
        if pbkdf2 + malformed + conflicting + oversized > 0 {
            say(&format!(
                "rows left out: {pbkdf2} hashed with PBKDF2, {malformed} malformed, {conflicting} with the hash \
                 of another row, {oversized} too large"
            ));
        }
        Ok(reading.records)
    }
}

/// The difference in words.
#[derive(Debug)]
pub struct Difference {
    /// Lines, without a newline at the end.
    pub text: String,
    /// Whether there is none for sure.
    pub none: bool,
}

/// Compares, and shows at most `examples` differences one by one. With more removals than `max_removal_percent` it says
/// that they would be held back.
pub fn compare(
    published: &Published,
    wanted: &Records,
    examples: usize,
    max_removal_percent: u32,
) -> Difference {
    let comparison = Comparison::of(&published.records, wanted, examples);
    let mut text = format!("compared with {}\n{comparison}", what(published));
    let (removals, records) = (comparison.removals(), comparison.published());
    if is_suspicious(removals, records, max_removal_percent) {
        text.push_str(&format!(
            "\nmore than {max_removal_percent} % of what is published would be removed: \
             `watch` holds such removals back, `publish` does not"
        ));
    }
    let none = published.fault.is_none() && comparison.is_empty();
    text.push_str(match (&published.fault, none) {
        (_, true) => "\nno difference",
        (None | Some(Fault::NoManifest), false) => "",
        (Some(_), false) => "\nwhat is published is not whole, and may differ in more",
    });
    Difference { text, none }
}

/// What it was compared with.
fn what(published: &Published) -> String {
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
