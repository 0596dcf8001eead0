//! What this surface counts. The names are in [`crate::metrics`].

use crate::limits::{Budget, Mode};
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::directory::access::AuthMethod;
use crate::surfaces::posthog::pipeline::{CacheResult, ETagResult};
use crate::tenant::Tenant;
use crate::usage::State;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostHogCount {
    /// An answer was sent.
    Answer(Answer),
    /// A request's validators were looked at.
    ETag(ETagResult),
    /// A payload was read.
    Cache(CacheResult),
    /// A request authenticated.
    Auth(AuthMethod),
    /// A rate limit was exceeded, or could not be applied.
    RateLimited(Budget, Mode),
    /// Billed requests, by what became of their counts.
    Usage(State),
    /// An answer of this status to a team that has a label of its own.
    TeamAnswer(Tenant, u16),
    /// As [`PostHogCount::RateLimited`], for such a team.
    TeamRateLimited(Tenant, Budget, Mode),
}

impl From<State> for PostHogCount {
    fn from(state: State) -> Self {
        Self::Usage(state)
    }
}
