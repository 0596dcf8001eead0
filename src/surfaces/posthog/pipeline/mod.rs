//! The order of checks; the only place that knows it.
//!
//! Method → team (or credential, then team) → credential → rate limit → quota → ETag → 304, or payload →
//! usage → 200. That is PostHog's order, so a request that fails two checks gets the same answer from both.
//!
//! # When may a request be refused?
//! SDKs drop their flags on 401. So a refusal needs fresh knowledge ([`Freshness::Current`], or a look-up of a
//! moment ago); accepting goes on with an aging one. What cannot be decided is forwarded, or answered 503.

mod authentication;
mod memory;
mod observed;
mod quota_end;
mod tables;

use std::rc::Rc;

use crate::documents::current::{Current, POLL_TAKES, Published, Rule, current};
use crate::documents::{Confirmations, Kept};
use crate::hash::Sha256Hash;
use crate::http::{Candidate, ETag, Method};
use crate::limits::{Budget, Limiter, RetryAfter};
use crate::recent::Recent;
use crate::records::LookupError;
use crate::redis::Failure;
use crate::shared::{Store, StoreError};
use crate::snapshot::follow::Confirmation;
use crate::snapshot::status::Freshness;
use crate::surfaces::posthog::answers::{self, Answer, ETagTold};
use crate::surfaces::posthog::definitions::{Absent, Need, Outcome, Payload};
use crate::surfaces::posthog::directory::{self, Record};
use crate::surfaces::posthog::quota::QuotaCopy;
use crate::surfaces::posthog::read_through::{Found, Misses};
use crate::surfaces::posthog::reads::PostHogRead;
use crate::surfaces::posthog::request::Request;
use crate::surfaces::posthog::settings::{HeadRequests, PostHogSettings};
use crate::surfaces::{Reason, Step, Upstream};
use crate::tenant::Tenant;
use crate::time::Monotonic;

pub use memory::Memory;
use memory::Reader;
pub use observed::{CacheResult, ETagResult, Observed};
pub use quota_end::PendingEnds;
pub use tables::Tables;

/// What happens to a request next: after a read [`resume`], or [`start`] again with what an identity look-up [`Found`].
pub type PostHogStep<'a> = Step<'a, PostHogRead, Answer>;

/// What a worker knows when a request is decided.
pub struct Context<'a, S> {
    /// The plugin configuration.
    pub settings: &'a PostHogSettings,
    /// The tables of shared data.
    pub tables: &'a Tables,
    /// Shared data.
    pub store: &'a S,
    /// What the snapshot may be used for.
    pub freshness: Freshness,
    /// As of when the published ETags are known to be current, where a publisher watches them.
    pub confirmation: Option<Confirmation>,
    /// The time.
    pub now: Monotonic,
    /// Whom this worker admitted a moment ago.
    pub memory: &'a mut Memory,
    /// ETags that callouts confirmed.
    pub confirmations: &'a mut Confirmations,
    /// Teams whose quota period's end lies ahead, as callouts said.
    pub pending_ends: &'a mut PendingEnds,
    /// This worker's share of the rate limits.
    pub limiter: &'a mut Limiter,
    /// Whose quota is used up.
    pub quota: &'a QuotaCopy,
    /// The payloads that this worker keeps.
    pub kept: &'a mut Kept<Payload>,
    /// Payloads that were not there a moment ago.
    pub absent: &'a Recent<Tenant, Absent>,
    /// Tokens and credentials that were not found a moment ago.
    pub misses: &'a Misses,
    /// What was looked up for this very request.
    pub found: Option<&'a Found>,
}

/// Decides as far as shared data and this worker's memory allow.
pub fn start<'a, S: Store>(
    request: &'a Request<'a>,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> PostHogStep<'a> {
    match decide(request, context, observed) {
        Decision::Answer(answer) => fixed(request, answer),
        Decision::Limited(retry_after) => limited(request, Answer::RateLimited, retry_after),
        Decision::NotModified(etag) => not_modified(request, context.settings, etag),
        Decision::Payload(team, payload, told) => {
            with_payload(request, team, &payload, told, context, observed)
        }
        Decision::Undecided(reason) => undecided(request, context.settings, reason),
        Decision::Absent(absent) => without_payload(request, context.settings, absent, observed),
        Decision::Read(fetch) => Step::Read(fetch),
    }
}

