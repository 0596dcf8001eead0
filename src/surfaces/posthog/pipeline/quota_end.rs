//! After a quota period: whether its end is known here, so that a client may be told an ETag.
//!
//! Some SDKs drop their flags on 402 and keep their ETag. From the first answer that is no 402 until the ETag has the
//! suffix of the period ([`crate::surfaces::posthog::definitions::latch`]) a 304 would leave them without flags. They get the payload
//! without an ETag instead, and forget the one that they hold.
//!
//! | known from | holds until |
//! |---|---|
//! | this worker saw the limit end ([`crate::surfaces::posthog::quota::QuotaCopy::left`]) | the ETag tells of that end, or a later one |
//! | Redis: the end in the team's latch lies ahead ([`Pending`]) | it does not any more |
//!
//! Either holds for [`longest_pending`] at most: a latch that cannot be written must not cost a payload for each
//! request for good. What Redis says holds that long from when on this Envoy has read the list, since only then it would
//! know of a limit by itself; and anew with each end.

use std::time::Duration;

use super::Context;
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::recent::Recent;
use crate::surfaces::posthog::definitions::Pending;
use crate::surfaces::posthog::definitions::latch::end_of;
use crate::surfaces::posthog::quota::{QuotaEnd, longest_pending};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// How long what a callout said of that counts, so that an answer out of memory does not outlive the end by more.
const COUNTS: Duration = Duration::from_secs(1);

/// Most teams of which a callout said that a quota period's end lies ahead, and for how long after the last one that is
/// remembered.
const PLACES: usize = 1_024;
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// What a callout said of a team whose quota period's end lies ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// That end.
    end: QuotaEnd,
    /// When it was said first.
    first: Monotonic,
    /// As of when the list was read that was read first since.
    read_at: Option<Monotonic>,
    /// The ETag that nobody is told, and as of when it was current.
    etag: ETag,
    at: Monotonic,
}

/// The teams of which callouts said that a quota period's end lies ahead.
pub struct PendingEnds(Recent<Tenant, Seen>);

impl Default for PendingEnds {
    fn default() -> Self {
        Self(Recent::new(PLACES, REMEMBERED))
    }
}

impl PendingEnds {
    /// A callout that was sent at `at` said this. `read_at`: as of when this Envoy knows the list.
    pub fn found(
        &mut self,
        team: Tenant,
        pending: &Pending,
        read_at: Option<Monotonic>,
        at: Monotonic,
        now: Monotonic,
    ) {
        // Another end is another period's, or this one's was changed.
        let before = self.0.get(&team, now);
        let before = before.filter(|seen| seen.end == pending.end);
        let first = before.map_or(now, |seen| seen.first);
        let read_since = read_at.filter(|read_at| *read_at >= first);
        let seen = Seen {
            end: pending.end,
            first,
            read_at: before.and_then(|seen| seen.read_at).or(read_since),
            etag: pending.etag.clone(),
            at,
        };
        self.0.note(team, seen, now);
    }

    /// A callout said that no end lies ahead.
    pub fn settled(&mut self, team: Tenant) {
        self.0.forget(&team);
    }
}

/// The version that is current, if a callout said a short time ago that it may be told to nobody.
pub(super) fn pending_etag<S>(context: &Context<'_, S>, team: Tenant) -> Option<ETag> {
    let seen = context.pending_ends.0.get(&team, context.now)?;
    let max_age = context.settings.snapshot.etag_max_age.min(COUNTS);
    (context.now.since(seen.at) < max_age).then(|| seen.etag.clone())
}

/// Whether this ETag, which is current, may be told to nobody. `pending`: so Redis says.
pub(super) fn is_pending<S>(
    context: &Context<'_, S>,
    team: Tenant,
    token: Option<&Sha256Hash>,
    etag: &ETag,
    pending: bool,
) -> bool {
    let quota = &context.settings.quota;
    if !quota.enabled || !quota.free_latch {
        return false;
    }
    let left = context.quota.left(team, token);
    // So it is nearly always.
    if left.is_none() && !pending {
        return false;
    }
    let longest = longest_pending(quota.interval);
    let holds = |since| context.now.since(since) < longest;
    let known_here = left.is_some_and(|left| {
        let tells = end_of(etag).is_some_and(|end| end >= left.end.as_millis() / 1_000);
        holds(left.at) && !tells
    });
    let known_from_redis = || {
        let seen = context.pending_ends.0.get(&team, context.now);
        seen.and_then(|seen| seen.read_at).is_none_or(holds)
    };
    known_here || (pending && known_from_redis())
}
