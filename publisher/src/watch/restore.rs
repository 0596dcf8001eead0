//! What an earlier publisher left: its snapshot and all changes after it make up the published state, if nothing
//! of that is missing. Then only what differs from it is to be published.

use flag_definitions_filter::snapshot::manifest::{self, Manifest};

use super::state::PublishedState;
use super::stream::{self, End};
use crate::redis::error::SnapshotStoreError;
use crate::redis::published::{self, PublishedSnapshot};
use crate::redis::store::{SnapshotPlace, SnapshotStore};

/// What was found.
pub enum Inherited {
    /// A lineage that can be continued.
    Lineage(Box<Restored>),
    /// Nothing that can be continued.
    Nothing {
        /// Why.
        reason: String,
        /// What a new lineage must lie above.
        above: SnapshotPlace,
        /// What could be read all the same: a first reading of the database that lacks too much of it is not believed.
        remains: PublishedState,
        /// Whether that is all that was there.
        is_whole: bool,
    },
}

/// A lineage that can be continued.
pub struct Restored {
    /// What is published.
    pub state: PublishedState,
    /// The current manifest.
    pub manifest: Manifest,
    /// Where the next change goes.
    pub end: End,
}

/// Reads what is there, as the holder of the lock with this fencing number, so that nobody changes it meanwhile.
///
/// # Errors
/// When Redis fails, or another publisher holds the lock.
pub fn find(store: &mut SnapshotStore<'_>, fence: u64) -> Result<Inherited, SnapshotStoreError> {
    let published = published::read(store, SnapshotStore::keep_lock)?;
    let key = manifest::key(store.prefix());
    let json: Option<Vec<u8>> = store.read("GET", &key, "reading the current manifest")?;
    let manifest = match continuable(&published, fence) {
        Ok(manifest) => manifest,
        Err(reason) => {
            let mut above = json.as_deref().map(SnapshotPlace::read).unwrap_or_default();
            // A stream that cannot be read is replaced; then its ids do not count.
            let newest = store.newest_change().unwrap_or_default();
            above.stream_id = above.stream_id.max(newest.unwrap_or_default());
            let is_whole = published.fault.is_none();
            let remains = PublishedState::of(published.records);
            return Ok(Inherited::Nothing {
                reason,
                above,
                remains,
                is_whole,
            });
        }
    };
    let changes = manifest::changes_key(store.prefix());
    let end = End {
        previous: published.last,
        newest: store.newest_change()?,
        length: store.read("XLEN", &changes, "counting changes")?,
        manifest: stream::head(&json.unwrap_or_default()),
        fence,
    };
    Ok(Inherited::Lineage(Box::new(Restored {
        state: PublishedState::of(published.records),
        manifest,
        end,
    })))
}

/// The manifest of a published state that can be continued, else why it cannot.
fn continuable(published: &PublishedSnapshot, fence: u64) -> Result<Manifest, String> {
    if let Some(fault) = &published.fault {
        return Err(fault.to_string());
    }
    let manifest = published.manifest.clone().ok_or("there is no snapshot")?;
    if manifest.lineage == 0 {
        return Err("the current snapshot is one of a file".to_owned());
    }
    if published.fence >= fence {
        // Filters would take what this publisher writes for the words of one that lost its lock.
        return Err("Redis lost the fencing counter".to_owned());
    }
    Ok(manifest)
}
