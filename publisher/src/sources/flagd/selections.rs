//! What all sources say together, and what is told of it. No clock, no thread and no file is here: time is an argument.
//!
//! Each source keeps the last document that it gave. Nothing is told before every one was read: flags that a source lacks only
//! because it is away must not be taken away. What an earlier publisher took of a source stands for it meanwhile. A source whose first document is refused has no flags, as flagd has it; as long as
//! there is such a one, what is told is for where nothing was published before.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::ofrep::flagd::{FlagdDocument, Selector, selections};
use flag_definitions_filter::surfaces::ofrep::records::{
    OfrepRecord, SourcesState, selection_hash, sources_hash,
};
use flag_definitions_filter::tenant::Tenant;
use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::{error, info};

use crate::sources::documents::{DocumentNews, SourcedDocument};
use crate::sources::polls::{PollFailure, Polls};
use crate::sources::tenants::numbers;

/// Shortest time between two tellings of when the sources were read, where nothing else changed.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For ages.
    pub instant: Instant,
    /// For records: Unix milliseconds.
    pub unix: u64,
}

/// What a look at a source came to.
#[derive(Debug)]
pub enum Looked {
    /// It says what it said.
    Same,
    /// It says this from now on.
    Changed(FlagdDocument),
    /// Another publisher took this of it at this time in Unix milliseconds. It stays until the source says something, unless that was
    /// later. `None`: it is none that is taken. What was told before is to be told anew.
    Recalled(Option<FlagdDocument>, u64),
    /// It said nothing that is taken: what it said before stays.
    Failed(PollFailure),
    /// It said what is no definitions: what it said before stays.
    Refused,
}

/// All sources together.
#[derive(Debug)]
pub struct FlagSelections {
    /// In the order in which they are named: a later one wins.
    sources: Vec<LastRead>,
    /// By selector text, as they were told.
    told: Option<BTreeMap<String, ToldSelection>>,
    is_changed: bool,
    /// Whether all of it is to be told anew.
    is_forgotten: bool,
    /// Whether what was told was for good.
    is_final: bool,
    /// When it was told last as of when the sources were read, and that.
    marked: Option<(Instant, u64)>,
    polls: Arc<Polls>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default)]
struct LastRead {
    read: Option<FlagdDocument>,
    /// What stands for it meanwhile.
    recalled: Option<FlagdDocument>,
    /// Whether its document was refused, and none was taken before.
    is_refused: bool,
    /// When it last said what the document says. It has no time in Unix milliseconds while the document is recalled.
    at: Option<Moment>,
}

impl LastRead {
    fn document(&self) -> Option<&FlagdDocument> {
        self.recalled.as_ref().or(self.read.as_ref())
    }
}

/// A selection that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ToldSelection {
    tenant: Tenant,
    version: ETag,
}

impl FlagSelections {
    /// Of so many sources, of which none was read. `polls` is told what comes of the looks.
    pub fn new(sources: usize, polls: Arc<Polls>) -> Self {
        Self {
            sources: vec![LastRead::default(); sources],
            told: None,
            is_changed: false,
            is_forgotten: false,
            is_final: false,
            marked: None,
            polls,
        }
    }

    /// Notes what a look at the source of this place came to.
    pub fn note(&mut self, place: usize, looked: Looked, now: Moment) {
        let Some(source) = self.sources.get_mut(place) else {
            return;
        };
        match looked {
            Looked::Failed(failure) => return self.polls.note_failure(failure),
            Looked::Refused => {
                self.polls.note_failure(PollFailure::Refused);
                if source.document().is_some() {
                    return;
                }
                self.is_changed |= !source.is_refused;
                source.is_refused = true;
            }
            Looked::Changed(document) => {
                source.read = Some(document);
                source.recalled = None;
                source.is_refused = false;
                self.is_changed = true;
            }
            Looked::Recalled(document, at) => {
                self.is_forgotten |= self.told.is_some();
                let read_at = source.at.filter(|_| source.document().is_some());
                if let Some(document) = document
                    && read_at.is_none_or(|read| read.unix < at)
                {
                    source.recalled = Some(document);
                    source.is_refused = false;
                    source.at = Some(Moment { unix: 0, ..now });
                    self.is_changed = true;
                }
                return;
            }
            Looked::Same if source.read.is_some() => {
                self.is_changed |= source.recalled.take().is_some();
            }
            Looked::Same => {}
        }
        source.at = Some(now);
        if let Some(oldest) = self.read_at()
            && oldest.unix > 0
            && !self.has_refused()
        {
            self.polls.note_round(oldest.instant);
        }
    }

