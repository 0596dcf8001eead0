//! A source document: a JSON file, or standard input.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use flag_definitions_filter::surfaces::posthog::document;

use super::followed_file::{FollowedFile, Look};
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

    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        self.file.read(|_| self.document.read_all(progress))
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
