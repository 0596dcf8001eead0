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
mod quota_end;
pub mod settings;
mod tables;

use std::rc::Rc;
use std::time::Duration;

use crate::config::Settings;
use crate::hash::Sha256Hash;
use crate::http::{Candidate, ETag, Method};
use crate::limits::{Budget, Limiter, Mode, RetryAfter};
use crate::metrics::{AuthMethod, CacheResult, ETagResult};
use crate::recent::Recent;
use crate::records::LookupError;
use crate::redis::Failure;
use crate::shared::{Store, StoreError};
use crate::snapshot::follow::Confirmation;
use crate::snapshot::status::Freshness;
use crate::surfaces::posthog::definitions::confirmed::{self, Confirmed};
use crate::surfaces::posthog::definitions::{Absent, Bodies, Full, Need, Object, Outcome};
use crate::surfaces::posthog::directory::{self, Record};
use crate::surfaces::posthog::pipeline::settings::{HeadRequests, Upstream};
use crate::surfaces::posthog::quota::QuotaCopy;
use crate::surfaces::posthog::read_through::{self, Found, Misses};
use crate::surfaces::posthog::reply::{Answer, Reply, Why};
use crate::surfaces::posthog::request::Request;
use crate::tenant::Tenant;
use crate::time::Monotonic;

pub use memory::Memory;
use memory::{Published, Reader};
pub use tables::Tables;

/// What happens to a request next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Answer it.
    Reply(Reply<'a>),
    /// Let it go on to the upstream.
    Forward(Why),
    /// Read this first, then [`resume`], or [`start`] again with what an identity look-up [`Found`].
    Fetch(Fetch),
}

/// What must be read before a request can go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// Who the token and the credential are; and the team, where the token is known already.
    Identity(read_through::Need, Option<Tenant>),
    /// A team's ETag and payload.
    Definitions(Need),
    /// A team's payload, from the object store.
    Object(Object),
}

impl Fetch {
    /// The team that it is about, where that is known.
    pub fn team(&self) -> Option<Tenant> {
        match self {
            Self::Identity(_, team) => *team,
            Self::Definitions(need) => Some(need.team),
            Self::Object(object) => Some(object.team),
        }
    }
}

/// What a decision teaches the dashboards, the log, and PostHog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whose definitions are asked for, once that is proven.
    pub team: Option<Tenant>,
    /// Hash of that team's public token, where it is known: named by the request, or beside its credential.
    pub token: Option<Sha256Hash>,
    /// That token is limited, and whoever reads the list does not know that it is this team's.
    pub unowned: bool,
    /// How the request authenticated.
    pub auth: Option<AuthMethod>,
    /// Rate limits that were exceeded or could not be applied.
    pub limits: Vec<(Budget, Mode)>,
    /// What its validators were worth.
    pub etag: Option<ETagResult>,
    /// Whether the payload was there.
    pub cache: Option<CacheResult>,
    /// The answer is a payload that is billed, once it is sent.
    pub billed: bool,
    /// The payload is missing: PostHog shall rebuild it.
    pub rebuild: bool,
}

/// What a worker knows when a request is decided.
pub struct Context<'a, S> {
    /// The plugin configuration.
    pub settings: &'a Settings,
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
    /// This worker's share of the rate limits.
    pub limiter: &'a mut Limiter,
    /// Whose quota is used up.
    pub quota: &'a QuotaCopy,
    /// The bodies that this worker keeps.
    pub bodies: &'a mut Bodies,
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
) -> Step<'a> {
    match decide(request, context, observed) {
        Decision::Answer(answer) => fixed(request, answer),
        Decision::Limited(retry_after) => limited(request, Answer::RateLimited, retry_after),
        Decision::NotModified(etag) => not_modified(request, context.settings, etag),
        Decision::Full(team, full, told) => {
            with_payload(request, team, &full, told, context, observed)
        }
        Decision::Undecided(why) => undecided(request, context.settings, why),
        Decision::Absent(absent) => without_payload(request, context.settings, absent, observed),
        Decision::Fetch(fetch) => Step::Fetch(fetch),
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
) -> Step<'a> {
    observed.team = Some(team);
    let (etag, full, pending) = match outcome {
        Outcome::Same(etag) => (etag, None, false),
        Outcome::Full(full) => (&full.etag, Some(full), false),
        Outcome::Pending(pending) => (&pending.etag, pending.full.as_ref(), true),
        Outcome::Elsewhere(object) => {
            observed.rebuild = true;
            return Step::Fetch(Fetch::Object(object.clone()));
        }
        Outcome::Absent(absent) => {
            observed.rebuild = matches!(absent, Absent::Missing);
            return without_payload(request, context.settings, *absent, observed);
        }
    };
    let told = ETagTold::unless(quota_end::is_pending(context, team, token, etag, pending));
    match full {
        Some(full) => with_payload(request, team, full, told, context, observed),
        None if told == ETagTold::Yes && request.if_none_match.matches(etag) => {
            observed.etag = Some(ETagResult::Hit);
            not_modified(request, context.settings, etag.clone())
        }
        None => match context.bodies.get(team, etag) {
            Some(full) => with_payload(request, team, &full, told, context, observed),
            // What was held was the client's, or gave way meanwhile.
            None => Step::Fetch(Fetch::Definitions(Need { team, held: None })),
        },
    }
}

