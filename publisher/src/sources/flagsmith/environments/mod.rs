//! What is polled when, and what is told of it. No clock, no thread and no request is here: time is an argument.
//!
//! Every environment has a clock of its own. Polls that may take long leave places free for the others, so environments that
//! never answer delay nobody.

mod one;
mod telling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::flagsmith::records::{
    Condition, FlagsmithRecord, MAX_LISTED, Polled, Round, polled_hash, round_hash, state_hash,
};
use flag_definitions_filter::tenant::Tenant;
use tracing::info;

use super::config::FlagsmithConfig;
use super::keys::{FollowedEnvironment, Keys};
use super::list::ListedEnvironment;
use super::secret::FlagsmithKey;
use super::upstream::{DocumentAnswer, DocumentRequest, UpstreamProblem};
use crate::sources::documents::DocumentNews;
use crate::sources::polls::{PollFailure, Polls};
use one::Environment;
use telling::Telling;

/// Most polls at the same time.
const PLACES: usize = 64;

/// Most of them that may be slow: who failed or was slow the last time.
const SLOW_PLACES: usize = 48;

/// Shortest time between two tellings of all records, when no key changed.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// For how many timeouts the first polls are waited for.
const FIRST_POLLS: u32 = 2;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For ages and deadlines.
    pub instant: Instant,
    /// For records: Unix milliseconds.
    pub unix: u64,
}

/// A request that is to be made now.
#[derive(Clone, Debug)]
pub enum Poll {
    /// Of Flagsmith's list.
    List {
        /// When it was asked for.
        asked: Instant,
    },
    /// Of a document.
    Document {
        /// Comes back with the answer.
        place: PollPlace,
        /// What to ask.
        request: Box<DocumentRequest>,
    },
}

/// Whom an answer is for.
#[derive(Clone, Debug)]
pub struct PollPlace {
    number: u64,
    client_key: FlagsmithKey,
    generation: u64,
}

/// What came of a [`Poll`].
pub enum PollAnswer {
    /// Of the list.
    List {
        /// When it was asked for.
        asked: Instant,
        /// What came.
        answer: Result<Vec<ListedEnvironment>, UpstreamProblem>,
    },
    /// Of a document.
    Document {
        /// As it was in [`Poll`].
        place: PollPlace,
        /// What came.
        answer: Result<DocumentAnswer, UpstreamProblem>,
    },
}

/// All environments that are followed.
#[derive(Debug)]
pub struct Environments {
    frequency: Duration,
    timeout: Duration,
    grace: Option<u32>,
    keys: Keys,
    by_client_key: BTreeMap<FlagsmithKey, Environment>,
    /// Polls under way, and whether they may be slow.
    under_way: BTreeMap<u64, bool>,
    polls: u64,
    generations: u64,
    /// When a key expires next, in Unix milliseconds.
    expires_next: Option<u64>,
    /// When the last round was complete, in Unix milliseconds; 0: never.
    completed_at: u64,
    knew_keys: bool,
    /// Whether it was not said yet who is reported now.
    is_naming_due: bool,
    telling: Telling,
    figures: Arc<Polls>,
}

impl Environments {
    /// Of a configuration. Nothing was polled yet; `polls` is told what comes of it.
    pub fn new(config: &FlagsmithConfig, allows_empty: bool, polls: Arc<Polls>, now: Now) -> Self {
        let mut environments = Self {
            frequency: config.poll_frequency,
            timeout: config.poll_timeout,
            grace: config.grace,
            keys: Keys::new(config, allows_empty, now.instant),
            by_client_key: BTreeMap::new(),
            under_way: BTreeMap::new(),
            polls: 0,
            generations: 0,
            expires_next: None,
            completed_at: 0,
            knew_keys: false,
            is_naming_due: true,
            telling: Telling {
                waits_until: now.instant + config.poll_timeout * FIRST_POLLS,
                is_due: true,
                is_urgent: true,
                last: None,
                documents: Vec::new(),
                reused: Vec::new(),
                gone: Vec::new(),
            },
            figures: polls,
        };
        environments.follow(now);
        environments
    }

