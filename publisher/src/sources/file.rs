//! A source document: a JSON file, or standard input.

use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use flag_definitions_filter::surfaces::posthog::document;

use super::{Heard, Reading, Source, SourceError, SourceNature};
use crate::progress::say;

/// A source document. It is read anew each time.
#[derive(Debug)]
pub struct DocumentFile(PathBuf);

impl DocumentFile {
    /// The document at this path; `-` is standard input.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Source for DocumentFile {
    fn nature(&self) -> SourceNature {
        SourceNature::Document
    }

    /// A document is whole or refused: nothing of it is left out.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        let Self(path) = self;
        let refused = |problem: String| Err(SourceError::Refused(problem));
        let json = match read(path) {
            Ok(json) => json,
            Err(error) => {
                return refused(format!("--file: cannot read {}: {error}", path.display()));
            }
        };
        let document = match document::parse(&json) {
            Ok(document) => document,
            Err(error) => {
                return refused(format!("{}: {error} (nothing was written)", path.display()));
            }
        };
        progress(document.by_hash.len() as u64);
        let records = document.by_hash.into_iter();
        Ok(Reading {
            records: records
                .map(|(hash, record)| (hash, record.into_boxed_slice()))
                .collect(),
            counts: document.counts,
            ..Reading::default()
        })
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file);
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        say("Paste the document, then press Enter and Ctrl-D.");
    }
    let mut json = Vec::new();
    stdin.lock().read_to_end(&mut json)?;
    Ok(json)
}

/// Between two looks at a file that is followed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Longest sleep without a look whether to stop.
const NAP: Duration = Duration::from_millis(100);

/// A file that was written so short a time before it was read may be written once more without looking different: it is
/// read again after that.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// A change that was told and not followed by a read is told again.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A source document that is followed as its file changes.
#[derive(Debug)]
pub struct FollowedDocument {
    path: PathBuf,
    document: DocumentFile,
    seen: Mutex<Seen>,
}

/// What tells two states of a file apart, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    /// Another one where the file was replaced.
    file: (u64, u64),
}

/// What was read last.
#[derive(Debug, Default)]
struct Seen {
    /// Of the file, before it was read; `None`: there was none.
    stamp: Option<Stamp>,
    is_good: bool,
    /// Whether a later write is sure to look different.
    is_settled: bool,
}

/// What a look at the file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It is what was read.
    Same,
    /// It is what was refused.
    StillRefused,
    /// It has to be read.
    Changed,
}

impl FollowedDocument {
    /// The document at this path.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            document: DocumentFile::new(path),
            seen: Mutex::default(),
        }
    }

    fn look(&self, stamp: Option<Stamp>) -> Look {
        let seen = self.seen();
        if stamp != seen.stamp || (!seen.is_settled && stamp.is_none_or(Stamp::is_settled)) {
            Look::Changed
        } else if seen.is_good {
            Look::Same
        } else {
            Look::StillRefused
        }
    }

    // A thread that panicked while it held the lock left what was seen, not half of it.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    /// Whether whatever is written from now on looks different. A time that is still to come says nothing.
    fn is_settled(self) -> bool {
        let age = SystemTime::now().duration_since(self.modified);
        age.map_or(true, |age| age >= SETTLES_AFTER)
    }
}

impl Source for FollowedDocument {
    fn nature(&self) -> SourceNature {
        SourceNature::Document
    }

    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        let stamp = Stamp::of(&self.path);
        let is_settled = stamp.is_none_or(Stamp::is_settled);
        let result = self.document.read_all(progress);
        *self.seen() = Seen {
            stamp,
            is_good: result.is_ok(),
            is_settled,
        };
        result
    }

    /// Tells that the file changed, not what changed in it: all of it is read. While it is what was read, everything up to
    /// the last look is known.
    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        tell(Heard::Listening);
        let mut told: Option<(Option<Stamp>, Instant)> = None;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let stamp = Stamp::of(&self.path);
            match self.look(stamp) {
                Look::Same => tell(Heard::UpTo(now)),
                Look::StillRefused => (),
                Look::Changed => {
                    let is_told = told.is_some_and(|(told, at)| {
                        told == stamp && now.saturating_duration_since(at) < TELL_AGAIN_AFTER
                    });
                    if !is_told {
                        told = Some((stamp, now));
                        tell(Heard::Overflow);
                    }
                }
            }
            while now.elapsed() < LOOK_INTERVAL && !stop.load(Ordering::Relaxed) {
                sleep(NAP);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format":1,"teams":[{"id":7,"api_token":"phc_a"}]}"#;

    fn write(path: &Path, text: &str, age: Duration) {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_look_tells_a_changed_file_from_one_that_was_read_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document.json");
        let followed = FollowedDocument::new(&path);
        let read = || followed.read_all(&mut |_| ());
        let look = || followed.look(Stamp::of(&path));
        let old = Duration::from_secs(60);
        assert!(read().is_err(), "there is none");
        assert_eq!(look(), Look::StillRefused);
        write(&path, GOOD, old);
        assert_eq!(look(), Look::Changed);
        assert_eq!(read().unwrap().records.len(), 1);
        assert_eq!(look(), Look::Same);
        write(&path, "{", old);
        assert_eq!(look(), Look::Changed);
        assert!(read().is_err());
        assert_eq!(look(), Look::StillRefused);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(), Look::Changed);
    }

    #[test]
    fn a_file_that_was_just_written_is_read_once_more_when_it_is_older() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document.json");
        let followed = FollowedDocument::new(&path);
        write(&path, GOOD, Duration::ZERO);
        followed.read_all(&mut |_| ()).unwrap();
        assert_eq!(followed.look(Stamp::of(&path)), Look::Same);
        std::thread::sleep(SETTLES_AFTER);
        assert_eq!(followed.look(Stamp::of(&path)), Look::Changed);
        followed.read_all(&mut |_| ()).unwrap();
        assert_eq!(followed.look(Stamp::of(&path)), Look::Same);
    }
}
