//! The order of checks; the only place that knows it.
//!
//! Method → team (or credential, then team) → credential → ETag → 304, or payload → 200. That is PostHog's
//! order, so a request that fails two checks gets the same answer from both.
//!
//! # When may a request be refused?
//! SDKs drop their flags on 401. So a refusal that rests on the snapshot needs a [`Freshness::Current`] one;
//! accepting goes on with an aging one. What cannot be decided is forwarded, or answered 503.

use crate::config::{Settings, UnknownCredential, Upstream};
use crate::definitions::confirmed::{self, Confirmed};
use crate::definitions::{Need, Outcome};
use crate::directory::access::{self, Verdict};
use crate::directory::{self, LookupError, Record, Sha256Hash, TeamId};
use crate::metrics::{AuthMethod, CacheResult, ETagResult};
use crate::redis::Failure;
use crate::reply::{Answer, Reply, Why};
use crate::request::{BearerKind, Method, Request, Token};
use crate::shared::{Keys, Store};
use crate::snapshot::status::Freshness;
use crate::time::Monotonic;

/// What happens to a request next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Answer it.
    Reply(Reply<'a>),
    /// Let it go on to the upstream.
    Forward(Why),
    /// Read this first, then [`resume`].
    Fetch(Fetch),
}

/// A read on behalf of an authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What to read.
    pub need: Need,
    /// What was known of the team's ETag when it was decided to read.
    pub known: Option<Confirmed>,
}

/// What a decision teaches the dashboards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How the request authenticated.
    pub auth: Option<AuthMethod>,
    /// What its validators were worth.
    pub etag: Option<ETagResult>,
    /// Whether the payload was there.
    pub cache: Option<CacheResult>,
}

/// What a worker knows when a request arrives.
pub struct Context<'a, S> {
    /// The plugin configuration.
    pub settings: &'a Settings,
    /// Names in shared data.
    pub keys: &'a Keys,
    /// Shared data.
    pub store: &'a S,
    /// What the snapshot may be used for.
    pub freshness: Freshness,
    /// The time.
    pub now: Monotonic,
}

/// Decides as far as shared data allows.
pub fn start<'a, S: Store>(
    request: &'a Request,
    context: &Context<'_, S>,
    observed: &mut Observed,
) -> Step<'a> {
    match decide(request, context, observed) {
        Decision::Answer(answer) => reply(request, Reply::fixed(answer)),
        Decision::NotModified(confirmed) => reply(request, Reply::not_modified(&confirmed.etag)),
        Decision::Undecided(why) => undecided(request, context.settings, why),
        Decision::Fetch(fetch) => Step::Fetch(fetch),
    }
}

/// Answers a request whose [`Fetch`] came back.
pub fn resume<'a>(
    request: &'a Request,
    settings: &Settings,
    outcome: &'a Outcome<'_>,
    observed: &mut Observed,
) -> Step<'a> {
    let conditional = request.if_none_match.is_present();
    let answer = match outcome {
        Outcome::Same(etag) => {
            observed.etag = Some(ETagResult::Hit);
            return reply(request, Reply::not_modified(etag));
        }
        Outcome::Full { etag, body } => {
            observed.etag = Some(match etag {
                Some(etag) if request.if_none_match.matches(etag) => ETagResult::Hit,
                Some(_) if conditional => ETagResult::Miss,
                Some(_) => ETagResult::None,
                None => ETagResult::RedisMissing,
            });
            return match etag {
                Some(etag) if observed.etag == Some(ETagResult::Hit) => {
                    reply(request, Reply::not_modified(etag))
                }
                etag => {
                    observed.cache = Some(CacheResult::Hit);
                    reply(request, Reply::definitions(etag.as_ref(), body))
                }
            };
        }
        Outcome::Missing => {
            observed.cache = Some(CacheResult::Miss);
            Answer::PayloadMissing
        }
        Outcome::Undecodable => {
            observed.cache = Some(CacheResult::Error);
            Answer::Undecodable
        }
        Outcome::Failed(Failure::TooBig) => {
            observed.cache = Some(CacheResult::Error);
            Answer::TooBig
        }
        Outcome::Failed(failure) => {
            observed.cache = Some(CacheResult::Error);
            if conditional {
                observed.etag = Some(ETagResult::RedisError);
            }
            let why = match failure {
                Failure::Timeout => Why::Timeout,
                _ => Why::Redis,
            };
            return undecided(request, settings, why);
        }
    };
    reply(request, Reply::fixed(answer))
}

/// What happens to a request that cannot be decided here.
pub fn undecided<'a>(request: &'a Request, settings: &Settings, why: Why) -> Step<'a> {
    match settings.upstream {
        Upstream::Forward if request.forwarded_before => {
            reply(request, Reply::fixed(Answer::Unavailable(Why::Loop)))
        }
        Upstream::Forward => Step::Forward(why),
        Upstream::None => reply(request, Reply::fixed(Answer::Unavailable(why))),
    }
}

