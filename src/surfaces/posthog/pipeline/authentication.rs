//! Whose request it is, and what it may read. The snapshot is asked first, then what was looked up in PostHog's own cache.

use super::memory::Shown;
use super::{Context, Decision, Reader};
use crate::hash::Sha256Hash;
use crate::records::LookupError;
use crate::shared::Store;
use crate::snapshot::status::Freshness;
use crate::surfaces::Reason;
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::directory::access::{self, Checked, Directory, Half};
use crate::surfaces::posthog::directory::{self, Record};
use crate::surfaces::posthog::read_through::{self, Known, table};
use crate::surfaces::posthog::reads::PostHogRead;
use crate::surfaces::posthog::request::{Request, Token};
use crate::surfaces::posthog::settings::UnknownCredential;
use crate::tenant::Tenant;

/// What is known of one token or credential.
enum Knowledge {
    /// The snapshot has it.
    Snapshot(Record),
    /// PostHog's own cache had it.
    LookedUp(Known),
    /// Nothing.
    None,
}

impl Knowledge {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Snapshot(record) => Some(record),
            Self::LookedUp(known) => Some(&known.record),
            Self::None => None,
        }
    }
}

/// Applies the rules to token and credential. Whom this worker admitted a moment ago it admits again.
pub(super) fn authenticate<S: Store>(
    request: &Request<'_>,
    context: &mut Context<'_, S>,
) -> Result<Reader, Decision> {
    let token = match &request.token {
        Token::Named(token) => Some(Some(*token.hash())),
        Token::Absent => Some(None),
        Token::Repeated | Token::Oversized => None,
    };
    let shown = token
        .zip(request.bearer.as_ref())
        .map(|(token, bearer)| Shown {
            token,
            bearer: bearer.hash,
        });
    let counts = matches!(context.freshness, Freshness::Current | Freshness::Aging);
    let Some(shown) = shown.filter(|_| counts) else {
        return Ok(look(request, context)?.0);
    };
    let now = context.now;
    context
        .memory
        .refresh(context.store, context.tables.buckets.scope(), now);
    if let Some(reader) = context.memory.admission(&shown, now) {
        return Ok(reader);
    }
    let (reader, lasts) = look(request, context)?;
    if lasts {
        context.memory.admitted(shown, reader, now);
    }
    Ok(reader)
}

/// Who asks, and whether that rests on the snapshot alone.
fn look<S: Store>(
    request: &Request<'_>,
    context: &Context<'_, S>,
) -> Result<(Reader, bool), Decision> {
    let mut attempt = Attempt {
        request,
        context,
        team: None,
        token: Knowledge::None,
        bearer: Knowledge::None,
    };
    let (team, method) = match access::check(request, &mut attempt)? {
        Checked::Accepted(team, method) => (team, method),
        Checked::Incomplete(answer) => return Err(Decision::Answer(answer)),
        Checked::Refused(answer) => return Err(attempt.refuse(answer)),
        Checked::Unknown(_, answer) => return Err(attempt.look_up(answer)),
        Checked::Impossible(answer) => {
            usable(context)?;
            return Err(unknown(context, answer));
        }
    };
    let looked_up = |knowledge| matches!(knowledge, &Knowledge::LookedUp(_));
    let lasts = !looked_up(&attempt.token) && !looked_up(&attempt.bearer);
    let named = match &request.token {
        Token::Named(token) => Some(*token.hash()),
        _ => None,
    };
    let reader = Reader {
        team,
        token: named.or(match attempt.bearer {
            Knowledge::LookedUp(known) => known.api_token,
            _ => None,
        }),
        method,
    };
    Ok((reader, lasts))
}

/// What is known so far of one request.
struct Attempt<'a, S> {
    request: &'a Request<'a>,
    context: &'a Context<'a, S>,
    team: Option<Tenant>,
    token: Knowledge,
    bearer: Knowledge,
}

impl<S: Store> Directory for Attempt<'_, S> {
    type Error = Decision;

    fn find(&mut self, half: Half, hash: &Sha256Hash) -> Result<Option<&Record>, Decision> {
        let found = find(self.context, hash)?;
        if let (Half::Token, Some(Record::Team(team))) = (half, found.record()) {
            self.team = Some(team.id);
        }
        let known = match half {
            Half::Token => &mut self.token,
            Half::Bearer => &mut self.bearer,
        };
        *known = found;
        Ok(known.record())
    }
}