/// Whether the client may be told the ETag of the current version ([`quota_end`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ETagTold {
    Yes,
    No,
}

impl ETagTold {
    const fn unless(pending: bool) -> Self {
        if pending { Self::No } else { Self::Yes }
    }
}

/// Answers a request when this version is current.
fn with_payload<'a, S: Store>(
    request: &'a Request<'a>,
    team: Tenant,
    full: &Rc<Full>,
    told: ETagTold,
    context: &mut Context<'_, S>,
    observed: &mut Observed,
) -> Step<'a> {
    let conditional = request.if_none_match.is_present();
    let matches = told == ETagTold::Yes && request.if_none_match.matches(&full.etag);
    observed.etag = Some(match full.etag_stored {
        _ if matches => ETagResult::Hit,
        true if conditional => ETagResult::Miss,
        true => ETagResult::None,
        false => ETagResult::RedisMissing,
    });
    if matches {
        return not_modified(request, context.settings, full.etag.clone());
    }
    // A stale ETag costs what a request without one costs.
    if conditional && let Err(retry_after) = spend(team, Budget::Full, context, observed) {
        return limited(request, Answer::RateLimited, retry_after);
    }
    observed.billed = full.billable && request.method == Method::Get;
    observed.cache = Some(CacheResult::Hit);
    let compresses = context.settings.definitions.compresses();
    let gzip = match request.accepts_gzip && compresses {
        true => context.bodies.gzip(team, &full.etag),
        false => None,
    };
    let answer = Reply::definitions(full, gzip, &request.cors);
    let answer = match told {
        ETagTold::Yes => answer,
        ETagTold::No => answer.without_etag(),
    };
    payload_reply(context.settings, answer)
}

fn not_modified<'a>(request: &'a Request<'a>, settings: &Settings, etag: ETag) -> Step<'a> {
    payload_reply(settings, Reply::not_modified(etag, &request.cors))
}

/// A 200 or 304.
fn payload_reply<'a>(settings: &Settings, answer: Reply<'a>) -> Step<'a> {
    Step::Reply(match settings.definitions.compresses() {
        true => answer.varying_by_encoding(),
        false => answer,
    })
}

/// What happens to a request that cannot be decided here.
pub fn undecided<'a>(request: &'a Request<'a>, settings: &Settings, why: Why) -> Step<'a> {
    match settings.upstream {
        Upstream::Forward if request.forwarded_before => {
            fixed(request, Answer::Unavailable(Why::Loop))
        }
        Upstream::Forward => Step::Forward(why),
        Upstream::None => fixed(request, Answer::Unavailable(why)),
    }
}

/// What happens to a request whose identity look-up did not come back.
pub fn without_identity<'a>(
    request: &'a Request<'a>,
    settings: &Settings,
    failure: Failure,
) -> Step<'a> {
    undecided(request, settings, why(failure))
}

/// What happens to a request that needs a look-up when no more may be made: never 401.
pub fn look_up_limited<'a>(request: &'a Request<'a>, retry_after: RetryAfter) -> Step<'a> {
    limited(request, Answer::LookupLimited, retry_after)
}

fn without_payload<'a>(
    request: &'a Request<'a>,
    settings: &Settings,
    absent: Absent,
    observed: &mut Observed,
) -> Step<'a> {
    observed.cache = Some(match absent {
        Absent::Missing => CacheResult::Miss,
        _ => CacheResult::Error,
    });
    let answer = match absent {
        Absent::Missing => Answer::PayloadMissing,
        Absent::Undecodable(_) => Answer::Undecodable,
        Absent::TooBig => Answer::TooBig,
        Absent::ObjectStore => return undecided(request, settings, Why::ObjectStore),
        Absent::Failed(failure) => {
            if request.if_none_match.is_present() {
                observed.etag = Some(ETagResult::RedisError);
            }
            return undecided(request, settings, why(failure));
        }
    };
    fixed(request, answer)
}

const fn why(failure: Failure) -> Why {
    match failure {
        Failure::Timeout => Why::Timeout,
        _ => Why::Redis,
    }
}

fn fixed<'a>(request: &'a Request<'a>, answer: Answer) -> Step<'a> {
    Step::Reply(Reply::fixed(answer, &request.cors))
}

