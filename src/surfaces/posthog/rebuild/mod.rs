//! Asks for a rebuild of a payload that is not in Redis.
//!
//! Only for a true miss: the key is absent, and Redis said so. The request is answered first. [`SignalQueue`] keeps the
//! team until the next tick; then [`first`] tells whether another worker signalled it a short time ago,
//! and [`Signal::command`] is what to send.

mod celery;
mod job;
mod queue;
mod recent;
pub mod settings;

pub use celery::{Celery, TEAM_ID};
pub use job::RebuildJob;
pub use queue::{MAX_QUEUED, SignalQueue};
pub use recent::{SLOTS, first, forget, slots};

use crate::redis::Command;
use crate::tenant::Tenant;

/// PostHog's queue of teams to rebuild, a sorted set.
pub const REBUILD_REQUESTS: &str = "flag_definitions:rebuild_requests";

/// How a rebuild is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A member of a sorted set: the team's id, scored with the time of the first signal that waits.
    SortedSet {
        /// The set's key. PostHog reads [`REBUILD_REQUESTS`].
        key: String,
    },
    /// A task for Celery.
    Celery(Celery),
    /// Not at all.
    Off,
}

impl Default for Signal {
    fn default() -> Self {
        Self::SortedSet {
            key: REBUILD_REQUESTS.to_owned(),
        }
    }
}

impl Signal {
    /// The command that signals `team`, if one is wanted. `unix_millis` is the wall-clock time in milliseconds
    /// since 1970. `task` and `delivery` are random bytes, new for each signal; only Celery needs them.
    pub fn command(
        &self,
        team: Tenant,
        unix_millis: u64,
        task: [u8; 16],
        delivery: [u8; 16],
    ) -> Option<Command> {
        match self {
            // The first score stays, so the set is a queue in the order of first misses.
            Self::SortedSet { key } => Some(Command::zadd_nx(key, unix_millis, &team.to_string())),
            Self::Celery(celery) => {
                let message = celery.message(team, task, delivery);
                Some(Command::lpush(&celery.queue, message.as_bytes()))
            }
            Self::Off => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn words(signal: &Signal) -> Option<Vec<String>> {
        let command = signal.command(Tenant(7), 1_700_000_000_123, [1; 16], [2; 16])?;
        let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
        Some(command.words().into_iter().map(text).collect())
    }

    #[test]
    fn a_sorted_set_keeps_the_time_of_the_first_signal() {
        assert_eq!(
            words(&Signal::default()).unwrap(),
            [
                "ZADD",
                "flag_definitions:rebuild_requests",
                "NX",
                "1700000000123",
                "7"
            ]
        );
    }

    #[test]
    fn a_task_goes_into_its_queue() {
        let mut celery = Celery::new("posthog.tasks.rebuild".to_owned());
        celery.queue = "flags".to_owned();
        let words = words(&Signal::Celery(celery)).unwrap();
        assert_eq!(words[..2], ["LPUSH", "flags"]);
        assert!(words[2].starts_with('{'));
        assert_eq!(words.len(), 3);
    }

    #[test]
    fn off_sends_nothing() {
        assert_eq!(words(&Signal::Off), None);
    }
}
