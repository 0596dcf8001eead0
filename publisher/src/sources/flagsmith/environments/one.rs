//! One environment that is followed: when it is polled, and what came of it.

use std::time::{Duration, Instant};

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::flagsmith::records::{Condition, EnvironmentState};
use tracing::{debug, info, warn};

use super::Now;
use crate::sources::documents::SourcedDocument;
use crate::sources::flagsmith::document::ReadDocument;
use crate::sources::flagsmith::keys::FollowedEnvironment;
use crate::sources::flagsmith::pace::PollClock;
use crate::sources::flagsmith::upstream::{
    DocumentAnswer, DocumentRequest, UpstreamProblem, Validators,
};

/// For how long Flagsmith is believed that a document is unchanged. Then it is read all the same: its date has whole
/// seconds, and may not move with all that is in it.
const BELIEVED: Duration = Duration::from_secs(600);

/// An environment with what is known of it.
#[derive(Debug)]
pub(super) struct Environment {
    pub followed: FollowedEnvironment,
    /// Tells answers to it from those to one of the same keys before it.
    pub generation: u64,
    pub clock: PollClock,
    /// `None`: it was not polled yet.
    pub state: Option<EnvironmentState>,
    /// When it was polled well last, in Unix milliseconds; 0: never.
    pub polled_at: u64,
    /// Whether it was polled well since the last round.
    pub since_round: bool,
    /// Whether its keys wait for its document, as its number was another one's.
    pub is_withheld: bool,
    document: Option<KeptDocument>,
    /// What a log calls it.
    name: String,
    /// What was logged last.
    problem: Option<String>,
}

/// What was read last, whether it fits or not.
#[derive(Debug)]
struct KeptDocument {
    validators: Validators,
    read_at: Instant,
    /// Why it is refused.
    refused: Option<String>,
    /// The last one that fits.
    version: Option<ETag>,
    /// The last one that does not, where none fitted yet.
    unfit: Option<ETag>,
}

impl Environment {
    pub fn new(
        followed: FollowedEnvironment,
        generation: u64,
        frequency: Duration,
        now: Instant,
    ) -> Self {
        let place = f64::from(followed.tenant.0) / f64::from(u32::MAX);
        Self {
            followed,
            generation,
            clock: PollClock::new(frequency, place, now),
            state: None,
            polled_at: 0,
            since_round: false,
            is_withheld: false,
            document: None,
            name: String::new(),
            problem: None,
        }
    }

    /// Begins a poll. With several keys another one is tried after each failure, as one of them may be on its way out.
    pub fn begin(&mut self, now: Instant) -> Option<DocumentRequest> {
        let keys = &self.followed.server_keys;
        let turn = usize::try_from(self.clock.failures()).unwrap_or_default();
        let server_key = keys.get(turn.checked_rem(keys.len())?)?.key.clone();
        self.clock.begin(now);
        let believed =
            |document: &&KeptDocument| now.saturating_duration_since(document.read_at) < BELIEVED;
        let document = self.document.as_ref().filter(believed);
        Some(DocumentRequest {
            server_key,
            is_listed: self.followed.is_listed,
            validators: document.map_or_else(Validators::default, |kept| kept.validators.clone()),
        })
    }

    /// What came of its last poll.
    pub fn condition(&self) -> Option<Condition> {
        self.state.map(|state| state.condition)
    }

    /// Whether its last poll was good, and one was since the last round.
    pub fn is_in_round(&self) -> bool {
        let is_good = |state: EnvironmentState| state.condition == Condition::Polled;
        self.since_round && self.state.is_some_and(is_good)
    }

