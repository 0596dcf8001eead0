//! The source document that a command is given.

use std::path::Path;

use crate::progress::say;
use crate::sources::file::DocumentFile;
use crate::sources::{Reading, Source, SourceError};

/// Reads and checks a document.
///
/// # Errors
/// When it cannot be read or is refused.
pub(super) fn read(file: &Path) -> Result<Reading, SourceError> {
    let reading = DocumentFile::new(file).read_all(&mut |_| ())?;
    if reading.counts.teams == 0 {
        say("warning: the document has no teams, so filters will refuse every token");
    }
    Ok(reading)
}
