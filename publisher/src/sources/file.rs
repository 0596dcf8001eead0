//! A source document: a JSON file, or standard input.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use flag_definitions_filter::surfaces::posthog::document;

use super::{Reading, Source, SourceError};
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
