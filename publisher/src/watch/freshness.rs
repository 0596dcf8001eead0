//! Up to when the records of teams and credentials are known to be complete.

use std::time::{Duration, Instant};

/// On top of two intervals, before a full read is too old to say anything.
const GRACE: Duration = Duration::from_secs(10);

/// What was read and heard of the database, and when.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Until when a full read says something.
    max_age: Duration,
    /// When the last successful full read began.
    read: Option<Instant>,
    /// Since when all changes are announced, if they are.
    heard_since: Option<Instant>,
}

impl Freshness {
    /// Nothing was read yet.
    pub fn new(diff_interval: Duration) -> Self {
        Self {
            max_age: diff_interval * 2 + GRACE,
            read: None,
            heard_since: None,
        }
    }

    /// Changes are announced from now on. What changed before has to be read.
    pub fn listening(&mut self, now: Instant) {
        self.heard_since = Some(now);
    }

    /// Changes are not announced at present.
    pub fn not_listening(&mut self) {
        self.heard_since = None;
    }

    /// Announcements were left out: all of it has to be read again.
    pub fn overflowed(&mut self, now: Instant) {
        self.heard_since = self.heard_since.map(|_| now);
    }

    /// A full read that succeeded.
    pub fn read(&mut self, began: Instant) {
        self.read = Some(began);
    }

    /// Another publisher was at work meanwhile: nothing was read.
    pub fn forget_read(&mut self) {
        self.read = None;
    }

    /// Whether nothing but a new full read tells of everything.
    pub fn needs_read(&self) -> bool {
        self.read.is_none() || self.heard_since > self.read
    }

    /// Up to when the records are complete, given that everything heard before `now` has been published. `millis`
    /// is `now` by the clock of Redis.
    pub fn records_at(&self, now: Instant, millis: u64) -> Option<u64> {
        let read = self.read?;
        let age = now.saturating_duration_since(read);
        if age > self.max_age {
            return None;
        }
        if self.heard_since.is_some_and(|since| since <= read) {
            return Some(millis);
        }
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Some(millis.saturating_sub(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_complete_up_to_the_last_read_or_while_changes_are_announced() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut freshness = Freshness::new(Duration::from_secs(30));
        assert_eq!(freshness.records_at(at(0), 100_000), None);
        assert!(freshness.needs_read());
        freshness.read(at(1));
        assert!(!freshness.needs_read());
        assert_eq!(freshness.records_at(at(3), 100_000), Some(98_000));
        // Announced since 4 s, but what happened between 1 s and 4 s is not known.
        freshness.listening(at(4));
        assert!(freshness.needs_read());
        assert_eq!(freshness.records_at(at(5), 100_000), Some(96_000));
        freshness.read(at(6));
        assert_eq!(freshness.records_at(at(9), 100_000), Some(100_000));
        freshness.overflowed(at(9));
        assert_eq!(freshness.records_at(at(10), 100_000), Some(96_000));
        freshness.read(at(11));
        freshness.not_listening();
        assert_eq!(freshness.records_at(at(13), 100_000), Some(98_000));
        assert!(freshness.records_at(at(11 + 70), 100_000).is_some());
        assert_eq!(freshness.records_at(at(11 + 71), 100_000), None);
    }
}
