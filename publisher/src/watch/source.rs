//! Where teams and credentials come from, as the watcher sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;

use flag_definitions_filter::directory::Sha256Hash;

/// Encoded records in hash order.
pub type Records = BTreeMap<Sha256Hash, Box<[u8]>>;

/// A database of teams and credentials.
pub trait Source: Send + Sync {
    /// What goes wrong with it. Says nothing secret.
    type Problem: fmt::Display + Send;

    /// Reads everything as of one moment.
    ///
    /// # Errors
    /// When the database fails.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, Self::Problem>;

    /// Tells what changes, until `stop` is set. Blocks, and reconnects by itself.
    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard<Self::Problem>));
}

/// A place in the database's log. Of a [`Reading`] it was read before the data, of an [`Announcement`] after it:
/// a reading at or before an announcement may lack what that announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// Everything, as of one moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// Teams and credentials.
    pub records: Records,
    /// Rows that could not become records.
    pub skipped: Skipped,
    /// Before it was read.
    pub position: Lsn,
}

/// Rows that were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Keys hashed in a way that is not looked up.
    pub pbkdf2: u64,
    /// Rows with a value that cannot be one.
    pub malformed: u64,
    /// Hashes that belong to two rows.
    pub conflicting: u64,
    /// Records too large to be published.
    pub oversized: u64,
}

/// What a database says by itself.
#[derive(Debug)]
pub enum Heard<P> {
    /// From here on changes are announced.
    Listening,
    /// Changes are not announced at present.
    NotListening(P),
    /// Something changed.
    Announced(Announcement),
    /// So much changed that only a full read tells all of it.
    Overflow,
}

/// Records that changed.
#[derive(Debug, Default)]
pub struct Announcement {
    /// What each hash stands for now; `None`: nothing any more.
    pub changed: Vec<(Sha256Hash, Option<Box<[u8]>>)>,
    /// After it was read.
    pub position: Lsn,
}
