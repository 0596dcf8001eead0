//! Documents in Redis: a key for each, with a hash of its version and its text, which change together.

use std::sync::Arc;

use flag_definitions_filter::http::ETag;
use redis::{RedisError, ToRedisArgs};

use super::error::SnapshotStoreError;
use super::store::{REMOVE_KEYS, SnapshotStore};

const WRITE_DOCUMENT: &str = concat!(
    include_str!("guard.lua"),
    include_str!("write_document.lua")
);

const KEEP_TEXTS: &str = concat!(include_str!("guard.lua"), include_str!("keep_texts.lua"));

/// What came of keeping texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They are there.
    Written,
    /// The hash is not there, of which one field alone was to be set.
    Gone,
    /// Redis itself refused, and why. Nothing changed.
    Refused(String),
}

impl SnapshotStore<'_> {
    /// Writes a document: its version and its text, each with its field. Returns why Redis itself refused it, if it did.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn write_document(
        &mut self,
        key: &str,
        (version_field, version): (&str, &ETag),
        (text_field, text): (&str, &[u8]),
    ) -> Result<Option<String>, SnapshotStoreError> {
        let arguments = [
            version_field.as_bytes(),
            version.as_bytes(),
            text_field.as_bytes(),
            text,
        ];
        let reply = self.write(WRITE_DOCUMENT, &[key], &arguments, "writing a document")?;
        Ok(refusal(reply))
    }

    /// Sets fields of a hash, all by one command, after it removed those that are `gone`.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn keep_texts(
        &mut self,
        key: &str,
        texts: &[(String, Arc<[u8]>)],
        gone: &[String],
    ) -> Result<Kept, SnapshotStoreError> {
        let count = gone.len().to_string();
        let mut arguments = vec![count.as_bytes()];
        arguments.extend(gone.iter().map(String::as_bytes));
        for (field, text) in texts {
            arguments.extend([field.as_bytes(), text]);
        }
        let reply = self.write(KEEP_TEXTS, &[key], &arguments, "keeping texts")?;
        Ok(match reply.first().map(String::as_str) {
            Some("gone") => Kept::Gone,
            _ => refusal(reply).map_or(Kept::Written, Kept::Refused),
        })
    }

    /// Removes a document.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn remove_document(&mut self, key: &str) -> Result<(), SnapshotStoreError> {
        self.write(REMOVE_KEYS, &[key], &[], "removing a document")?;
        Ok(())
    }

    /// The values of one field in each of several hashes, with one command each, sent together. `None`: there is none, or
    /// Redis does not tell.
    ///
    /// # Errors
    /// When Redis fails.
    pub fn fields(
        &mut self,
        places: &[(String, impl ToRedisArgs)],
    ) -> Result<Vec<Option<Vec<u8>>>, SnapshotStoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = redis::pipe();
        commands.ignore_errors();
        for (key, field) in places {
            commands.cmd("HGET").arg(key).arg(field);
        }
        let values: Vec<Result<Option<Vec<u8>>, RedisError>> =
            self.send_together(&commands, "looking after the documents")?;
        Ok(values
            .into_iter()
            .map(|value| value.ok().flatten())
            .collect())
    }
}

fn refusal(reply: Vec<String>) -> Option<String> {
    let mut reply = reply.into_iter();
    (reply.next().as_deref() == Some("refused")).then(|| reply.next().unwrap_or_default())
}