/// Answers a request whose ETag and payload came back. `token`: as [`start`] has [`Observed`] it.
pub fn resume<'a, S: Store>(
    request: &'a Request<'a>,
    team: Tenant,
    token: Option<&Sha256Hash>,
    context: &mut Context<'_, S>,
    outcome: &Outcome,
    observed: &mut Observed,
) -> PostHogStep<'a> {
    observed.team = Some(team);
    let (etag, payload, pending) = match outcome {
        Outcome::Unchanged(etag) => (etag, None, false),
        Outcome::Payload(payload) => (&payload.etag, Some(payload), false),
        Outcome::Pending(pending) => (&pending.etag, pending.payload.as_ref(), true),
        Outcome::InObjectStore(object) => {
            observed.rebuild = true;
            return Step::Read(PostHogRead::Object(object.clone()));
        }
        Outcome::Absent(absent) => {
            observed.rebuild = matches!(absent, Absent::Missing);
            return without_payload(request, context.settings, *absent, observed);
        }
    };
    let told = told_unless(quota_end::is_pending(context, team, token, etag, pending));
    match payload {
        Some(payload) => with_payload(request, team, payload, told, context, observed),
        None if told == ETagTold::Yes && request.if_none_match.matches(etag) => {
            observed.etag = Some(ETagResult::Hit);
            not_modified(request, context.settings, etag.clone())
        }
        None => match context.kept.get(team, etag) {
            Some(payload) => with_payload(request, team, &payload, told, context, observed),
            // What was held was the client's, or gave way meanwhile.
            None => Step::Read(PostHogRead::Definitions(Need { team, held: None })),
        },
    }
}

/// Whether the client may be told the ETag ([`quota_end`]).
const fn told_unless(pending: bool) -> ETagTold {
    if pending { ETagTold::No } else { ETagTold::Yes }
}

/// Answers a request when this version is current.
fn with_payload<'a, S: Store>(
    request: &'a Request<'a>,
    team: Tenant,
    payload: &Rc<Payload>,
    told: ETagTold,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> PostHogStep<'a> {
    let conditional = request.if_none_match.is_present();
    let matches = told == ETagTold::Yes && request.if_none_match.matches(&payload.etag);
    observed.etag = Some(match payload.etag_stored {
        _ if matches => ETagResult::Hit,
        true if conditional => ETagResult::Miss,
        true => ETagResult::None,
        false => ETagResult::RedisMissing,
    });
    if matches {
        return not_modified(request, context.settings, payload.etag.clone());
    }
    // A stale ETag costs what a request without one costs.
    if conditional && let Err(retry_after) = spend(team, Budget::Full, context, observed) {
        return limited(request, Answer::RateLimited, retry_after);
    }
    observed.billed = payload.billable && request.method == Method::Get;
    observed.cache = Some(CacheResult::Hit);
    let compresses = context.settings.definitions.compresses();
    let gzip = match request.accepts_gzip && compresses {
        true => context.kept.gzip(team, &payload.etag),
        false => None,
    };
    let (mut response, answer) = answers::payload(payload, gzip, told, &request.cors);
    response.varies_by_encoding = compresses;
    Step::Reply(response, answer)
}

fn not_modified<'a>(
    request: &'a Request<'a>,
    settings: &PostHogSettings,
    etag: ETag,
) -> PostHogStep<'a> {
    let mut response = answers::not_modified(etag, &request.cors);
    response.varies_by_encoding = settings.definitions.compresses();
    Step::Reply(response, Answer::NotModified)
}

/// What happens to a request that cannot be decided here.
pub fn undecided<'a>(
    request: &'a Request<'a>,
    settings: &PostHogSettings,
    reason: Reason,
) -> PostHogStep<'a> {
    match settings.upstream {
        Upstream::Forward if request.forwarded_before => {
            fixed(request, Answer::Unavailable(Reason::Loop))
        }
        Upstream::Forward => Step::Forward(reason),
        Upstream::None => fixed(request, Answer::Unavailable(reason)),
    }
}

