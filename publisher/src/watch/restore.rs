//! What an earlier publisher left: its snapshot and all changes after it make up the published state, if nothing
//! of that is missing. Then only what differs from it is to be published.

use flag_definitions_filter::directory::{CorruptRecord, Record};
use flag_definitions_filter::snapshot::StreamId;
use flag_definitions_filter::snapshot::change::{self, Change, Content};
use flag_definitions_filter::snapshot::manifest::{self, Manifest};
use flag_definitions_filter::snapshot::page::Cursor;

use super::append::{self, End};
use super::state::State;
use crate::error::Error;
use crate::store::{Current, Store};

/// Changes read by one command.
const CHANGES_AT_ONCE: usize = 200;

/// What was found.
pub enum Found {
    /// A lineage that can be continued.
    Lineage(Box<Restored>),
    /// Nothing that can be continued.
    Nothing {
        /// Why.
        reason: String,
        /// What a new lineage must lie above.
        above: Current,
    },
}

/// A lineage that can be continued.
pub struct Restored {
    /// What is published.
    pub state: State,
    /// The current manifest.
    pub manifest: Manifest,
    /// Where the next change goes.
    pub end: End,
}

/// Why a lineage cannot be continued.
enum Broken {
    Redis(Error),
    Because(String),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Redis(error)
    }
}

impl From<CorruptRecord> for Broken {
    fn from(_: CorruptRecord) -> Self {
        Self::Because("something stored is not of this format".to_owned())
    }
}

fn because<T>(reason: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Because(reason.into()))
}

/// Reads what is there, as the holder of the lock, so that nobody changes it meanwhile.
///
/// # Errors
/// When Redis fails, or another publisher holds the lock.
pub fn find(store: &mut Store<'_>, fence: u64) -> Result<Found, Error> {
    let key = manifest::key(store.prefix());
    let json: Option<Vec<u8>> = store.read("GET", &key, "reading the current manifest")?;
    let found = match &json {
        Some(json) => lineage(store, json, fence),
        None => because("there is no snapshot"),
    };
    match found {
        Ok(restored) => Ok(Found::Lineage(Box::new(restored))),
        Err(Broken::Redis(error)) => Err(error),
        Err(Broken::Because(reason)) => {
            let mut above = json.as_deref().map(Current::read).unwrap_or_default();
            // A stream that cannot be read is replaced; then its ids do not count.
            let newest = store.newest_change().unwrap_or_default();
            above.stream_id = above.stream_id.max(newest.unwrap_or_default());
            Ok(Found::Nothing { reason, above })
        }
    }
}

fn lineage(store: &mut Store<'_>, json: &[u8], fence: u64) -> Result<Restored, Broken> {
    let manifest = match Manifest::parse(json) {
        Ok(manifest) => manifest,
        Err(error) => return because(error.to_string()),
    };
    if manifest.lineage == 0 || !manifest.etags_watched {
        return because("the current snapshot is one of a file");
    }
    let mut state = pages(store, &manifest)?;
    if state.counts() != manifest.records {
        return because("the snapshot does not hold what its manifest says");
    }
    let previous = changes(store, &mut state, manifest.stream_id)?;
    let newest = store.newest_change()?;
    if newest > Some(previous) {
        return because("changes cannot be read to the end");
    }
    let key = manifest::changes_key(store.prefix());
    let end = End {
        previous,
        newest,
        length: store.read("XLEN", &key, "counting changes")?,
        manifest: append::head(json),
        fence,
    };
    Ok(Restored {
        state,
        manifest,
        end,
    })
}

fn pages(store: &mut Store<'_>, manifest: &Manifest) -> Result<State, Broken> {
    let mut state = State::default();
    for (index, digest) in manifest.pages.iter().enumerate() {
        let key = manifest::page_key(store.prefix(), manifest.generation, index);
        let page: Option<Vec<u8>> = store.read("GET", &key, "reading a page")?;
        let Some(page) = page.filter(|page| digest.matches(page)) else {
            return because(format!("page {index} of the snapshot is gone or damaged"));
        };
        let mut cursor = Cursor::new(page)?;
        while let Some((hash, record, next)) = cursor.record_at(cursor.position())? {
            state.put((hash, Some(record.into())));
            cursor.seek(next);
        }
        store.keep_lock()?;
    }
    Ok(state)
}

/// One entry as XRANGE answers: id, then names and values of fields.
type Entry = (Vec<u8>, Vec<Vec<u8>>);

/// Applies all changes after `since`, and returns the id of the last.
fn changes(store: &mut Store<'_>, state: &mut State, since: StreamId) -> Result<StreamId, Broken> {
    let key = manifest::changes_key(store.prefix());
    let mut last = since;
    loop {
        let after = format!("({last}");
        let count = CHANGES_AT_ONCE.to_string();
        let range = [&*key, &*after, "+", "COUNT", &*count];
        let entries: Vec<Entry> = store.read("XRANGE", &range, "reading changes")?;
        for (id, fields) in &entries {
            let values: Vec<&[u8]> = fields
                .iter()
                .skip(1)
                .step_by(2)
                .map(Vec::as_slice)
                .collect();
            let [previous, fence, kind, value] = *values else {
                return because("a change is not of this format");
            };
            let change = Change::parse(id, previous, fence, kind, value)?;
            if change.previous != last {
                return because(format!("changes after {last} are missing"));
            }
            last = change.id;
            if let Content::Records(bytes) = change.content {
                apply(state, change::records(bytes)?)?;
            }
        }
        store.keep_lock()?;
        if entries.len() < CHANGES_AT_ONCE {
            return Ok(last);
        }
    }
}

fn apply(state: &mut State, mut cursor: Cursor) -> Result<(), CorruptRecord> {
    while let Some((hash, record, next)) = cursor.record_at(cursor.position())? {
        let is_removal = Record::decode(record)? == Record::Tombstone;
        state.put((hash, (!is_removal).then(|| record.into())));
        cursor.seek(next);
    }
    Ok(())
}
