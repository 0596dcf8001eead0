//! What this surface reads: each read as data, and what its reply teaches.

use std::borrow::Cow;

use super::counts::PostHogCount;
use super::definitions::encoding::{self, Decoded, MISSING};
use super::definitions::flags::is_billable;
use super::definitions::{Absent, Need, Object, Outcome, object};
use super::read_through::{self, Found, Lookup, Miss, table};
use super::settings::PostHogSettings;
use super::surface::PostHog;
use crate::documents::Confirmed;
use crate::http::ETag;
use crate::redis::{self, Failure, Purpose, Reply};
use crate::shared::{Machinery, Store};
use crate::surfaces::{Fetch, Question, Read, Reason, Received, SentRead, Terms};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Room for the framing around a value in a callout's reply.
const FRAMING: usize = 1 << 12;

/// Largest reply of a look-up: team metadata is some 10 KB, a credential less.
const LARGEST_IDENTITY: usize = 2 << 20;

/// What must be read before a request can go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PostHogRead {
    /// Who the token and the credential are; and the team, where the token is known already.
    Identity(Lookup, Option<Tenant>),
    /// A team's ETag and payload.
    Definitions(Need),
    /// A team's payload, from the object store.
    Object(Object),
}

/// What a read brought.
#[derive(Debug)]
pub enum Landed {
    /// What a team's definitions are.
    Definitions(Tenant, Outcome),
    /// Who tokens and credentials are.
    Identity(Result<Found, Failure>),
}

impl Read for PostHogRead {
    fn unconditional(&self) -> Option<Self> {
        match self {
            Self::Definitions(need) => Some(Self::Definitions(Need {
                team: need.team,
                held: None,
            })),
            Self::Identity(..) | Self::Object(_) => None,
        }
    }
}

impl PostHogRead {
    /// The team whose definitions are read.
    pub(super) const fn definitions_of(&self) -> Option<Tenant> {
        match self {
            Self::Definitions(need) => Some(need.team),
            Self::Object(object) => Some(object.team),
            Self::Identity(..) => None,
        }
    }

    pub(super) fn fetch<'a>(&self, settings: &'a PostHogSettings) -> Option<Fetch<'a>> {
        let PostHogSettings {
            redis, definitions, ..
        } = settings;
        let (gateway, command, length) = match self {
            Self::Definitions(need) => {
                let command = need.command(definitions, &settings.snapshot.prefix);
                (&redis.definitions, command, definitions.max_text_bytes())
            }
            Self::Identity(need, _) => {
                let command = need.command(&definitions.key_prefix, &definitions.cache_version);
                (&redis.identity, command, LARGEST_IDENTITY)
            }
            Self::Object(object) => {
                let store = definitions.object_store.as_ref()?;
                let path = Cow::Owned(object.path(store));
                return Some(Fetch {
                    question: Question::Object(&store.cluster, path),
                    largest_reply: definitions.max_text_bytes(),
                });
            }
        };
        let wire_size = redis::wire_size(gateway.dialect, length);
        Some(Fetch {
            question: Question::Redis(gateway, command),
            largest_reply: wire_size.saturating_add(FRAMING),
        })
    }

    pub(super) fn terms(&self, settings: &PostHogSettings) -> Terms {
        let redis = &settings.redis;
        let (timeout, purpose, reason) = match self {
            Self::Definitions(_) => {
                let timeout = redis.definitions.timeout;
                (timeout, Purpose::Definitions, Reason::Redis)
            }
            Self::Identity(..) => (redis.identity.timeout, Purpose::Identity, Reason::Redis),
            Self::Object(_) => {
                let store = settings.definitions.object_store.as_ref();
                let timeout = store.map_or(redis.definitions.timeout, |store| store.timeout);
                (timeout, Purpose::ObjectStore, Reason::ObjectStore)
            }
        };
        Terms {
            timeout,
            purpose,
            reason,
        }
    }
}