/// What happens to a request whose identity look-up did not come back.
pub fn without_identity<'a>(
    request: &'a Request<'a>,
    settings: &PostHogSettings,
    failure: Failure,
) -> PostHogStep<'a> {
    undecided(request, settings, reason(failure))
}

/// What happens to a request that needs a look-up when no more may be made: never 401.
pub fn look_up_limited<'a>(request: &'a Request<'a>, retry_after: RetryAfter) -> PostHogStep<'a> {
    limited(request, Answer::LookupLimited, retry_after)
}

fn without_payload<'a>(
    request: &'a Request<'a>,
    settings: &PostHogSettings,
    absent: Absent,
    observed: &mut Observed,
) -> PostHogStep<'a> {
    observed.cache = Some(match absent {
        Absent::Missing => CacheResult::Miss,
        _ => CacheResult::Error,
    });
    let answer = match absent {
        Absent::Missing => Answer::PayloadMissing,
        Absent::Undecodable(_) => Answer::Undecodable,
        Absent::TooBig => Answer::TooBig,
        Absent::ObjectStore => return undecided(request, settings, Reason::ObjectStore),
        Absent::Failed(failure) => {
            if request.if_none_match.is_present() {
                observed.etag = Some(ETagResult::RedisError);
            }
            return undecided(request, settings, reason(failure));
        }
    };
    fixed(request, answer)
}

const fn reason(failure: Failure) -> Reason {
    match failure {
        Failure::Timeout => Reason::Timeout,
        _ => Reason::Redis,
    }
}

fn fixed<'a>(request: &'a Request<'a>, answer: Answer) -> PostHogStep<'a> {
    Step::Reply(answer.response(&request.cors), answer)
}

fn limited<'a>(
    request: &'a Request<'a>,
    answer: Answer,
    retry_after: RetryAfter,
) -> PostHogStep<'a> {
    let response = answers::limited(answer, retry_after.seconds(), &request.cors);
    Step::Reply(response, answer)
}

enum Decision {
    Answer(Answer),
    Limited(RetryAfter),
    NotModified(ETag),
    Payload(Tenant, Rc<Payload>, ETagTold),
    Undecided(Reason),
    Absent(Absent),
    Read(PostHogRead),
}

fn decide<S: Store>(
    request: &Request<'_>,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> Decision {
    // The host changes whatever is sent to such a request, so nothing that counts is.
    if request.claims_grpc {
        return Decision::Answer(Answer::UnsupportedMediaType);
    }
    match (request.method, context.settings.head_requests) {
        (Method::Get, _) | (Method::Head, HeadRequests::Validate) => {}
        (Method::Head, HeadRequests::Posthog) => return Decision::Answer(Answer::Head),
        (Method::Options, _) => return Decision::Answer(Answer::Preflight),
        (Method::Post | Method::Other, _) => return Decision::Answer(Answer::MethodNotAllowed),
    }
    let reader = match authentication::authenticate(request, context) {
        Ok(reader) => reader,
        Err(decision) => return decision,
    };
    observed.auth = Some(reader.method);
    observed.team = Some(reader.team);
    observed.token = reader.token;
    let budget = if request.if_none_match.is_present() {
        Budget::Conditional
    } else {
        Budget::Full
    };
    if let Err(retry_after) = spend(reader.team, budget, context, observed) {
        return Decision::Limited(retry_after);
    }
    let enforced = context.settings.quota.enabled;
    let limited = context
        .quota
        .ends(reader.team, reader.token.as_ref(), context.now);
    if enforced && limited.is_some() {
        let token = reader.token.as_ref();
        observed.unowned = token.is_some_and(|token| context.quota.lacks_team_of(token));
        return Decision::Answer(Answer::QuotaLimited);
    }
    revalidate(request, &reader, context, observed)
}

