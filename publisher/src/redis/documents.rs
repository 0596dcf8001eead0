//! Documents in Redis: a key for each, with a hash of its version and its text, which change together.

use flag_definitions_filter::http::ETag;

use super::error::SnapshotStoreError;
use super::store::{REMOVE_KEYS, SnapshotStore};

const WRITE_DOCUMENT: &str = concat!(
    include_str!("guard.lua"),
    include_str!("write_document.lua")
);

impl SnapshotStore<'_> {
    /// Writes a document: its version and its text, each with its field.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn write_document(
        &mut self,
        key: &str,
        (version_field, version): (&str, &ETag),
        (text_field, text): (&str, &[u8]),
    ) -> Result<(), SnapshotStoreError> {
        let arguments = [
            version_field.as_bytes(),
            version.as_bytes(),
            text_field.as_bytes(),
            text,
        ];
        self.write(WRITE_DOCUMENT, &[key], &arguments, "writing a document")?;
        Ok(())
    }

    /// Removes a document.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn remove_document(&mut self, key: &str) -> Result<(), SnapshotStoreError> {
        self.write(REMOVE_KEYS, &[key], &[], "removing a document")?;
        Ok(())
    }

    /// The values of one field in each of several hashes, with one command each, sent together.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn fields(
        &mut self,
        places: &[(String, &'static str)],
    ) -> Result<Vec<Option<Vec<u8>>>, SnapshotStoreError> {
        let mut commands = redis::pipe();
        for (key, field) in places {
            commands.cmd("HGET").arg(key).arg(*field);
        }
        self.send_together(&commands, "looking after the documents")
    }
}
