//! `diff`: what a publish, or a full read by `watch`, would change. Nothing is written.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Redis;
use crate::comparison::{Comparison, MAX_REMOVAL_PERCENT};
use crate::error::Error;
use crate::progress::say;
use crate::publish;
use crate::published::{self, Fault, Published, Records};
use crate::store::Store;
use crate::{DIFFERENT, Done};

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Source document (JSON) to compare; - reads standard input
    #[arg(long, value_name = "FILE", env = "FLAG_DEFINITIONS_FILE")]
    pub file: PathBuf,
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
}

/// Compares, and returns what differs.
///
/// # Errors
/// When an option or the document is refused, or Redis fails.
pub fn run(options: &Diff) -> Result<Done, Error> {
    let server = options.redis.server(&options.redis_url)?;
    let wanted = publish::records(publish::read_document(&options.file)?);
    say(&format!(
        "reading what is published in Redis at {}",
        server.address()
    ));
    let mut store = Store::connect(&server, &options.redis.prefix)?;
    let published = published::read(&mut store)?;
    let difference = compare(&published, &wanted, options.examples);
    Ok(Done {
        text: difference.text,
        code: if difference.none { 0 } else { DIFFERENT },
    })
}

/// The difference in words.
#[derive(Debug)]
pub struct Difference {
    /// Lines, without a newline at the end.
    pub text: String,
    /// Whether there is none for sure.
    pub none: bool,
}

/// Compares, and shows at most `examples` differences one by one.
pub fn compare(published: &Published, wanted: &Records, examples: usize) -> Difference {
    let comparison = Comparison::of(&published.records, wanted, examples);
    let mut text = format!("compared with {}\n{comparison}", what(published));
    if comparison.is_suspicious() {
        text.push_str(&format!(
            "\nmore than {MAX_REMOVAL_PERCENT} % of what is published would be removed: \
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