fn spend<S: Store>(
    team: Tenant,
    budget: Budget,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> Result<(), RetryAfter> {
    let limits = &context.settings.rate_limit;
    let spent = context.limiter.spend(
        limits,
        context.store,
        &context.tables.limits,
        team,
        budget,
        context.now,
    );
    observed.limits.extend(spent.count);
    spent.passes
}

fn revalidate<S: Store>(
    request: &Request<'_>,
    reader: &Reader,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> Decision {
    let team = reader.team;
    let pending = quota_end::pending_etag(context, team);
    let is_pending = pending.is_some();
    // Who holds nothing, where nothing is kept, needs the payload whatever is current.
    if request.if_none_match.is_present() || context.kept.etag(team).is_some() {
        let current = match pending {
            Some(etag) => Some(etag),
            None => match current_etag(request, reader, context) {
                Ok(Current::Known(etag)) => Some(etag),
                Ok(Current::Ask) => None,
                Err(_) => return Decision::Undecided(Reason::SharedData),
            },
        };
        if let Some(etag) = current {
            let token = reader.token.as_ref();
            let pending = quota_end::is_pending(context, team, token, &etag, is_pending);
            let told = told_unless(pending);
            if told == ETagTold::Yes && request.if_none_match.matches(&etag) {
                observed.etag = Some(ETagResult::Hit);
                return Decision::NotModified(etag);
            }
            if let Some(payload) = context.kept.get(team, &etag) {
                return Decision::Payload(team, payload, told);
            }
        }
    }
    // Clients that have no payload yet may ask hundreds of times a second.
    if let Some(absent) = context.absent.get(&team, context.now) {
        return Decision::Absent(*absent);
    }
    // When what is kept turns out to be current, it serves everybody.
    let held = match context.kept.etag(team) {
        Some(etag) => Some(Candidate::Tag(etag.clone())),
        // Whatever the client holds, it gets the payload.
        None if is_pending => None,
        None => request.if_none_match.candidate(),
    };
    Decision::Read(PostHogRead::Definitions(Need { team, held }))
}

/// What is known of a team's current ETag ([`crate::documents::current`]).
///
/// What was confirmed before a quota period ended counts no more: some clients have no flags then, and a 304 would
/// leave them without.
fn current_etag<S: Store>(
    request: &Request<'_>,
    reader: &Reader,
    context: &mut Context<'_, S>,
) -> Result<Current, StoreError> {
    let rule = Rule {
        max_age: context.settings.snapshot.etag_max_age,
        poll_takes: POLL_TAKES.max(context.settings.redis.snapshot.timeout),
        since: context
            .quota
            .settled_since(reader.team, reader.token.as_ref()),
        now: context.now,
    };
    let published = match context.confirmation {
        Some(confirmation) => published(reader.team, confirmation, context)?,
        None => None,
    };
    let held = &request.if_none_match;
    let (store, confirmations) = (context.store, &mut *context.confirmations);
    let callout = || confirmations.find(store, reader.team, held, &rule);
    current(held, published.as_ref(), callout, &rule)
}

/// What the publisher said last of a team's ETag, and as of when.
fn published<S: Store>(
    team: Tenant,
    confirmation: Confirmation,
    context: &mut Context<'_, S>,
) -> Result<Option<Published>, StoreError> {
    let now = context.now;
    let published = match context.memory.published(team, now) {
        Some(published) => published.clone(),
        None => {
            let hash = directory::etag_hash(team);
            let found = match directory::find_with_id(context.store, &context.tables.buckets, &hash)
            {
                Ok(Some((Record::ETag(etag), id))) => Some((etag, id)),
                // Then a callout tells.
                Ok(_) | Err(LookupError::Corrupt(_)) => None,
                Err(LookupError::Store(error)) => return Err(error),
            };
            context.memory.found_published(team, found.clone(), now);
            found
        }
    };
    Ok(published
        .filter(|(_, id)| *id >= confirmation.since)
        .map(|(etag, id)| Published {
            etag,
            at: confirmation.moment(id),
            confirmed_at: confirmation.at,
        }))
}

#[cfg(test)]
mod tests;