impl PostHog {
    /// Takes what a read brought.
    pub(super) fn learn<S: Store>(
        &mut self,
        read: &PostHogRead,
        sent: &SentRead<Option<Confirmed>>,
        received: Received<'_>,
        machinery: &Machinery<'_, S, PostHogCount>,
    ) -> (Landed, Result<(), Failure>) {
        let (team, outcome, counts_as) = match read {
            PostHogRead::Definitions(need) => {
                let reply = received.redis();
                let counts_as = outcome_of(&reply);
                let checked = &mut self.checked;
                let check = |text: &[u8]| checked.check(text, is_billable);
                let outcome = Outcome::of(need, reply, &self.settings.definitions, check);
                (need.team, outcome, counts_as)
            }
            PostHogRead::Object(object) => {
                let answer = received.object();
                let outcome = object.outcome(answer, self.settings.definitions.max_text_bytes());
                let counts_as = object::counts_as(&answer, &outcome);
                (object.team, outcome, counts_as)
            }
            PostHogRead::Identity(need, _) => {
                let reply = received.redis();
                let counts_as = outcome_of(&reply);
                let found = self.learn_identity(need, sent.at, reply, machinery);
                return (Landed::Identity(found), counts_as);
            }
        };
        self.remember(team, sent, &outcome, machinery);
        self.report(team, &outcome, machinery.now);
        (Landed::Definitions(team, outcome), counts_as)
    }

    /// Keeps what a look-up found; what it did not find is remembered for a moment.
    fn learn_identity<S: Store>(
        &mut self,
        need: &Lookup,
        sent_at: Monotonic,
        reply: Result<Reply<'_>, Failure>,
        machinery: &Machinery<'_, S, PostHogCount>,
    ) -> Result<Found, Failure> {
        let text = |stored: &[u8]| match encoding::decode(stored, LARGEST_IDENTITY) {
            Ok(Decoded::Text(text)) => Some(text.into_owned()),
            // The sentinel is a value, too: the reader knows it.
            Ok(Decoded::Missing) => Some(MISSING.to_vec()),
            Err(_) => None,
        };
        let now = machinery.now;
        let found = read_through::read(need, sent_at, reply, text);
        match &found {
            Ok(found) => {
                let slots = &self.tables.identities;
                let kept = self.settings.read_through.ttl;
                // If shared data fails, the next request looks up again.
                let _ = table::keep(machinery.store, slots, &found.records, now, kept);
                let unreadable = found.unreadable.metadata || found.unreadable.credential;
                if unreadable && self.lookup_problems.admits(now) {
                    log::warn!("a looked-up team or credential cannot be read");
                }
                if let Some(miss) = found.lacks(need) {
                    self.misses.note(need.asked(), miss, now);
                }
            }
            Err(failure) => self.misses.note(need.asked(), Miss::failed(*failure), now),
        }
        found
    }

    /// Keeps the ETag that a callout brought, as of when it was sent, and the body; and that it brought none.
    fn remember<S: Store>(
        &mut self,
        team: Tenant,
        sent: &SentRead<Option<Confirmed>>,
        outcome: &Outcome,
        machinery: &Machinery<'_, S, PostHogCount>,
    ) {
        let now = machinery.now;
        let etag: &ETag = match outcome {
            Outcome::Unchanged(etag) => etag,
            Outcome::Payload(payload) => {
                self.kept.put(team, payload);
                &payload.etag
            }
            Outcome::Pending(pending) => {
                if let Some(payload) = &pending.payload {
                    self.kept.put(team, payload);
                }
                let read_at = self.quota.copy().set().read_at();
                self.pending_ends
                    .found(team, pending, read_at, sent.at, now);
                self.quota.pending(team, pending.end, now);
                return;
            }
            Outcome::Absent(absent) => {
                self.absent.note(team, *absent, now);
                return;
            }
            Outcome::InObjectStore(_) => return,
        };
        self.pending_ends.settled(team);
        let confirmed = Confirmed {
            etag: etag.clone(),
            at: sent.at,
        };
        let before = sent.known.as_ref();
        self.confirmations
            .note(machinery.store, team, before, &confirmed);
    }

    /// Logs what an operator has to look at, once a second at most: SDKs ask again and again.
    fn report(&mut self, team: Tenant, outcome: &Outcome, now: Monotonic) {
        let Outcome::Absent(absent) = outcome else {
            return;
        };
        let problem = match absent {
            Absent::Undecodable(error) => error.to_string(),
            Absent::TooBig => Failure::TooBig.to_string(),
            Absent::Failed(
                failure @ (Failure::Refused | Failure::Malformed | Failure::Misdirected),
            ) => failure.to_string(),
            _ => return,
        };
        if self.payload_problems.admits(now) {
            log::warn!("team {team}: {problem}");
        }
    }
}

fn outcome_of<T>(reply: &Result<T, Failure>) -> Result<(), Failure> {
    match reply {
        Ok(_) => Ok(()),
        Err(failure) => Err(*failure),
    }
}