fn reply<'a>(request: &'a Request, reply: Reply<'a>) -> Step<'a> {
    Step::Reply(reply.with_cors(request.method, &request.cors))
}

enum Decision {
    Answer(Answer),
    NotModified(Confirmed),
    Undecided(Why),
    Fetch(Fetch),
}

fn decide<S: Store>(
    request: &Request,
    context: &Context<'_, S>,
    observed: &mut Observed,
) -> Decision {
    match request.method {
        Method::Get => {}
        Method::Head => return Decision::Answer(Answer::Head),
        Method::Options => return Decision::Answer(Answer::Preflight),
        Method::Other => return Decision::Answer(Answer::MethodNotAllowed),
    }
    match authenticate(request, context, observed) {
        Ok(team) => revalidate(request, team, context, observed),
        Err(decision) => decision,
    }
}

fn authenticate<S: Store>(
    request: &Request,
    context: &Context<'_, S>,
    observed: &mut Observed,
) -> Result<TeamId, Decision> {
    let team = match &request.token {
        Token::Repeated => return Err(Decision::Answer(Answer::TokenRepeated)),
        Token::Absent => match &request.bearer {
            None => return Err(Decision::Answer(Answer::NotAuthenticated)),
            Some(bearer) if bearer.kind == BearerKind::Personal => {
                return Err(Decision::Answer(Answer::TokenRequired));
            }
            Some(_) => None,
        },
        Token::Oversized => {
            usable(context)?;
            return Err(unknown(context, Answer::TokenInvalid));
        }
        Token::Hash(hash) => match find(context, hash)? {
            Some(Record::Team(team)) => Some(team),
            Some(_) => return Err(refuse(context, Answer::TokenInvalid)),
            None => return Err(unknown(context, Answer::TokenInvalid)),
        },
    };
    let Some(bearer) = &request.bearer else {
        return Err(Decision::Answer(Answer::NotAuthenticated));
    };
    let record = find(context, &bearer.hash)?;
    match access::judge(team.as_ref(), bearer, record.as_ref()) {
        Verdict::Accepted(team, method) => {
            observed.auth = Some(method);
            Ok(team)
        }
        Verdict::Refused(answer) => Err(refuse(context, answer)),
        Verdict::Unknown(answer) => Err(unknown(context, answer)),
    }
}

/// Whether the snapshot may be used at all.
fn usable<S>(context: &Context<'_, S>) -> Result<(), Decision> {
    match context.freshness {
        Freshness::Current | Freshness::Aging => Ok(()),
        Freshness::Expired => Err(Decision::Undecided(Why::SnapshotExpired)),
        Freshness::Missing => Err(Decision::Undecided(Why::SnapshotMissing)),
    }
}

fn find<S: Store>(context: &Context<'_, S>, hash: &Sha256Hash) -> Result<Option<Record>, Decision> {
    usable(context)?;
    directory::find(context.store, context.keys, hash)
        .map_err(|_: LookupError| Decision::Undecided(Why::SharedData))
}

fn refuse<S>(context: &Context<'_, S>, answer: Answer) -> Decision {
    match context.freshness {
        Freshness::Current => Decision::Answer(answer),
        _ => Decision::Undecided(Why::SnapshotAging),
    }
}

fn unknown<S>(context: &Context<'_, S>, answer: Answer) -> Decision {
    match context.settings.unknown_credential {
        UnknownCredential::Forward => Decision::Undecided(Why::UnknownCredential),
        UnknownCredential::Reject => refuse(context, answer),
    }
}

fn revalidate<S: Store>(
    request: &Request,
    team: TeamId,
    context: &Context<'_, S>,
    observed: &mut Observed,
) -> Decision {
    let mut need = Need { team, held: None };
    let mut known = None;
    if request.if_none_match.is_present() {
        known = match confirmed::read(context.store, context.keys, team) {
            Ok(known) => known,
            Err(_) => return Decision::Undecided(Why::SharedData),
        };
        // A callout that asked for the ETag confirms it for a while.
        if let Some(confirmed) = &known
            && confirmed.is_current(context.now, context.settings.snapshot.etag_max_age)
            && request.if_none_match.matches(&confirmed.etag)
        {
            observed.etag = Some(ETagResult::Hit);
            return Decision::NotModified(confirmed.clone());
        }
        need.held = request.if_none_match.candidate();
    } else if let Ok(found) = confirmed::read(context.store, context.keys, team) {
        known = found;
    }
    Decision::Fetch(Fetch { need, known })
}

#[cfg(test)]
mod tests;
