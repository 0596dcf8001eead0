//! A database, and beside it a source document with records that the database lacks. Where both have a hash, the database's
//! record counts.

use std::collections::btree_map::Entry;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::file::FollowedDocument;
use super::{Announcement, Heard, Reading, Source, SourceError, SourceNature};
use crate::redis::published::RecordMap;

/// What was heard and waits to be told.
const WAITING: usize = 16;

/// A database and a source document as one source. What goes wrong with the document concerns nothing else: its last good
/// state stays.
pub struct Combined {
    database: Arc<dyn Source>,
    document: FollowedDocument,
    kept: Mutex<Kept>,
}

/// What the document said last.
#[derive(Debug, Default)]
struct Kept {
    records: RecordMap,
    /// What is wrong with it now, as it was told.
    problem: Option<SourceError>,
}

impl Combined {
    /// Of a database and a document.
    pub fn new(database: Arc<dyn Source>, document: FollowedDocument) -> Self {
        Self {
            database,
            document,
            kept: Mutex::default(),
        }
    }

    // A thread that panicked while it held the lock left a whole state.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_document(&self) {
        let result = self.document.read_all(&mut |_| ());
        let mut kept = self.kept();
        match result {
            Ok(reading) => {
                kept.records = reading.records;
                kept.problem = None;
            }
            Err(problem) => {
                if kept.problem.as_ref() != Some(&problem) {
                    let noun = SourceNature::Document.noun();
                    warn!(%problem, "{noun} cannot be read; its last records stay");
                }
                kept.problem = Some(problem);
            }
        }
    }

    /// What the database announces, with the document's records for those that it has no more.
    fn with_document(&self, mut announcement: Announcement) -> Announcement {
        let kept = self.kept();
        for (hash, record) in &mut announcement.changed {
            if record.is_none() {
                *record = kept.records.get(hash).cloned();
            }
        }
        announcement
    }
}

impl Source for Combined {
    fn nature(&self) -> SourceNature {
        self.database.nature()
    }

    fn lists(&self) -> &'static [&'static str] {
        self.document.lists()
    }

    /// The counts and what was left out are the database's.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        let mut reading = self.database.read_all(progress)?;
        self.read_document();
        for (hash, record) in &self.kept().records {
            if let Entry::Vacant(place) = reading.records.entry(*hash) {
                place.insert(record.clone());
            }
        }
        Ok(reading)
    }

    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        let (heard, news) = sync_channel(WAITING);
        let of_document = heard.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                self.database.listen(stop, &mut |said| {
                    // The receiver lives as long as this thread.
                    let _ = heard.send(match said {
                        Heard::Announced(announcement) => {
                            Heard::Announced(self.with_document(announcement))
                        }
                        other => other,
                    });
                });
            });
            scope.spawn(move || {
                self.document.listen(stop, &mut |said| {
                    // How fresh everything is, the database says.
                    if said == Heard::Overflow {
                        let _ = of_document.send(said);
                    }
                });
            });
            news.iter().for_each(tell);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::hash::Sha256Hash;
    use std::path::Path;
    use std::sync::atomic::Ordering;

    fn hash(text: &str) -> Sha256Hash {
        Sha256Hash::of(text.as_bytes())
    }

    fn record(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    /// It has a record of its own for `phc_a`, and tells that another one and `phc_b` are gone.
    struct Database;

    impl Source for Database {
        fn read_all(&self, _: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
            Ok(Reading {
                records: [(hash("phc_a"), record("database"))].into(),
                ..Reading::default()
            })
        }

        fn listen(&self, _: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
            let changed = vec![(hash("phc_b"), None), (hash("phc_c"), None)];
            tell(Heard::Announced(Announcement {
                changed,
                position: Default::default(),
            }));
        }
    }

    fn write(path: &Path, text: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    const TEAMS: &str =
        r#"{"format":1,"teams":[{"id":7,"api_token":"phc_a"},{"id":8,"api_token":"phc_b"}]}"#;

    #[test]
    fn a_document_adds_to_a_database_and_a_broken_one_takes_nothing_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document.json");
        write(&path, TEAMS);
        let combined = Combined::new(Arc::new(Database), FollowedDocument::new(&path));
        for text in [TEAMS, "{"] {
            write(&path, text);
            let reading = combined.read_all(&mut |_| ()).unwrap();
            assert_eq!(reading.records.len(), 2);
            assert_eq!(reading.records[&hash("phc_a")], record("database"));
            assert_eq!(combined.kept().problem.is_some(), text == "{");
        }
        // What the database has no more, the document may have.
        let stop = AtomicBool::new(false);
        let (mut announced, mut overflows) = (Vec::new(), 0);
        write(&path, TEAMS);
        combined.listen(&stop, &mut |heard| {
            match heard {
                Heard::Announced(announcement) => announced = announcement.changed,
                Heard::Overflow => overflows += 1,
                _ => (),
            }
            if overflows > 0 && !announced.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert!(announced[0].1.is_some() && announced[1].1.is_none());
    }
}
