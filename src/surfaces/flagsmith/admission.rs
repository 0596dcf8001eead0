//! Who is admitted: by the key, then by the rate of the environment.

use super::answers::FlagsmithAnswer;
use super::counts::FlagsmithCount;
use super::health::NAME;
use super::keys::{EdgeReader, SERVER_PREFIX};
use super::request::{FlagsmithRequest, Route};
use super::steps::replied;
use super::surface::Flagsmith;
use crate::shared::{Machinery, Store};
use crate::surfaces::evaluated::admission::Denial;
use crate::surfaces::{Decided, Reason};
use crate::time::Monotonic;

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
        let (store, ambient, now) = (machinery.store, machinery.ambient, machinery.now);
        let directory = &mut self.directory;
        self.library
            .admit(machinery, NAME, Reason::UnknownCredential, |is_fresh| {
                directory.reader(key, store, (ambient, is_fresh), now)
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
