//! Who may read which environment now: by the configuration file, and by Flagsmith's list.
//!
//! A list that cannot be had changes nothing, and neither does an empty one, which is rather a fault than what is meant.
//! A key that is inactive or expired goes out at once, and with its last key an environment, as in edge-proxy-rs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flag_definitions_filter::tenant::Tenant;
use tracing::{info, warn};

use super::config::{FlagsmithConfig, KeyPair};
use super::list::{ListedEnvironment, ServerKey};
use super::pace::PollClock;
use super::secret::FlagsmithKey;
use super::tenants::tenants;
use super::upstream::UpstreamProblem;

/// An environment that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedEnvironment {
    /// Its number.
    pub tenant: Tenant,
    /// Of clients.
    pub client_key: FlagsmithKey,
    /// Of servers, those that count now; there is one at least.
    pub server_keys: Vec<ServerKey>,
    /// Whether it came from Flagsmith's list.
    pub is_listed: bool,
}

/// The keys of all environments.
#[derive(Debug)]
pub struct Keys {
    pairs: Vec<KeyPair>,
    /// `None`: all is in the file.
    list: Option<KeyList>,
    left_out: usize,
}

/// Flagsmith's list, as it was read last.
#[derive(Debug)]
struct KeyList {
    allows_empty: bool,
    /// For how long a list counts as known.
    known_for: Duration,
    clock: PollClock,
    environments: Vec<ListedEnvironment>,
    /// When the last poll that was taken began.
    taken: Option<Instant>,
    /// Whether the last poll was taken.
    is_well: bool,
    since_round: bool,
    /// What was said of it last.
    problem: Option<String>,
}

impl Keys {
    /// Of a configuration. `allows_empty`: an empty list is taken as it is.
    pub fn new(config: &FlagsmithConfig, allows_empty: bool, now: Instant) -> Self {
        let list = config.proxy_key.as_ref().map(|_| KeyList {
            allows_empty,
            known_for: config.poll_frequency * 2 + config.poll_timeout,
            clock: PollClock::new(config.poll_frequency, 1.0, now),
            environments: Vec::new(),
            taken: None,
            is_well: false,
            since_round: false,
            problem: None,
        });
        Self {
            pairs: config.pairs.clone(),
            list,
            left_out: 0,
        }
    }

    /// Whether the list is due. It counts as asked for then.
    pub fn begin_if_due(&mut self, now: Instant) -> bool {
        let Some(list) = &mut self.list else {
            return false;
        };
        let is_due = list.clock.due().is_some_and(|due| due <= now);
        if is_due {
            list.clock.begin(now);
        }
        is_due
    }

    /// What came of asking for the list, at `asked`. Returns whether it may say something new.
    pub fn answered(
        &mut self,
        asked: Instant,
        answer: Result<Vec<ListedEnvironment>, UpstreamProblem>,
        now: Instant,
    ) -> bool {
        let Some(list) = &mut self.list else {
            return false;
        };
        let problem = match answer {
            Ok(environments) if !environments.is_empty() || list.allows_empty => {
                list.clock.answered(now);
                list.taken = Some(asked);
                (list.is_well, list.since_round) = (true, true);
                if list.problem.take().is_some() {
                    info!("Flagsmith's list of environments is read again");
                }
                let is_new = list.environments != environments;
                list.environments = environments;
                return is_new;
            }
            Ok(_) => {
                list.clock.answered(now);
                "it is empty; what was known stays. Give --flagsmith-allow-empty if that is meant"
                    .to_owned()
            }
            Err(problem) => {
                list.clock.failed(now, problem.may_pass());
                problem.to_string()
            }
        };
        list.is_well = false;
        if list.problem.as_ref() != Some(&problem) {
            warn!(problem, "Flagsmith's list of environments is not taken");
            list.problem = Some(problem);
        }
        false
    }

    /// Whether all keys are known for certain. Without a proxy key they are those of the file.
    pub fn are_known(&self, now: Instant) -> bool {
        let Some(list) = &self.list else { return true };
        let age = |taken| now.saturating_duration_since(taken);
        list.taken.is_some_and(|taken| age(taken) <= list.known_for)
    }

    /// Whether there was a list at all, if there is to be one.
    pub fn were_read(&self) -> bool {
        self.list.as_ref().is_none_or(|list| list.taken.is_some())
    }

    /// Whether the last poll of the list was good, and one was since the last round.
    pub fn are_in_round(&self) -> bool {
        let list = self.list.as_ref();
        list.is_none_or(|list| list.is_well && list.since_round)
    }

    /// A round ends.
    pub fn end_round(&mut self) {
        if let Some(list) = &mut self.list {
            list.since_round = false;
        }
    }

    /// The environments that are followed at a moment, in Unix milliseconds, and when a key expires next.
    pub fn at(&mut self, unix: u64) -> (Vec<FollowedEnvironment>, Option<u64>) {
        let pairs = self.pairs.iter();
        let mut followed: Vec<_> = pairs.map(FollowedEnvironment::of).collect();
        let mut seen: BTreeSet<FlagsmithKey> = BTreeSet::new();
        for environment in &followed {
            seen.insert(environment.client_key.clone());
            let keys = environment.server_keys.iter();
            seen.extend(keys.map(|server_key| server_key.key.clone()));
        }
        let (mut left_out, mut expires_next) = (0, None);
        let listed = self.list.iter().flat_map(|list| &list.environments);
        for environment in listed {
            let expiries = environment.server_keys.iter();
            let expiries = expiries.filter(|key| key.counts_at(unix));
            let expiries = expiries.filter_map(|key| key.expires_at);
            expires_next = expires_next.into_iter().chain(expiries).min();
            let Some(environment) = FollowedEnvironment::listed(environment, unix) else {
                continue;
            };
            // As in edge-proxy-rs: what the file says of a key goes before the list, and no key is of two environments.
            if environment.all_keys().any(|key| seen.contains(key)) {
                left_out += 1;
                continue;
            }
            seen.extend(environment.all_keys().cloned());
            followed.push(environment);
        }
        let numbers = tenants(followed.iter().map(|environment| &environment.client_key));
        followed.retain_mut(|environment| {
            let number = numbers.get(&environment.client_key);
            environment.tenant = number.copied().unwrap_or(environment.tenant);
            left_out += usize::from(number.is_none());
            number.is_some()
        });
        if left_out != self.left_out && left_out > 0 {
            warn!(
                left_out,
                "Flagsmith's list has environments with keys of others; they are left out"
            );
        }
        self.left_out = left_out;
        (followed, expires_next)
    }
}

impl FollowedEnvironment {
    /// Without its number.
    fn of(pair: &KeyPair) -> Self {
        Self {
            tenant: Tenant(0),
            client_key: pair.client_side.clone(),
            server_keys: vec![ServerKey::lasting(pair.server_side.clone())],
            is_listed: false,
        }
    }

    /// Without its number; `None` when none of its keys counts.
    fn listed(environment: &ListedEnvironment, unix: u64) -> Option<Self> {
        let keys = environment.server_keys.iter();
        let server_keys: Vec<_> = keys.filter(|key| key.counts_at(unix)).cloned().collect();
        (!server_keys.is_empty()).then(|| Self {
            tenant: Tenant(0),
            client_key: environment.client_key.clone(),
            server_keys,
            is_listed: true,
        })
    }

    fn all_keys(&self) -> impl Iterator<Item = &FlagsmithKey> {
        let server_keys = self.server_keys.iter().map(|server_key| &server_key.key);
        server_keys.chain([&self.client_key])
    }
}

#[cfg(test)]
mod tests;
