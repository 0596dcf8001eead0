//! `publish`: a source document becomes the current snapshot.
//!
//! The order is what keeps filters safe: the whole document is checked before Redis is asked anything; pages
//! before the manifest that names them; the manifest in one step that cannot roll back. The manifest decides:
//! until it is written, all that was written is invisible and is removed again when something fails. What a
//! killed publish leaves, the next one lets expire.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::counts::KindCounts;
use flag_definitions_filter::snapshot::manifest::{self, Manifest, PageDigest};
use flag_definitions_filter::snapshot::page::{self, Page};

use super::{diff, document};
use crate::error::Error;
use crate::progress::{PageProgress, say};
use crate::redis::error::SnapshotStoreError;
use crate::redis::lock::{LockToken, Taken};
use crate::redis::options::ConnectionOptions;
use crate::redis::published;
use crate::redis::store::{Reservation, SnapshotPlace, SnapshotStore};
use crate::sources::Reading;
use crate::sources::kinds::RecordOwner;
use crate::watch::doubt::MAX_REMOVAL_PERCENT;
use crate::watch::state::PublishedState;

/// Options of `publish`.
#[derive(Debug, Args)]
// A dry run can do without Redis.
#[command(mut_arg("redis_url", |url| url.required(false).required_unless_present("dry_run")))]
pub struct PublishOptions {
    /// Source document (JSON); - reads standard input
    #[arg(long, value_name = "FILE", env = "FLAG_DEFINITIONS_FILE")]
    pub file: PathBuf,
    /// Where the snapshot is.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Publish a document without teams too, with which filters refuse every token
    #[arg(
        long,
        env = "FLAG_DEFINITIONS_ALLOW_EMPTY",
        value_parser = FalseyValueParser::new()
    )]
    pub allow_empty: bool,
    /// Check the document and show what would be written; with a Redis URL also what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// How many differences a dry run shows one by one.
const EXAMPLES: usize = 20;

/// Publishes, and returns the line that says what was published.
///
/// # Errors
/// When an option or the document is refused, or Redis fails.
pub fn run(options: &PublishOptions) -> Result<String, Error> {
    let connection = &options.connection;
    let has_redis = connection.redis_url.is_some();
    let server = has_redis.then(|| connection.server()).transpose()?;
    let document = document::read(&options.file)?;
    if document.counts.teams == 0 && !options.allow_empty {
        return Err(Error::NoTeams(options.file.clone()));
    }
    let snapshot = Snapshot::of(&document);
    let prefix = &connection.prefix;
    let Some(server) = server else {
        return Ok(snapshot.plan(prefix));
    };
    say(&format!("connecting to Redis at {}", server.address()));
    let token = LockToken::random()?;
    let mut store = SnapshotStore::connect(&server, prefix, &token)?;
    if options.dry_run {
        let published = published::read(&mut store, |_| Ok(()))?;
        let difference = diff::compare(published, document, EXAMPLES, MAX_REMOVAL_PERCENT);
        return Ok(format!("{}\n{}", difference.text, snapshot.plan(prefix)));
    }
    if store.take_lock(0)? == Taken::Held {
        return Err(Error::LockHeld);
    }
    let result = snapshot.publish(&mut store);
    // Otherwise it expires.
    let _ = store.release_lock();
    Ok(result?)
}

/// A checked document, ready to be written.
struct Snapshot {
    pages: Vec<Page>,
    counts: KindCounts,
}

impl Snapshot {
    fn of(reading: &Reading) -> Self {
        let by_hash = reading.records.iter();
        Self {
            pages: page::split(by_hash.map(|(hash, record)| (*hash, record.as_ref()))),
            counts: PublishedState::of(reading.records.clone()).counts(),
        }
    }