    /// What came of a poll. Returns a document that is new.
    pub fn answered(
        &mut self,
        answer: Result<DocumentAnswer, UpstreamProblem>,
        now: Now,
    ) -> Option<SourcedDocument> {
        let new = match answer {
            Err(problem) => {
                // Another key may be the right one.
                let keys = u32::try_from(self.followed.server_keys.len()).unwrap_or(u32::MAX);
                let has_others = self.clock.failures().saturating_add(1) < keys;
                self.clock
                    .failed(now.instant, problem.may_pass() || has_others);
                self.note(Condition::Failing, Some(problem.to_string()), now);
                return None;
            }
            Ok(DocumentAnswer::Unchanged) => None,
            Ok(DocumentAnswer::Read(read, validators)) => self.keep(*read, validators, now),
        };
        self.clock.answered(now.instant);
        let refused = self.document.as_ref().and_then(|kept| kept.refused.clone());
        match refused {
            Some(problem) => self.note(Condition::Refused, Some(problem), now),
            None => {
                self.note(Condition::Polled, None, now);
                self.since_round = true;
                self.polled_at = now.unix;
            }
        }
        new
    }

    fn keep(
        &mut self,
        read: ReadDocument,
        validators: Validators,
        now: Now,
    ) -> Option<SourcedDocument> {
        self.name = read.name;
        let kept = self.document.take();
        let (before, shown) = kept.map_or((None, None), |kept| (kept.version, kept.unfit));
        let has_before = before.is_some();
        let mut unfit = None;
        let (version, refused, new) = match read.fits {
            Err(problem) => {
                let raw = read.unfit.filter(|_| !has_before);
                unfit = raw.as_ref().map(|raw| raw.version.clone());
                let is_new = unfit.is_some() && unfit != shown;
                let new = raw.filter(|_| is_new).map(|raw| SourcedDocument {
                    tenant: self.followed.tenant,
                    version: raw.version,
                    gzip: raw.gzip,
                    fits: false,
                });
                (before, Some(problem.to_string()), new)
            }
            Ok(document) => {
                let is_new = before.as_ref() != Some(&document.version);
                let new = SourcedDocument {
                    tenant: self.followed.tenant,
                    version: document.version.clone(),
                    gzip: document.gzip,
                    fits: true,
                };
                (Some(document.version), None, is_new.then_some(new))
            }
        };
        self.document = Some(KeptDocument {
            validators,
            read_at: now.instant,
            refused,
            version,
            unfit,
        });
        let (environment, name) = (self.followed.tenant.0, self.name.as_str());
        match &new {
            Some(document) if has_before => {
                info!(environment, name, version = ?document.version, "a document changed");
            }
            Some(document) => {
                debug!(environment, name, version = ?document.version, "a document was read");
                // The pair is as it is configured. Nobody else would notice.
                if read.api_key != Some(self.followed.client_key.hash()) {
                    warn!(
                        environment,
                        name, "a document's api_key is not the client-side key it is read for"
                    );
                }
            }
            None => (),
        }
        if new.is_some() && read.patterns_left_out > 0 {
            let count = read.patterns_left_out;
            warn!(
                environment,
                name, count, "patterns of a document match nothing: they are none, or too large"
            );
        }
        new
    }

    /// Whether a document of it fitted.
    fn fitted(&self) -> bool {
        let kept = self.document.as_ref();
        kept.is_some_and(|kept| kept.version.is_some())
    }

    /// Notes how it is. Each problem is logged once, and its end.
    fn note(&mut self, condition: Condition, problem: Option<String>, now: Now) {
        if self.condition() != Some(condition) {
            let since = now.unix;
            self.state = Some(EnvironmentState { condition, since });
        }
        if self.problem == problem {
            return;
        }
        let (environment, name) = (self.followed.tenant.0, self.name.as_str());
        match (condition, &problem) {
            (Condition::Failing, Some(problem)) => {
                warn!(
                    environment,
                    name, problem, "an environment cannot be polled; its document stays"
                );
            }
            (_, Some(problem)) if self.fitted() => {
                warn!(
                    environment,
                    name, problem, "a document is refused; the one before it stays"
                );
            }
            (_, Some(problem)) => {
                warn!(
                    environment,
                    name,
                    problem,
                    "a document is refused; where none is published, it is handed out as it is"
                );
            }
            (_, None) => info!(environment, name, "an environment is as it should be again"),
        }
        self.problem = problem;
    }
}
