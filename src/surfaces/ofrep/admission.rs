//! Who is admitted: by the key, then by what the selector selects, then by the rate of the selection.

use super::answers::OfrepAnswer;
use super::counts::OfrepCount;
use super::flagd::Selector;
use super::health::{KEYS, NAME};
use super::request::OfrepRequest;
use super::settings::Keys;
use super::steps::replied;
use super::surface::Ofrep;
use crate::hash::Sha256Hash;
use crate::shared::{Machinery, Store};
use crate::surfaces::evaluated::admission::{AccessVerdict, Denial};
use crate::surfaces::{Decided, Reason};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Who shares the bounds of a selection that no flag is in: all such are one.
pub(super) const NOBODY: Tenant = Tenant(0);

impl Ofrep {
    /// Whether the key, where one is needed, may ask for what this hash is of. `None`: the selector is none, so any key will do.
    ///
    /// # Errors
    /// The answer that refuses, or why the request is not decided.
    pub(super) fn authenticate<S: Store>(
        &mut self,
        request: &OfrepRequest<'_>,
        selection: Option<&Sha256Hash>,
        machinery: &Machinery<'_, S, OfrepCount>,
    ) -> Result<(), Result<OfrepAnswer, Reason>> {
        if self.settings.keys == Keys::None {
            return Ok(());
        }
        // No snapshot is needed to know that this is none.
        let Some(key) = request.key.as_deref() else {
            return Err(Ok(OfrepAnswer::Unauthorized));
        };
        let (store, now) = (machinery.store, machinery.now);
        let directory = &mut self.directory;
        let mut answer = OfrepAnswer::Unauthorized;
        let verdict = |_| {
            let verdict = directory.key(key, store, now)?;
            answer = OfrepAnswer::Unauthorized;
            let (AccessVerdict::Reads(Some(bound)), Some(selection)) = (verdict, selection) else {
                return Ok(verdict);
            };
            if bound == *selection {
                return Ok(verdict);
            }
            answer = OfrepAnswer::Forbidden;
            Ok(AccessVerdict::Refused)
        };
        let admitted = self
            .library
            .admit(machinery, KEYS, Reason::UnknownCredential, verdict);
        match admitted {
            Ok(_) => Ok(()),
            Err(Denial::Refused) => Err(Ok(answer)),
            Err(Denial::Undecided(reason)) => Err(Err(reason)),
        }
    }

    /// The number of a selection; `None`: it is known that no flag is in it.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) fn selected<S: Store>(
        &mut self,
        selection: &Sha256Hash,
        machinery: &Machinery<'_, S, OfrepCount>,
    ) -> Result<Option<Tenant>, Reason> {
        let (store, now) = (machinery.store, machinery.now);
        let directory = &mut self.directory;
        let verdict = |_| directory.selection(selection, store, now);
        let admitted = self
            .library
            .admit(machinery, NAME, Reason::SnapshotMissing, verdict);
        match admitted {
            Ok(tenant) => Ok(Some(tenant)),
            Err(Denial::Refused) => Ok(None),
            Err(Denial::Undecided(reason)) => Err(reason),
        }
    }

    /// The answer to who asks too often.
    pub(super) fn limited<'r>(
        &mut self,
        request: &'r OfrepRequest<'_>,
        selection: Option<Tenant>,
        now: Monotonic,
    ) -> Option<Decided<'r, Self>> {
        let (budgets, rate) = self.budgets.as_mut().zip(self.settings.rate_limit)?;
        let spent = budgets.spend(selection.unwrap_or(NOBODY), rate, now);
        let response = OfrepAnswer::rate_limited(request, spent.err()?.seconds());
        Some(replied(response, OfrepAnswer::RateLimited, selection))
    }
}

/// What a selector's header field says, all of it.
pub(super) fn selector(request: &OfrepRequest<'_>) -> Result<Selector, super::flagd::BadSelector> {
    Selector::parse(request.selector.as_deref().unwrap_or_default())
}