    /// The requests that are to be made now. Each comes back with [`Environments::answered`].
    pub fn due(&mut self, now: Now) -> Vec<Poll> {
        if self.expires_next.is_some_and(|expires| expires <= now.unix) {
            self.follow(now);
        }
        let mut polls = Vec::new();
        if self.keys.begin_if_due(now.instant) {
            polls.push(Poll::List { asked: now.instant });
        }
        let due = |environment: &Environment| environment.clock.due();
        let mut waiting: Vec<_> = self
            .by_client_key
            .values_mut()
            .filter(|environment| due(environment).is_some_and(|due| due <= now.instant))
            .collect();
        waiting.sort_by_key(|environment| (environment.clock.is_slow(), due(environment)));
        let mut slow = self.under_way.values().filter(|is_slow| **is_slow).count();
        for environment in waiting {
            let is_slow = environment.clock.is_slow();
            if self.under_way.len() >= PLACES || (is_slow && slow >= SLOW_PLACES) {
                break;
            }
            let place = PollPlace {
                number: self.polls,
                client_key: environment.followed.client_key.clone(),
                generation: environment.generation,
            };
            let Some(request) = environment.begin(now.instant) else {
                continue;
            };
            self.polls += 1;
            slow += usize::from(is_slow);
            self.under_way.insert(place.number, is_slow);
            let request = Box::new(request);
            polls.push(Poll::Document { place, request });
        }
        polls
    }

    /// What came of a request.
    pub fn answered(&mut self, answer: PollAnswer, now: Now) {
        match answer {
            PollAnswer::List { asked, answer } => {
                if !self.keys.were_read() {
                    self.telling.waits_until = now.instant + self.timeout * FIRST_POLLS;
                }
                if let Err(problem) = &answer {
                    self.figures.note_failure(problem.failure());
                }
                if self.keys.answered(asked, answer, now.instant) {
                    self.follow(now);
                }
            }
            PollAnswer::Document { place, answer } => {
                self.under_way.remove(&place.number);
                let environment = self.by_client_key.get_mut(&place.client_key);
                let is_meant =
                    |environment: &&mut Environment| environment.generation == place.generation;
                // It may have gone, or be another one by now.
                let Some(environment) = environment.filter(is_meant) else {
                    return;
                };
                let before = environment.state;
                let problem = answer.as_ref().err().map(UpstreamProblem::failure);
                let document = environment.answered(answer, now);
                let is_refused = environment.condition() == Some(Condition::Refused);
                let failure = problem.or(is_refused.then_some(PollFailure::Refused));
                if let Some(failure) = failure {
                    self.figures.note_failure(failure);
                }
                // When environments were polled is told with the rounds; where one fails, there are none.
                let last = self.telling.last;
                let is_old = last.is_some_and(|last| now.instant >= last + self.frequency);
                let is_polled = environment.condition() == Some(Condition::Polled);
                self.telling.is_due |= before != environment.state || (is_old && is_polled);
                let documents = &mut self.telling.documents;
                documents.extend(document.map(DocumentNews::Document));
            }
        }
        self.end_round(now);
    }

    /// What is to be told now, in this order.
    pub fn news(&mut self, now: Now) -> Vec<DocumentNews> {
        let withheld = |environment: &Environment| environment.is_withheld;
        let knows_keys =
            self.keys.are_known(now.instant) && !self.by_client_key.values().any(withheld);
        self.telling.is_due |= self.knew_keys != knows_keys;
        self.knew_keys = knows_keys;
        let mut news: Vec<_> = std::mem::take(&mut self.telling.reused)
            .into_iter()
            .map(DocumentNews::Gone)
            .collect();
        if self.may_tell_records(now.instant) {
            news.push(DocumentNews::Records(self.records(knows_keys)));
            let gone = std::mem::take(&mut self.telling.gone);
            news.extend(gone.into_iter().map(DocumentNews::Gone));
            self.telling.last = Some(now.instant);
            (self.telling.is_due, self.telling.is_urgent) = (false, false);
        }
        for document in std::mem::take(&mut self.telling.documents) {
            self.release(&document);
            news.push(document);
        }
        news
    }

    /// Whose requests are reported from now on, when that is to be said: environments of the list, each by the hash of its
    /// client-side key.
    pub fn reported_tenants(&mut self) -> Option<BTreeMap<Tenant, Sha256Hash>> {
        if !self.keys.were_read() || !std::mem::take(&mut self.is_naming_due) {
            return None;
        }
        let reported = self.reported();
        Some(
            reported
                .map(|environment| (environment.tenant, environment.client_key.hash()))
                .collect(),
        )
    }

    /// The environments that are reported.
    pub fn reported(&self) -> impl Iterator<Item = &FollowedEnvironment> {
        let environments = self.by_client_key.values();
        let followed = environments.map(|environment| &environment.followed);
        followed.filter(|followed| followed.is_listed)
    }

    /// Lets the keys of an environment go with the next records, as its own document is told now.
    fn release(&mut self, news: &DocumentNews) {
        let DocumentNews::Document(document) = news else {
            return;
        };
        let mut environments = self.by_client_key.values_mut();
        let of_document = environments.find(|environment| {
            environment.is_withheld && environment.followed.tenant == document.tenant
        });
        if let Some(environment) = of_document {
            environment.is_withheld = false;
            (self.telling.is_due, self.telling.is_urgent) = (true, true);
        }
    }

