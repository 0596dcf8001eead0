//! Texts of upstreams that Redis keeps, so that a publisher that starts goes on from them where an upstream is away.
//!
//! With each is kept when it was last confirmed, by the clock of the publisher that read it: nothing older takes its place, and who
//! knows something older goes on from what is kept. A field of the hash lists them, and changes together with a text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flag_definitions_filter::hash::Sha256Hash;
use tracing::error;

use super::session::Session;
use crate::redis::documents::Kept;
use crate::redis::error::SnapshotStoreError;
use crate::redis::store::SnapshotStore;
use crate::sources::documents::KeptTexts;
use crate::sources::kinds::RecordOwner;

/// The field that lists the texts: a line for each, `<name> <SHA-256 of the gzip form> <Unix milliseconds>`.
const LIST: &str = "confirmed";

/// Milliseconds between two times at which Redis is told that a text is confirmed.
const CONFIRM_MILLIS: u64 = 10_000;

/// Which text of a name it is, and when it was last confirmed in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    hash: Sha256Hash,
    at: u64,
}

/// A text in gzip form.
#[derive(Debug)]
struct Text {
    gzip: Arc<[u8]>,
    mark: Mark,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Held {
    /// What was read here last.
    own: Option<Text>,
    /// What another publisher kept, until something later was read here.
    recalled: Option<Text>,
    /// What Redis has.
    stored: Option<Mark>,
}

impl Held {
    fn newest(&mut self) -> Option<&mut Text> {
        let texts = [self.own.as_mut(), self.recalled.as_mut()];
        texts.into_iter().flatten().max_by_key(|text| text.mark.at)
    }
}

/// What one source wants to be kept.
#[derive(Debug)]
pub struct Keeper {
    owner: RecordOwner,
    kept: KeptTexts,
    held: BTreeMap<Sha256Hash, Held>,
    /// Those in Redis that nobody here follows.
    others: BTreeMap<Sha256Hash, Mark>,
    /// Why Redis refused some, until it takes them.
    refused: Option<String>,
}

impl Keeper {
    /// Nothing is kept yet.
    pub fn new(owner: RecordOwner, kept: KeptTexts) -> Self {
        let names = kept.names.iter();
        Self {
            owner,
            held: names.map(|name| (*name, Held::default())).collect(),
            kept,
            others: BTreeMap::new(),
            refused: None,
        }
    }

    /// Whose texts they are.
    pub const fn owner(&self) -> RecordOwner {
        self.owner
    }

    /// Notes that a text was read at this time in Unix milliseconds; without one, that the last one was read again.
    pub fn note(&mut self, name: Sha256Hash, gzip: Option<Arc<[u8]>>, at: u64) {
        let Some(held) = self.held.get_mut(&name) else {
            return;
        };
        if let Some(gzip) = gzip {
            let hash = Sha256Hash::of(&gzip);
            let mark = Mark { hash, at };
            held.own = Some(Text { gzip, mark });
        } else if let Some(own) = &mut held.own {
            own.mark.at = own.mark.at.max(at);
        }
        let read_at = held.own.as_ref().map(|own| own.mark.at);
        held.recalled
            .take_if(|recalled| read_at >= Some(recalled.mark.at));
    }

    /// Takes what is kept of names of which nothing so late was read here: whether there was any.
    fn recall(
        &mut self,
        store: &mut SnapshotStore<'_>,
        key: &str,
    ) -> Result<bool, SnapshotStoreError> {
        let list = store.fields(&[(key.to_owned(), LIST)])?.pop().flatten();
        self.others = marks(&list.unwrap_or_default(), now());
        let mut later = Vec::new();
        for (name, held) in &mut self.held {
            held.stored = self.others.remove(name);
            match (held.stored, held.newest()) {
                (Some(stored), Some(known)) if known.mark.hash == stored.hash => {
                    known.mark.at = known.mark.at.max(stored.at);
                }
                (Some(stored), Some(known)) if known.mark.at >= stored.at => {}
                (Some(stored), _) => later.push((*name, stored)),
                (None, _) => {}
            }
        }
        let names = later.iter();
        let places: Vec<_> = names
            .map(|(name, _)| (key.to_owned(), name.to_hex()))
            .collect();
        let mut has_recalled = false;
        for ((name, mark), gzip) in later.into_iter().zip(store.fields(&places)?) {
            let gzip = gzip.filter(|gzip| Sha256Hash::of(gzip) == mark.hash);
            let Some(held) = self.held.get_mut(&name) else {
                continue;
            };
            match gzip.map(Arc::<[u8]>::from) {
                Some(gzip) => {
                    (self.kept.recall)(name, Arc::clone(&gzip), mark.at);
                    held.recalled = Some(Text { gzip, mark });
                    has_recalled = true;
                }
                None => held.stored = None,
            }
        }
        Ok(has_recalled)
    }