    /// What is to be told now, in this order.
    pub fn news(&mut self, now: Moment) -> Vec<DocumentNews> {
        let Some(read_at) = self.read_at() else {
            return Vec::new();
        };
        if self.is_changed || self.is_forgotten || self.told.is_none() {
            self.is_changed = false;
            return self.all_news(read_at, now);
        }
        let is_due = self.marked.is_none_or(|(told, at)| {
            at < read_at.unix && now.instant.saturating_duration_since(told) >= TELL_INTERVAL
        });
        match is_due {
            true => vec![self.records(read_at, now)],
            false => Vec::new(),
        }
    }

    fn has_refused(&self) -> bool {
        self.sources.iter().any(|source| source.is_refused)
    }

    /// As of when what all sources say is known; `None`: of one it is not.
    fn read_at(&self) -> Option<Moment> {
        let moments = self.sources.iter().map(|source| source.at);
        let moments: Option<Vec<Moment>> = moments.collect();
        let since = |moment: &Moment| (moment.unix > 0, moment.instant);
        moments?.into_iter().min_by_key(since)
    }

    /// Documents that changed, before records that name them; then those that no record names any more.
    fn all_news(&mut self, read_at: Moment, now: Moment) -> Vec<DocumentNews> {
        let documents = self.sources.iter().map(|source| source.document().cloned());
        let documents: Vec<FlagdDocument> = documents.flatten().collect();
        let texts = selections(&documents).into_iter();
        let texts: Vec<(String, String)> = texts
            .map(|(selector, text): (Selector, String)| (selector.text(), text))
            .collect();
        let numbers = numbers("ofrep", texts.iter().map(|(name, _)| name.as_bytes()));
        let is_final = !self.has_refused();
        // What was told for the time being is told for good now.
        let is_told_anew = std::mem::take(&mut self.is_forgotten) || is_final && !self.is_final;
        self.is_final = is_final;
        let before = self.told.take().unwrap_or_default();
        let (mut news, mut told) = (Vec::new(), BTreeMap::new());
        for (name, text) in &texts {
            let Some(tenant) = numbers.get(name.as_bytes()).copied() else {
                error!("a selection has no number, so its flags are not published");
                continue;
            };
            let selection = ToldSelection {
                tenant,
                version: ETag::of_text(text.as_bytes()),
            };
            if (is_told_anew || before.get(name) != Some(&selection))
                && let Some(gzip) = compressed(text)
            {
                news.push(DocumentNews::Document(SourcedDocument {
                    tenant,
                    version: selection.version.clone(),
                    gzip,
                    fits: is_final,
                }));
            }
            told.insert(name.clone(), selection);
        }
        let flags: usize = documents.iter().map(FlagdDocument::len).sum();
        let (selections, changed) = (told.len(), news.len());
        info!(flags, selections, changed, "flagd's definitions changed");
        let is_left = |tenant: &Tenant| told.values().any(|selection| selection.tenant == *tenant);
        let gone: Vec<Tenant> = before
            .into_values()
            .map(|selection| selection.tenant)
            .filter(|tenant| !is_left(tenant))
            .collect();
        self.told = Some(told);
        news.push(self.records(read_at, now));
        news.extend(gone.into_iter().map(DocumentNews::Gone));
        news
    }

    /// All records but those of versions.
    fn records(&mut self, read_at: Moment, now: Moment) -> DocumentNews {
        self.marked = Some((now.instant, read_at.unix));
        let told = self.told.iter().flatten();
        let mut records: BTreeMap<Sha256Hash, Box<[u8]>> = told
            .map(|(name, selection)| {
                let record = OfrepRecord::Selection(selection.tenant);
                (selection_hash(name), record.encode().into())
            })
            .collect();
        let state = SourcesState {
            read_at: read_at.unix,
            knows_selections: true,
        };
        let record = OfrepRecord::Sources(state).encode();
        records.insert(sources_hash(), record.into());
        match self.is_final {
            true => DocumentNews::Records(records),
            false => DocumentNews::FirstRecords(records),
        }
    }
}

/// From so many bytes on a text is compressed fast: clients wait for a change longer than Redis for its last bytes.
const LONG_TEXT: usize = 1 << 20;

/// In gzip form.
pub fn compressed(text: &str) -> Option<Arc<[u8]>> {
    let level = match text.len() < LONG_TEXT {
        true => Compression::default(),
        false => Compression::fast(),
    };
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Into memory it never fails.
    encoder.write_all(text.as_bytes()).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests;