    fn may_tell_records(&self, now: Instant) -> bool {
        let telling = &self.telling;
        let Some(last) = telling.last else {
            let mut environments = self.by_client_key.values();
            let all = environments.all(|environment| environment.state.is_some());
            // Without the list most keys would go.
            return self.keys.were_read() && (all || now >= telling.waits_until);
        };
        telling.is_due && (telling.is_urgent || now >= last + TELL_INTERVAL)
    }

    /// All records but those of versions.
    fn records(&self, knows_keys: bool) -> BTreeMap<Sha256Hash, Box<[u8]>> {
        let mut records = BTreeMap::new();
        let mut add = |hash, record: FlagsmithRecord| {
            records.insert(hash, record.encode().into_boxed_slice());
        };
        let told = |environment: &&Environment| !environment.is_withheld;
        for environment in self.by_client_key.values().filter(told) {
            let followed = &environment.followed;
            let tenant = followed.tenant;
            let client_key = match followed.is_listed {
                true => FlagsmithRecord::CountedClientKey(tenant),
                false => FlagsmithRecord::ClientKey(tenant),
            };
            add(followed.client_key.hash(), client_key);
            for server_key in &followed.server_keys {
                // In whole seconds, and never later than it says; 0 is for ever.
                let expires_at = server_key.expires_at.map(|millis| (millis / 1_000).max(1));
                let (environment, expires_at) = (tenant, expires_at.unwrap_or(0));
                let record = match followed.is_listed {
                    true => FlagsmithRecord::CountedServerKey {
                        environment,
                        expires_at,
                    },
                    false => FlagsmithRecord::ServerKey {
                        environment,
                        expires_at,
                    },
                };
                add(server_key.key.hash(), record);
            }
            if let Some(state) = environment.state {
                add(state_hash(tenant), FlagsmithRecord::State(state));
            }
        }
        let round = Round {
            completed_at: self.completed_at,
            grace: self.grace,
            knows_keys,
        };
        add(round_hash(), FlagsmithRecord::Round(round));
        let told = self.by_client_key.values().filter(told);
        let mut listed: Vec<_> = told
            .map(|environment| (environment.followed.tenant, environment.polled_at))
            .collect();
        // Those come first that somebody has to look after.
        listed.sort_unstable_by_key(|(tenant, polled_at)| (*polled_at, *tenant));
        let oldest = listed.first().map(|(_, polled_at)| *polled_at);
        let count = u32::try_from(listed.len()).unwrap_or(u32::MAX);
        listed.truncate(MAX_LISTED);
        let polled = Polled {
            oldest: oldest.unwrap_or(0),
            count,
            listed,
        };
        add(polled_hash(), FlagsmithRecord::Polled(polled));
        records
    }

    /// Takes over who is followed at this moment.
    fn follow(&mut self, now: Now) {
        self.is_naming_due = true;
        let (followed, expires_next) = self.keys.at(now.unix);
        self.expires_next = expires_next;
        let mut before = std::mem::take(&mut self.by_client_key);
        let (mut left, mut came) = (Vec::new(), 0_usize);
        for followed in followed {
            let same = |environment: &Environment| environment.followed.tenant == followed.tenant;
            let key = followed.client_key.clone();
            let environment = match before.remove(&key) {
                Some(mut environment) if same(&environment) => {
                    let keys_changed = environment.followed != followed;
                    self.telling.is_urgent |= keys_changed;
                    environment.followed = followed;
                    environment
                }
                other => {
                    left.extend(other.map(|environment| environment.followed.tenant));
                    came += 1;
                    self.newcomer(followed, now.instant)
                }
            };
            self.by_client_key.insert(key, environment);
        }
        left.extend(
            before
                .into_values()
                .map(|environment| environment.followed.tenant),
        );
        if came > 0 || !left.is_empty() {
            let (followed, gone) = (self.by_client_key.len(), left.len());
            info!(followed, came, gone, "environments changed");
            self.telling.is_urgent = true;
        }
        self.telling.is_due |= self.telling.is_urgent;
        self.telling.leave(left, self.by_client_key.values_mut());
    }

    fn newcomer(&mut self, followed: FollowedEnvironment, now: Instant) -> Environment {
        self.generations += 1;
        Environment::new(followed, self.generations, self.frequency, now)
    }

    /// A round is complete when each environment was polled since the last one, the list as well, and all are well.
    fn end_round(&mut self, now: Now) {
        let mut environments = self.by_client_key.values();
        if !self.keys.are_in_round() || !environments.all(Environment::is_in_round) {
            return;
        }
        self.completed_at = now.unix;
        self.figures.note_round(now.instant);
        self.telling.is_due = true;
        self.keys.end_round();
        for environment in self.by_client_key.values_mut() {
            environment.since_round = false;
        }
    }
}

#[cfg(test)]
mod tests;