    /// Makes Redis keep the newest texts, one with each command, so that none is written beyond its memory. Then others go.
    fn keep(&mut self, store: &mut SnapshotStore<'_>, key: &str) -> Result<(), SnapshotStoreError> {
        let mut list = self.others.clone();
        list.extend(
            self.held
                .iter()
                .filter_map(|(name, held)| Some((*name, held.stored?))),
        );
        let (mut texts, mut is_confirmed) = (Vec::new(), false);
        for (name, held) in &mut self.held {
            let stored = held.stored;
            let Some(Text { gzip, mark }) = held.newest() else {
                continue;
            };
            match stored.filter(|stored| stored.hash == mark.hash) {
                None => texts.push((*name, Arc::clone(gzip), *mark)),
                Some(stored) => {
                    is_confirmed |= mark.at >= stored.at.saturating_add(CONFIRM_MILLIS);
                    list.insert(*name, *mark);
                }
            }
        }
        let mut outcome = Kept::Written;
        for (name, gzip, mark) in texts {
            list.insert(name, mark);
            let set = [(name.to_hex(), gzip), (LIST.to_owned(), lines(&list))];
            outcome = store.keep_texts(key, &set, &[])?;
            if outcome != Kept::Written {
                list.remove(&name);
                break;
            }
            self.stored(&list);
            is_confirmed = false;
        }
        let gone: Vec<String> = self.others.keys().map(|name| name.to_hex()).collect();
        if outcome == Kept::Written && (is_confirmed || !gone.is_empty()) {
            list.retain(|name, _| !self.others.contains_key(name));
            outcome = store.keep_texts(key, &[(LIST.to_owned(), lines(&list))], &gone)?;
            if outcome == Kept::Written {
                self.stored(&list);
                self.others.clear();
            }
        }
        self.concluded(outcome);
        Ok(())
    }

    fn stored(&mut self, list: &BTreeMap<Sha256Hash, Mark>) {
        for (name, held) in &mut self.held {
            held.stored = list.get(name).copied();
        }
    }

    fn concluded(&mut self, outcome: Kept) {
        match outcome {
            Kept::Written => self.refused = None,
            Kept::Gone => {
                self.others.clear();
                self.stored(&BTreeMap::new());
            }
            Kept::Refused(problem) => {
                if self.refused.as_ref() != Some(&problem) {
                    error!(
                        problem,
                        "Redis does not keep texts of sources: a source that is away when the publisher starts holds the others up"
                    );
                }
                self.refused = Some(problem);
            }
        }
    }
}

fn lines(list: &BTreeMap<Sha256Hash, Mark>) -> Arc<[u8]> {
    let lines = list.iter().map(|(name, Mark { hash, at })| {
        let [name, hash] = [name, hash].map(|hash| hash.to_hex());
        format!("{name} {hash} {at}\n")
    });
    lines.collect::<String>().into_bytes().into()
}

/// A line that cannot be read is none. A time that has not come is `now`: it is of another clock.
fn marks(list: &[u8], now: u64) -> BTreeMap<Sha256Hash, Mark> {
    let lines = std::str::from_utf8(list).unwrap_or_default().lines();
    let marks = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let mut hash = || Sha256Hash::from_hex(words.next()?);
        let (name, hash) = (hash()?, hash()?);
        let at: u64 = words.next()?.parse().ok()?;
        let at = at.min(now);
        Some((name, Mark { hash, at }))
    });
    marks.collect()
}

fn now() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let millis = unix.and_then(|unix| u64::try_from(unix.as_millis()).ok());
    millis.unwrap_or(0)
}

impl Session<'_, '_> {
    /// Gives sources what another publisher kept of them later than they read it. What they said before is not published: they say
    /// all of it anew. No others stay in Redis.
    pub(super) fn recall_texts(&mut self) -> Result<(), SnapshotStoreError> {
        let mut keepers = std::mem::take(&mut self.writer.shelf.keepers);
        let recalled = keepers.iter_mut().map(|keeper| {
            let key = format!("{}{}", self.store.prefix(), keeper.kept.key);
            let has_recalled = keeper.recall(&mut self.store, &key)?;
            keeper.keep(&mut self.store, &key)?;
            Ok(has_recalled.then_some(keeper.owner))
        });
        let recalled: Result<Vec<_>, SnapshotStoreError> = recalled.collect();
        self.writer.shelf.keepers = keepers;
        for owner in recalled?.into_iter().flatten() {
            self.writer.shelf.forget(owner);
        }
        Ok(())
    }

    /// Keeps what sources said since.
    pub(super) fn keep_texts(&mut self) -> Result<(), SnapshotStoreError> {
        for keeper in &mut self.writer.shelf.keepers {
            let key = format!("{}{}", self.store.prefix(), keeper.kept.key);
            keeper.keep(&mut self.store, &key)?;
        }
        Ok(())
    }
}
