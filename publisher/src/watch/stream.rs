//! The end of the stream, as this publisher left it. Every entry is written after a look whether it is still so.

use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::change::Written;
use flag_definitions_filter::snapshot::manifest;

use crate::redis::error::SnapshotStoreError;
use crate::redis::store::SnapshotStore;

const APPEND: &str = concat!(
    include_str!("../redis/guard.lua"),
    include_str!("append.lua")
);
const TRIM: &str = concat!(include_str!("../redis/guard.lua"), include_str!("trim.lua"));

/// Most entries of one command, so that it does not hold Redis: 64 of at most 16 KiB, but for a single large record.
pub const AT_ONCE: usize = 64;

/// Format, generation and stream id stand first in a manifest, and take no more than this.
const HEAD_BYTES: usize = 128;

/// Where the next entry goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The last entry of the lineage, or the snapshot with which it began: what the next entry names.
    pub previous: StreamId,
    /// The newest entry in the stream, if there is one.
    pub newest: Option<StreamId>,
    /// Number of entries in the stream.
    pub length: u64,
    /// How the manifest begins: with its generation and its stream id, which no other has.
    pub manifest: Vec<u8>,
    /// This publisher's fencing number.
    pub fence: u64,
}

/// What became of a wish to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entries are in the stream. The time of Redis, Unix milliseconds.
    Written(u64),
    /// Nothing was written, because entries were removed from the stream. [`End`] is right again.
    Holes,
    /// Nothing was written, because what is there is not what this publisher left.
    Broken(&'static str),
}

/// How a manifest begins, as far as it tells it from all others.
pub fn head(manifest: &[u8]) -> Vec<u8> {
    manifest.iter().take(HEAD_BYTES).copied().collect()
}

impl End {
    /// Appends entries, at most [`AT_ONCE`].
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn append(
        &mut self,
        store: &mut SnapshotStore<'_>,
        entries: &[Written],
    ) -> Result<Appended, SnapshotStoreError> {
        let newest = self.newest.map(|id| id.to_string()).unwrap_or_default();
        let length = self.length.to_string();
        let previous = self.previous.to_string();
        let fence = self.fence.to_string();
        let mut arguments = vec![
            &self.manifest,
            newest.as_bytes(),
            length.as_bytes(),
            previous.as_bytes(),
            fence.as_bytes(),
        ];
        for entry in entries {
            arguments.push(entry.kind.as_bytes());
            arguments.push(&entry.value);
        }
        let keys = [
            &*manifest::key(store.prefix()),
            &*manifest::changes_key(store.prefix()),
        ];
        let reply = store.write(APPEND, &keys, &arguments, "writing changes")?;
        let mut reply = reply.iter().map(String::as_str);
        let outcome = reply.next().unwrap_or_default();
        let mut text = || reply.next().unwrap_or_default();
        match outcome {
            "written" => {
                if let Ok(id) = text().parse() {
                    self.previous = id;
                    self.newest = Some(id);
                    self.length += entries.len() as u64;
                }
                let mut number = || text().parse::<u64>().unwrap_or(0);
                let millis = number().saturating_mul(1_000);
                Ok(Appended::Written(millis.saturating_add(number() / 1_000)))
            }
            "changed" => {
                let newest = text().parse().ok();
                if newest > Some(self.previous) {
                    return Ok(Appended::Broken("somebody else wrote changes"));
                }
                self.newest = newest;
                self.length = text().parse().unwrap_or(0);
                Ok(Appended::Holes)
            }
            "flushed" => Ok(Appended::Broken("the manifest is gone")),
            "replaced" => Ok(Appended::Broken("somebody else replaced the manifest")),
            _ => Ok(Appended::Broken("the stream takes no further entry")),
        }
    }

    /// Removes entries older than `oldest`.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn trim(
        &mut self,
        store: &mut SnapshotStore<'_>,
        oldest: StreamId,
    ) -> Result<(), SnapshotStoreError> {
        let key = manifest::changes_key(store.prefix());
        let oldest_text = oldest.to_string();
        let doing = "trimming the changes";
        let reply = store.write(TRIM, &[&key], &[oldest_text.as_bytes()], doing)?;
        let removed = reply.get(1).and_then(|count| count.parse().ok());
        self.length = self.length.saturating_sub(removed.unwrap_or(0));
        if self.newest < Some(oldest) {
            self.newest = None;
        }
        Ok(())
    }
}