    fn publish(&self, store: &mut SnapshotStore<'_>) -> Result<String, SnapshotStoreError> {
        let current = store.current()?.unwrap_or_default();
        let reservation = store.reserve(current.generation)?;
        let manifest = self.manifest(current, reservation);
        let unexpired = match self.write(store, &manifest) {
            Ok(unexpired) => unexpired,
            // The manifest may name these pages.
            Err(error @ SnapshotStoreError::Uncertain { .. }) => return Err(error),
            Err(error) => {
                if let Err(left) = store.remove_pages(manifest.generation, self.pages.len()) {
                    say(&format!(
                        "warning: pages are left until the next publish: {left}"
                    ));
                }
                say("the current snapshot was not touched");
                return Err(error);
            }
        };
        if let Some(problem) = unexpired {
            say(&format!(
                "warning: published, but the pages of generation {} do not expire: {problem}",
                current.generation
            ));
        }
        if let Err(error) = store.expire_leftovers(manifest.generation, current.generation) {
            say(&format!("warning: published, but {error}"));
        }
        Ok(format!(
            "published generation {} ({self}) as of {}",
            manifest.generation, manifest.stream_id
        ))
    }

    fn write(
        &self,
        store: &mut SnapshotStore<'_>,
        manifest: &Manifest,
    ) -> Result<Option<String>, SnapshotStoreError> {
        let json = serde_json::to_vec(manifest).map_err(SnapshotStoreError::Encode)?;
        let mut progress = PageProgress::new(self.pages.len());
        for (index, page) in self.pages.iter().enumerate() {
            store.write_page(manifest.generation, index, page)?;
            progress.wrote_page();
        }
        store.replace_manifest(manifest, &json, false)
    }

    fn manifest(&self, current: SnapshotPlace, reservation: Reservation) -> Manifest {
        if current.stream_id.millis > reservation.millis {
            say(&format!(
                "warning: the clock of Redis is {} ms behind the current snapshot; counting on from that",
                current.stream_id.millis - reservation.millis
            ));
        }
        Manifest {
            format: manifest::FORMAT,
            generation: reservation.generation,
            stream_id: id_after(current.stream_id, reservation.millis),
            pages: self.pages.iter().map(PageDigest::of).collect(),
            etags_watched: false,
            lineage: 0,
            records: self.counts.clone(),
            surfaces: Vec::new(),
        }
    }

    /// What would be written.
    fn plan(&self, prefix: &str) -> String {
        let last = self.pages.len().saturating_sub(1);
        let pages = if last == 0 {
            "0".to_owned()
        } else {
            format!("0 to {last}")
        };
        format!(
            "would publish {self}\n\
             would write {prefix}snapshot:<generation>:<page>, page {pages}\n\
             would replace {prefix}snapshot\n\
             dry run, nothing was written"
        )
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = RecordOwner::of_sources();
        let mut counts = Vec::new();
        for (place, kind) in owner.kinds().iter().enumerate() {
            let count = self.counts.of(kind.manifest);
            if place < owner.always_told() || count > 0 {
                counts.push(format!("{count} {}", kind.words));
            }
        }
        let pages = self.pages.len();
        let plural = if pages == 1 { "page" } else { "pages" };
        let bytes: usize = self.pages.iter().map(|page| page.bytes.len()).sum();
        write!(f, "{}; {pages} {plural}, {bytes} bytes", counts.join(", "))
    }
}

/// The id of a snapshot taken now. A filter loads only what is newer than what it has, so ids go up even when
/// the clock of Redis goes back, or two publishes share a millisecond.
fn id_after(current: StreamId, millis: u64) -> StreamId {
    StreamId {
        millis: millis.max(current.millis.saturating_add(1)),
        sequence: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_up_even_when_the_clock_goes_back() {
        let id = |text: &str| text.parse::<StreamId>().unwrap();
        for (current, millis, next) in [
            ("0-0", 50, "50-0"),
            ("49-7", 50, "50-0"),
            ("50-0", 50, "51-0"),
            ("50-7", 50, "51-0"),
            ("90-7", 50, "91-0"),
        ] {
            assert_eq!(id_after(id(current), millis), id(next), "{current}");
        }
    }
}
