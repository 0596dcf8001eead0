//! Where teams and credentials come from, as the watcher sees it.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::postgres::{self, Database};
pub use crate::postgres::{Announcement, LeftOut, Lsn, Reading, Reason, Records, Skipped};

/// A database of teams and credentials. Its problems are texts for an operator, without secrets.
pub trait Source: Send + Sync {
    /// Reads everything as of one moment; `progress` is told the number of rows so far.
    ///
    /// # Errors
    /// When the database fails.
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, String>;

    /// Tells what changes, until `stop` is set. Blocks, and connects again by itself.
    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard));
}

/// What a database says by itself.
#[derive(Debug)]
pub enum Heard {
    /// From now on every change is heard.
    Listening,
    /// Changes are not heard, and why.
    NotListening(String),
    /// What changed.
    Announced(Announcement),
    /// Whatever was committed before this moment has been told.
    UpTo(Instant),
    /// More changed than is told one by one: a full read is needed.
    Overflow,
}

impl Source for Database {
    fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Result<Reading, String> {
        Self::read_all(self, progress).map_err(|problem| problem.to_string())
    }

    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        Self::listen(self, stop, &mut |heard| {
            tell(match heard {
                postgres::Heard::Listening => Heard::Listening,
                postgres::Heard::NotListening(problem) => Heard::NotListening(problem.to_string()),
                postgres::Heard::Announced(announcement) => Heard::Announced(announcement),
                postgres::Heard::UpTo(moment) => Heard::UpTo(moment),
                postgres::Heard::Overflow => Heard::Overflow,
            });
        });
    }
}
