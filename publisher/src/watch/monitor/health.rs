//! `/healthz`: whether the watcher's loop turns.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::Serialize;

use crate::watch::status::Figures;

/// An active watcher whose loop did not come round for this long is stuck. That a database or Redis is away is no
/// reason: starting it again would not help.
const MAX_LOOP_AGE: Duration = Duration::from_secs(30);

/// What the probe has to remember.
#[derive(Debug, Default)]
pub struct Watcher {
    /// When it was first seen active since it was last seen waiting.
    active_since: Option<Instant>,
}

/// The body of `/healthz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// In one word; [`Condition::code`] is the status of the answer.
    pub status: Condition,
    generation: u64,
    lineage: u64,
    last_id: Option<String>,
    watermark_age_ms: Option<u64>,
    last_read_age_ms: Option<u64>,
    listening: bool,
    held_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It holds the lock, and its loop turns.
    Active,
    /// Another instance holds the lock, or Redis is away.
    Waiting,
    /// It holds the lock, and its loop is stuck.
    Stalled,
}

impl Condition {
    /// The status of the answer.
    pub const fn code(self) -> StatusCode {
        match self {
            Self::Active | Self::Waiting => StatusCode::OK,
            Self::Stalled => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Watcher {
    /// The body of `/healthz` now.
    pub fn health(&mut self, figures: &Figures, now: Instant) -> Health {
        let age = |at: Instant| now.saturating_duration_since(at);
        let millis = |at: Option<Instant>| {
            at.map(|at| u64::try_from(age(at).as_millis()).unwrap_or(u64::MAX))
        };
        let status = if figures.active {
            // What it did before it lost the lock says nothing of how it does now.
            let since = *self.active_since.get_or_insert(now);
            let last = figures.turned.map_or(since, |at| at.max(since));
            if age(last) < MAX_LOOP_AGE {
                Condition::Active
            } else {
                Condition::Stalled
            }
        } else {
            self.active_since = None;
            Condition::Waiting
        };
        Health {
            status,
            generation: figures.generation,
            lineage: figures.lineage,
            last_id: figures.last_id.map(|id| id.to_string()),
            watermark_age_ms: millis(figures.watermark),
            last_read_age_ms: millis(figures.last_read),
            listening: figures.listening,
            held_back: figures.held_back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_active_watcher_is_healthy_while_its_loop_turns() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let figures = |active, turned: Option<u64>| Figures {
            active,
            turned: turned.map(at),
            ..Figures::default()
        };
        let mut watcher = Watcher::default();
        for (now, active, turned, expected) in [
            (0, false, None, Condition::Waiting),
            (100, false, None, Condition::Waiting),
            (101, true, None, Condition::Active),
            (130, true, None, Condition::Active),
            (131, true, None, Condition::Stalled),
            (132, true, Some(131), Condition::Active),
            (160, true, Some(131), Condition::Active),
            (161, true, Some(131), Condition::Stalled),
            (170, false, Some(131), Condition::Waiting),
            // Active again: what it did long ago is no reason.
            (200, true, Some(131), Condition::Active),
            (230, true, Some(131), Condition::Stalled),
        ] {
            let health = watcher.health(&figures(active, turned), at(now));
            assert_eq!(health.status, expected, "{now}");
        }
    }
}