fn limited<'a>(request: &'a Request<'a>, answer: Answer, retry_after: RetryAfter) -> Step<'a> {
    Step::Reply(Reply::limited(answer, retry_after.seconds(), &request.cors))
}

enum Decision {
    Answer(Answer),
    Limited(RetryAfter),
    NotModified(ETag),
    Full(Tenant, Rc<Full>, ETagTold),
    Undecided(Why),
    Absent(Absent),
    Fetch(Fetch),
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
        (Method::Other, _) => return Decision::Answer(Answer::MethodNotAllowed),
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
    if request.if_none_match.is_present() || context.bodies.etag(team).is_some() {
        let current = match pending {
            Some(etag) => Some(etag),
            None => match current_etag(request, reader, context) {
                Ok(current) => current,
                Err(_) => return Decision::Undecided(Why::SharedData),
            },
        };
        if let Some(etag) = current {
            let token = reader.token.as_ref();
            let pending = quota_end::is_pending(context, team, token, &etag, is_pending);
            let told = ETagTold::unless(pending);
            if told == ETagTold::Yes && request.if_none_match.matches(&etag) {
                observed.etag = Some(ETagResult::Hit);
                return Decision::NotModified(etag);
            }
            if let Some(full) = context.bodies.get(team, &etag) {
                return Decision::Full(team, full, told);
            }
        }
    }
    // Clients that have no payload yet may ask hundreds of times a second.
    if let Some(absent) = context.absent.get(&team, context.now) {
        return Decision::Absent(*absent);
    }
    // When what is kept turns out to be current, it serves everybody.
    let held = match context.bodies.etag(team) {
        Some(etag) => Some(Candidate::Tag(etag.clone())),
        // Whatever the client holds, it gets the payload.
        None if is_pending => None,
        None => request.if_none_match.candidate(),
    };
    Decision::Fetch(Fetch::Definitions(Need { team, held }))
}

/// What reading the changes takes at least: Redis may have looked at them that long after it was asked, from when on the
/// moments of the stream count. A longer timeout of theirs counts instead.
const POLL_TAKES: Duration = Duration::from_millis(500);

/// The ETag that is known to be a team's current one. A watermark confirms what was published; a callout confirms
/// what it brought, for a while, unless something newer was published since. For a client that holds what a
/// watermark confirms, callouts are not looked at.
///
/// What was confirmed before a quota period ended counts no more: some clients have no flags then, and a 304 would
/// leave them without.
fn current_etag<S: Store>(
    request: &Request<'_>,
    reader: &Reader,
    context: &mut Context<'_, S>,
) -> Result<Option<ETag>, StoreError> {
    let (team, now) = (reader.team, context.now);
    let max_age = context.settings.snapshot.etag_max_age;
    let settled = context.quota.settled_since(team, reader.token.as_ref());
    let counts = |at: Monotonic| now.since(at) < max_age && Some(at) >= settled;
    let held = &request.if_none_match;
    let published = match context.confirmation {
        Some(confirmation) => published_etag(team, confirmation, context)?
            .map(|(etag, id)| (etag, confirmation, confirmation.moment(id))),
        None => None,
    };
    if let Some((etag, confirmation, _)) = &published
        && held.matches(etag)
        && counts(confirmation.at)
    {
        return Ok(Some(etag.clone()));
    }
    // Who holds something else may have it from another worker a moment ago.
    let suits = |asked: &Option<Confirmed>| {
        let matches = |asked: &Confirmed| held.matches(&asked.etag) && counts(asked.at);
        !held.is_present() || asked.as_ref().is_some_and(matches)
    };
    let remembered = context.memory.asked(team, now);
    let asked = match remembered.filter(|asked| suits(asked)) {
        Some(asked) => asked.clone(),
        None => {
            let asked = confirmed::read(context.store, &context.tables.confirmed, team)?;
            context.memory.found_asked(team, asked.clone(), now);
            asked
        }
    };
    let asked = asked.filter(|asked| counts(asked.at));
    Ok(match (published, asked) {
        (Some((etag, confirmation, published_at)), asked) => {
            // As of when a callout has to be, to know better than the publisher.
            let poll_takes = POLL_TAKES.max(context.settings.redis.snapshot.timeout);
            let known_at = confirmation.at.max(published_at.plus(poll_takes));
            match asked {
                Some(asked) if asked.etag == etag || asked.at >= known_at => Some(asked.etag),
                _ => counts(confirmation.at).then_some(etag),
            }
        }
        (None, asked) => asked.map(|asked| asked.etag),
    })
}

/// What the publisher said last of a team's ETag, and as of when.
fn published_etag<S: Store>(
    team: Tenant,
    confirmation: Confirmation,
    context: &mut Context<'_, S>,
) -> Result<Published, StoreError> {
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
    Ok(published.filter(|(_, id)| *id >= confirmation.since))
}

#[cfg(test)]
mod tests;
