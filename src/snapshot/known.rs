//! What one worker knows of the live snapshot, and when it looks at shared data again: what it knows may be a tick old, unless
//! a request's answer rests on it.

use std::time::Duration;

use super::follow::Confirmation;
use super::settings::Snapshot;
use super::status::{Freshness, Status};
use crate::shared::{Scope, Store};
use crate::time::Monotonic;

/// How long what is known may be old before a tick looks again.
const MAX_AGE: Duration = Duration::from_millis(200);

/// How often shared data is asked for a watermark that did not come.
const CONFIRMATION_RETRY: Duration = Duration::from_millis(50);

/// The status as it was read last.
#[derive(Clone, Debug, Default)]
pub struct KnownStatus {
    status: Status,
    read_at: Option<Monotonic>,
}

impl KnownStatus {
    /// The status.
    pub const fn get(&self) -> &Status {
        &self.status
    }

    /// As of when published ETags are confirmed, if a publisher confirms them.
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.status.confirmation()
    }

    /// Reads it again. If shared data fails, what was known stays.
    pub fn read(&mut self, store: &impl Store, scope: &Scope, now: Monotonic) {
        if let Ok(status) = Status::read(store, scope) {
            self.status = status;
            self.read_at = Some(now);
        }
    }

    /// Reads it again when it is old.
    pub fn refresh(&mut self, store: &impl Store, scope: &Scope, now: Monotonic) {
        let is_old = |read_at| now.since(read_at) >= MAX_AGE;
        if self.read_at.is_none_or(is_old) {
            self.read(store, scope, now);
        }
    }

    /// What the snapshot may be used for. Unless that is the best there is, shared data is asked again.
    pub fn freshness(
        &mut self,
        store: &impl Store,
        scope: &Scope,
        settings: &Snapshot,
        now: Monotonic,
    ) -> Freshness {
        let known = self.status.freshness(now, settings);
        let read_at = self.read_at.unwrap_or_default();
        // Without a publisher no look brings a watermark: not each request shall look.
        let confirmed = self.is_confirmed(settings, now) || now.since(read_at) < CONFIRMATION_RETRY;
        if known == Freshness::Current && confirmed {
            return known;
        }
        self.read(store, scope, now);
        self.status.freshness(now, settings)
    }

    /// Whether the published ETags, if any, are known to be current.
    fn is_confirmed(&self, settings: &Snapshot, now: Monotonic) -> bool {
        self.status.follow.is_none()
            || self
                .status
                .confirmation()
                .is_some_and(|confirmation| now.since(confirmation.at) < settings.etag_max_age)
    }
}
