//! Who is admitted, by what the snapshot says; a refusal rests on fresh and complete knowledge alone.

use super::CompiledRules;
use super::library::Library;
use crate::shared::{Machinery, Store, StoreError};
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::Reason;

/// What the snapshot says of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessVerdict<T> {
    /// This may be read.
    Reads(T),
    /// It is known that nothing may be.
    Refused,
    /// That is not known, and the snapshot may lack what says so.
    Unknown,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It is refused.
    Refused,
    /// That is not known.
    Undecided(Reason),
}

impl<R: CompiledRules> Library<R> {
    /// That the snapshot may be relied on to admit anybody, and whether to refuse somebody as well: then its publisher was heard of
    /// just now.
    ///
    /// # Errors
    /// There is none, or none that is young enough.
    pub fn usable<S: Store, C>(&mut self, machinery: &Machinery<'_, S, C>) -> Result<bool, Denial> {
        let (store, now) = (machinery.store, machinery.now);
        let freshness = self
            .status
            .freshness(store, &self.scope, &self.snapshot, now);
        match freshness {
            Freshness::Missing => Err(Denial::Undecided(Reason::SnapshotMissing)),
            Freshness::Expired => Err(Denial::Undecided(Reason::SnapshotExpired)),
            Freshness::Current => Ok(true),
            Freshness::Aging => Ok(false),
        }
    }

    /// What may be read. `verdict` looks into shared data, and is told whether the snapshot is fresh; before a refusal it is asked twice, with one snapshot before, in
    /// between and after. Nobody is refused where the publisher has no `source` ([`Status::sourced`]). `unknown` is why a
    /// request is not decided of which nothing is known.
    ///
    /// # Errors
    /// See [`Denial`].
    pub fn admit<T, S: Store, C>(
        &mut self,
        machinery: &Machinery<'_, S, C>,
        source: &str,
        unknown: Reason,
        mut verdict: impl FnMut(bool) -> Result<AccessVerdict<T>, StoreError>,
    ) -> Result<T, Denial> {
        let is_fresh = self.usable(machinery)?;
        let (store, now) = (machinery.store, machinery.now);
        let failed = |_: StoreError| Denial::Undecided(Reason::SharedData);
        match verdict(is_fresh).map_err(failed)? {
            AccessVerdict::Reads(what) => return Ok(what),
            AccessVerdict::Unknown => return Err(Denial::Undecided(unknown)),
            AccessVerdict::Refused => {}
        }
        // What is known of the snapshot may be a tick old, and its records may be changing: look again before a refusal.
        if machinery.ambient.monotonic().is_none() {
            return Err(Denial::Undecided(Reason::SharedData));
        }
        let before = Status::read(store, &self.scope).map_err(failed)?;
        let freshness = before.freshness(now, &self.snapshot);
        if before.sourced(source, freshness) != Freshness::Current {
            return Err(Denial::Undecided(Reason::SnapshotAging));
        }
        match verdict(true).map_err(failed)? {
            AccessVerdict::Reads(what) => return Ok(what),
            AccessVerdict::Unknown => return Err(Denial::Undecided(unknown)),
            AccessVerdict::Refused => {}
        }
        let after = Status::read(store, &self.scope).map_err(failed)?;
        Err(match after.names_the_same_records_as(&before) {
            true => Denial::Refused,
            false => Denial::Undecided(Reason::SnapshotAging),
        })
    }
}