impl<S: Store> Attempt<'_, S> {
    /// Refuses, where everything that the refusal rests on is fresh. What was looked up a while ago is looked
    /// up again first.
    fn refuse(&self, answer: Answer) -> Decision {
        let [token, bearer] = [&self.token, &self.bearer].map(|knowledge| self.is_stale(knowledge));
        if token || bearer {
            let gone = Decision::Undecided(Reason::UnknownCredential);
            return self.ask(Wanted { token, bearer }, gone);
        }
        let rests_on_snapshot =
            |knowledge: &&Knowledge| matches!(knowledge, Knowledge::Snapshot(_));
        if [&self.token, &self.bearer].iter().any(rests_on_snapshot) {
            return refuse(self.context, answer);
        }
        Decision::Answer(answer)
    }

    fn is_stale(&self, knowledge: &Knowledge) -> bool {
        let Knowledge::LookedUp(known) = knowledge else {
            return false;
        };
        let age = self.context.now.since(known.looked_up_at);
        age > self.context.settings.snapshot.refuse_max_age
    }

    /// Looks up, unless that brought nothing of what `wanted` tells a moment ago; then `not_found` is the
    /// decision.
    fn ask(&self, wanted: Wanted, not_found: Decision) -> Decision {
        let Context { found, misses, .. } = self.context;
        let Some(need) = self.need() else {
            // What was just looked up is what is wanted.
            let why = found.map_or(read_through::Why::NotFound, |found| found.why());
            return nothing(why, not_found);
        };
        let missed = misses.get(&need.asked(), self.context.now);
        match missed.filter(|miss| wanted.token && miss.token || wanted.bearer && miss.bearer) {
            Some(miss) => nothing(miss.why, not_found),
            None => Decision::Read(PostHogRead::Identity(need, self.team)),
        }
    }

    /// Looks up what is not known: the token, or the credential where the token is known or not given.
    fn look_up(&self, answer: Answer) -> Decision {
        let named = matches!(self.request.token, Token::Named(_));
        let token = named && self.team.is_none();
        let wanted = Wanted {
            token,
            bearer: !token,
        };
        self.ask(wanted, unknown(self.context, answer))
    }

    /// What a look-up would ask. `None` when there is none, it was just made, or nothing of it can be asked for:
    /// the token and the credential are known, or are such that PostHog never hands out.
    fn need(&self) -> Option<read_through::Lookup> {
        let context = self.context;
        if !context.settings.read_through.enabled || context.found.is_some() {
            return None;
        }
        let token = match &self.request.token {
            Token::Named(token) => Some(token),
            _ => None,
        };
        // With a token that cannot be anybody's the credential does not matter.
        if self.team.is_none() && token.is_some_and(|token| token.text().is_none()) {
            return None;
        }
        let bearer = self.request.bearer.as_ref();
        if self.team.is_some() && !bearer.is_some_and(|bearer| bearer.plausible) {
            return None;
        }
        read_through::Lookup::new(token, bearer)
    }
}

/// Which halves of a request have to be looked up.
#[derive(Clone, Copy)]
struct Wanted {
    token: bool,
    bearer: bool,
}

/// The decision when a look-up brought nothing.
fn nothing(why: read_through::Why, not_found: Decision) -> Decision {
    match why {
        read_through::Why::NotFound => not_found,
        read_through::Why::Unreadable => Decision::Undecided(Reason::UnknownCredential),
        read_through::Why::Failed(failure) => Decision::Undecided(super::reason(failure)),
    }
}

/// Whether the snapshot may be used at all.
fn usable<S>(context: &Context<'_, S>) -> Result<(), Decision> {
    match context.freshness {
        Freshness::Current | Freshness::Aging => Ok(()),
        // PostHog's own cache can stand in for it.
        _ if context.settings.read_through.enabled => Ok(()),
        Freshness::Expired => Err(Decision::Undecided(Reason::SnapshotExpired)),
        Freshness::Missing => Err(Decision::Undecided(Reason::SnapshotMissing)),
    }
}

fn find<S: Store>(context: &Context<'_, S>, hash: &Sha256Hash) -> Result<Knowledge, Decision> {
    usable(context)?;
    let failed = |_: LookupError| Decision::Undecided(Reason::SharedData);
    let record = directory::find(context.store, &context.tables.buckets, hash).map_err(failed)?;
    let fresh = matches!(context.freshness, Freshness::Current | Freshness::Aging);
    match record {
        // What was removed stays removed, whatever another cache still says.
        Some(record) if fresh || record == Record::Tombstone => {
            return Ok(Knowledge::Snapshot(record));
        }
        _ if !context.settings.read_through.enabled => return Ok(Knowledge::None),
        _ => {}
    }
    if let Some(found) = context.found.and_then(|found| found.get(hash)) {
        return Ok(Knowledge::LookedUp(found.clone()));
    }
    let slots = &context.tables.identities;
    let ttl = context.settings.read_through.ttl;
    let known = table::find(context.store, slots, hash, context.now, ttl)
        .map_err(|error| failed(error.into()))?;
    Ok(known.map_or(Knowledge::None, Knowledge::LookedUp))
}

fn refuse<S>(context: &Context<'_, S>, answer: Answer) -> Decision {
    match context.freshness {
        Freshness::Current => Decision::Answer(answer),
        Freshness::Aging => Decision::Undecided(Reason::SnapshotAging),
        Freshness::Expired => Decision::Undecided(Reason::SnapshotExpired),
        Freshness::Missing => Decision::Undecided(Reason::SnapshotMissing),
    }
}

fn unknown<S>(context: &Context<'_, S>, answer: Answer) -> Decision {
    match context.settings.unknown_credential {
        UnknownCredential::Forward => Decision::Undecided(Reason::UnknownCredential),
        UnknownCredential::Reject => refuse(context, answer),
    }
}
