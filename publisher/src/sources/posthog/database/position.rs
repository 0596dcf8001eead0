//! Places in the write-ahead log (WAL): which of two reads of the database is the newer one.

use std::fmt;

use tokio_postgres::types::PgLsn;

use super::session::{Fault, Session};
use crate::sources::SourcePosition;

/// A place in the WAL, in bytes since its beginning. Comparable only within one database cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub u64);

impl fmt::Display for Lsn {
    /// As Postgres writes it: `16/B374D848`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl From<Lsn> for SourcePosition {
    fn from(Lsn(position): Lsn) -> Self {
        Self(position)
    }
}

// On a replica nothing is written: what it has replayed is what a read sees there.
const POSITION: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                        ELSE pg_current_wal_insert_lsn() END";

impl Lsn {
    /// Where the WAL ends now. Read before a snapshot is taken: the snapshot misses nothing that was committed,
    /// and visible, further back.
    pub(super) fn read(session: &Session<'_>) -> Result<Self, Fault> {
        let rows = session.query(POSITION, &[])?;
        let position = rows.first().map(|row| row.try_get::<_, Option<PgLsn>>(0));
        let position = position.transpose()?.flatten();
        Ok(Self(position.map_or(0, u64::from)))
    }

    /// A place behind everything that a read just done saw. One byte behind the end: a commit is in the WAL a
    /// moment before it is visible, so a snapshot taken at exactly this place may lack what the read saw.
    pub(super) fn read_after(session: &Session<'_>) -> Result<Self, Fault> {
        let Self(position) = Self::read(session)?;
        Ok(Self(position.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_postgres_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
    }
}
