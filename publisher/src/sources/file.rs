//! A source document: a JSON file, or standard input.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use flag_definitions_filter::surfaces::ofrep::flagd::{BadSelector, Selector};
use flag_definitions_filter::surfaces::ofrep::health::KEYS as OFREP_KEYS;
use flag_definitions_filter::surfaces::ofrep::records::{OfrepRecord, selection_hash};
use flag_definitions_filter::surfaces::posthog::document::{self, DocumentError};

use super::followed_file::{FollowedFile, Look};
use super::{Heard, Reading, Source, SourceError, SourceNature};
use crate::progress::say;
use crate::redis::published::RecordMap;

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
        let records = document.by_hash.into_iter();
        let mut records: RecordMap = records
            .map(|(hash, record)| (hash, record.into_boxed_slice()))
            .collect();
        for (place, (hash, selector)) in document.ofrep_keys.into_iter().enumerate() {
            match ofrep_key(place, selector) {
                Ok(key) => drop(records.insert(hash, key.encode().into())),
                Err(error) => {
                    return refused(format!("{}: {error} (nothing was written)", path.display()));
                }
            }
        }
        progress(records.len() as u64);
        Ok(Reading {
            records,
            counts: document.counts,
            ..Reading::default()
        })
    }
}

/// The record of one of `ofrep_keys`.
fn ofrep_key(place: usize, selector: Option<String>) -> Result<OfrepRecord, DocumentError> {
    let refused = |problem: String| DocumentError {
        path: format!("ofrep_keys[{place}].selector"),
        problem,
    };
    let Some(text) = selector else {
        return Ok(OfrepRecord::Key(None));
    };
    match Selector::parse(text.as_bytes()) {
        Ok(Selector::All) => Err(refused(
            "must not be empty, use null for a key to every selection".to_owned(),
        )),
        Ok(selector) => Ok(OfrepRecord::Key(Some(selection_hash(&selector.text())))),
        // What stands there is no selector, so it may be anything.
        Err(BadSelector::Key(_)) => Err(refused("must be flagSetId=… or source=…".to_owned())),
        Err(unreadable) => Err(refused(unreadable.to_string())),
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

/// A change that was told and not followed by a read is told again.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A source document that is followed as its file changes.
#[derive(Debug)]
pub struct FollowedDocument {
    file: FollowedFile,
    document: DocumentFile,
}

impl FollowedDocument {
    /// The document at this path.
    pub fn new(path: &Path) -> Self {
        Self {
            file: FollowedFile::new(path),
            document: DocumentFile::new(path),
        }
    }
}

impl Source for FollowedDocument {
    fn nature(&self) -> SourceNature {
        SourceNature::Document
    }

    fn lists(&self) -> &'static [&'static str] {
        &[OFREP_KEYS]
    }

    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        // What it cannot read the writer asks for again.
        self.file
            .read(|_| self.document.read_all(progress), |_| true)
    }

    /// Tells that the file changed, not what changed in it: all of it is read. While it is what was read, everything up to
    /// the last look is known.
    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        tell(Heard::Listening);
        let mut told = None;
        self.file.watch(stop, |look| {
            let now = Instant::now();
            match look {
                Look::Same => tell(Heard::UpTo(now)),
                Look::StillRefused => (),
                Look::Changed(stamp) => {
                    let is_told = told.is_some_and(|(told, at)| {
                        told == stamp && now.saturating_duration_since(at) < TELL_AGAIN_AFTER
                    });
                    if !is_told {
                        told = Some((stamp, now));
                        tell(Heard::Overflow);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::hash::Sha256Hash;

    fn read(selector: &str) -> Result<Reading, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = Sha256Hash::of(b"key").to_hex();
        let key = format!(r#"{{"sha256":"{hash}","selector":{selector}}}"#);
        let document = format!(r#"{{"format":1,"ofrep_keys":[{key}]}}"#);
        std::fs::write(&file, document).unwrap();
        let read = DocumentFile::new(file.path()).read_all(&mut |_| ());
        let path = format!("{}: ", file.path().display());
        read.map_err(|error| error.to_string().replace(&path, ""))
    }

    #[test]
    fn keys_of_ofrep_become_records_under_their_selectors() {
        for (selector, bound) in [
            ("null", None),
            (r#""flagSetId=shop""#, Some("flagSetId=shop")),
            (r#""source=shop.json""#, Some("source=shop.json")),
            (r#""shop.json""#, Some("source=shop.json")),
            (r#""flagSetId=""#, Some("flagSetId=")),
        ] {
            let reading = read(selector).unwrap();
            let record = &reading.records[&Sha256Hash::of(b"key")];
            let expected = OfrepRecord::Key(bound.map(selection_hash));
            assert_eq!(OfrepRecord::decode(record), Ok(expected), "{selector}");
        }
    }

    #[test]
    fn a_selector_that_selects_nothing_is_refused_by_its_path() {
        for (selector, problem) in [
            (
                r#""""#,
                "must not be empty, use null for a key to every selection",
            ),
            (r#""hunter2=x""#, "must be flagSetId=… or source=…"),
            ("1", "wrong type or range, expected a string"),
        ] {
            let refused = read(selector).unwrap_err();
            let expected = format!("ofrep_keys[0].selector: {problem} (nothing was written)");
            assert_eq!(refused, expected);
        }
    }
}
