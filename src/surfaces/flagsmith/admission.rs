//! Who is admitted: by the key, then by the rate of the environment.

use super::answers::FlagsmithAnswer;
use super::counts::FlagsmithCount;
use super::keys::{EdgeReader, KeyDirectory, KeyVerdict, SERVER_PREFIX};
use super::request::{FlagsmithRequest, Route};
use super::steps::replied;
use super::surface::Flagsmith;
use crate::shared::{Machinery, Store, StoreError};
use crate::snapshot::status::{Freshness, Status};
use crate::surfaces::{Decided, Reason};
use crate::time::Monotonic;

/// Why a request is not admitted.
pub(super) enum Denial {
    /// The key reads nothing.
    Refused,
    /// That is not known.
    Undecided(Reason),
}

impl Flagsmith {
    /// Whose key it is.
    pub(super) fn authenticate<S: Store>(
        &mut self,
        request: &FlagsmithRequest<'_>,
        machinery: &Machinery<'_, S, FlagsmithCount>,
    ) -> Result<EdgeReader, Denial> {
        // No snapshot is needed to know that this is none.
        let key = request.key.as_deref().ok_or(Denial::Refused)?;
        if request.route == Route::Document && !key.starts_with(SERVER_PREFIX) {
            return Err(Denial::Refused);
        }
        let (store, now) = (machinery.store, machinery.now);
        let freshness = self
            .status
            .freshness(store, &self.scope, &self.snapshot, now);
        let failed = |_: StoreError| Denial::Undecided(Reason::SharedData);
        match freshness {
            Freshness::Missing => return Err(Denial::Undecided(Reason::SnapshotMissing)),
            Freshness::Expired => return Err(Denial::Undecided(Reason::SnapshotExpired)),
            Freshness::Current | Freshness::Aging => {}
        }
        let ambient = machinery.ambient;
        let verdict = |directory: &mut KeyDirectory| {
            let verdict = directory.reader(key, store, ambient, now);
            verdict.map_err(failed)
        };
        match verdict(&mut self.directory)? {
            KeyVerdict::Reads(reader) => return Ok(reader),
            KeyVerdict::Unknown => return Err(Denial::Undecided(Reason::UnknownCredential)),
            KeyVerdict::Refused => {}
        }
        // What is known of the snapshot may be a tick old, and its records may be changing: look again before a refusal.
        if ambient.monotonic().is_none() {
            return Err(Denial::Undecided(Reason::SharedData));
        }
        let before = Status::read(store, &self.scope).map_err(failed)?;
        if before.freshness(now, &self.snapshot) != Freshness::Current {
            return Err(Denial::Undecided(Reason::SnapshotAging));
        }
        match verdict(&mut self.directory)? {
            KeyVerdict::Reads(reader) => return Ok(reader),
            KeyVerdict::Unknown => return Err(Denial::Undecided(Reason::UnknownCredential)),
            KeyVerdict::Refused => {}
        }
        let after = Status::read(store, &self.scope).map_err(failed)?;
        Err(match after.names_the_same_records_as(&before) {
            true => Denial::Refused,
            false => Denial::Undecided(Reason::SnapshotAging),
        })
    }

    /// The answer to who asks too often.
    pub(super) fn limited<'r>(
        &mut self,
        request: &'r FlagsmithRequest<'_>,
        reader: EdgeReader,
        now: Monotonic,
    ) -> Option<Decided<'r, Self>> {
        let (budgets, rate) = self.budgets.as_mut().zip(self.settings.rate_limit)?;
        // Nobody is told when to come again: Flagsmith's Python SDK would wait for that long in its caller's thread.
        budgets.spend(reader.environment, rate, now).err()?;
        let answer = FlagsmithAnswer::RateLimited;
        Some(replied(answer.response(request), answer, Some(reader)))
    }
}
