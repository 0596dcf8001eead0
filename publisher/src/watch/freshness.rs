//! Up to when the records of teams and credentials are known to be complete.

use std::time::{Duration, Instant};

/// How much later than expected the next full read may come before the last one says nothing any more.
const GRACE: Duration = Duration::from_secs(10);

/// What was read and heard of the database, and when.
#[derive(Clone, Copy, Debug)]
pub struct SourceFreshness {
    diff_interval: Duration,
    /// When the last successful full read began.
    read: Option<Instant>,
    /// Whether that read was not believed: then nobody may be refused because of what it lacks.
    is_doubted: bool,
    /// Until when that read counts, unless changes are announced.
    counts_until: Option<Instant>,
    /// Since when all changes are announced, if they are.
    heard_since: Option<Instant>,
    /// Up to when everything that was announced has been heard. A database that hangs announces nothing.
    heard_up_to: Option<Instant>,
}

impl SourceFreshness {
    /// Nothing was read yet.
    pub fn new(diff_interval: Duration) -> Self {
        Self {
            diff_interval,
            read: None,
            is_doubted: false,
            counts_until: None,
            heard_since: None,
            heard_up_to: None,
        }
    }

    /// Changes are announced from now on. What changed before has to be read.
    pub fn listening(&mut self, now: Instant) {
        self.heard_since = Some(now);
        self.heard_up_to = Some(now);
    }

    /// Whatever changed before this moment was heard.
    pub fn heard(&mut self, up_to: Instant) {
        self.heard_up_to = self.heard_up_to.max(Some(up_to));
    }

    /// Changes are not announced at present. Where they were, the database may be away.
    pub fn not_listening(&mut self) {
        if self.heard_since.take().is_some() {
            self.counts_until = None;
        }
    }

    /// Announcements were left out: all of it has to be read again.
    pub fn overflowed(&mut self, now: Instant) {
        self.heard_since = self.heard_since.map(|_| now);
    }

    /// A full read that succeeded.
    pub fn read(&mut self, began: Instant, ended: Instant) {
        self.read = Some(began);
        self.is_doubted = false;
        // The next one begins after the interval and is expected to take as long.
        let took = ended.saturating_duration_since(began);
        self.counts_until = ended.checked_add(self.diff_interval + took + GRACE);
    }

    /// A full read that succeeded and is not believed.
    pub fn doubted(&mut self, began: Instant) {
        self.read = Some(began);
        self.is_doubted = true;
        self.counts_until = None;
    }

    /// A full read that failed.
    pub fn read_failed(&mut self) {
        self.counts_until = None;
    }

    /// Another publisher was at work meanwhile: nothing was read.
    pub fn forget_read(&mut self) {
        self.read = None;
    }

    /// Whether nothing but a new full read tells of everything.
    pub fn needs_read(&self) -> bool {
        self.read.is_none() || self.heard_since > self.read
    }

    /// As of when whoever is not published may be refused, given that everything heard before `now` has been
    /// published. `millis` is `now` by the clock of Redis. Where changes are announced that is when the database last
    /// proved that; without announcements it is now as long as full reads come in time: that a new key is known with
    /// the next one only is what was chosen with their interval.
    pub fn records_at(&self, now: Instant, millis: u64) -> Option<u64> {
        let read = self.read.filter(|_| !self.is_doubted)?;
        if self.heard_since.is_some_and(|since| since <= read) {
            let up_to = self.heard_up_to.max(Some(read))?;
            let age = now.saturating_duration_since(up_to).as_millis();
            return Some(millis.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX)));
        }
        self.counts_until
            .is_some_and(|until| now <= until)
            .then_some(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn times() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |seconds| start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_read_that_is_not_believed_refuses_nobody() {
        let at = times();
        let mut freshness = SourceFreshness::new(INTERVAL);
        freshness.listening(at(0));
        freshness.read(at(1), at(2));
        freshness.heard(at(3));
        assert!(freshness.records_at(at(4), 9_000).is_some());
        freshness.doubted(at(5));
        freshness.heard(at(6));
        assert_eq!(freshness.records_at(at(6), 9_000), None);
        // It was a read all the same: the next one is due after the interval.
        assert!(!freshness.needs_read());
        freshness.read(at(35), at(36));
        assert!(freshness.records_at(at(37), 9_000).is_some());
    }

    #[test]
    fn without_announcements_full_reads_count_as_long_as_they_come_in_time() {
        let at = times();
        let mut freshness = SourceFreshness::new(INTERVAL);
        assert_eq!(freshness.records_at(at(0), 100_000), None);
        assert!(freshness.needs_read());
        freshness.read(at(1), at(3));
        assert!(!freshness.needs_read());
        // 30 s, 2 s as before, 10 s.
        assert_eq!(freshness.records_at(at(45), 100_000), Some(100_000));
        assert_eq!(freshness.records_at(at(46), 100_000), None);
        freshness.read(at(50), at(50));
        assert!(freshness.records_at(at(51), 100_000).is_some());
        freshness.read_failed();
        assert_eq!(freshness.records_at(at(51), 100_000), None);
        freshness.read(at(52), at(52));
        freshness.forget_read();
        assert_eq!(freshness.records_at(at(53), 100_000), None);
    }

    #[test]
    fn announcements_count_up_to_the_last_proof_that_they_are_heard() {
        let at = times();
        let mut freshness = SourceFreshness::new(INTERVAL);
        freshness.read(at(1), at(1));
        // What happened between 1 s and 4 s is not known, but a full read is under way.
        freshness.listening(at(4));
        assert!(freshness.needs_read());
        assert_eq!(freshness.records_at(at(5), 100_000), Some(100_000));
        freshness.read(at(6), at(7));
        assert_eq!(freshness.records_at(at(9), 100_000), Some(97_000));
        freshness.heard(at(8));
        assert_eq!(freshness.records_at(at(9), 100_000), Some(99_000));
        // The database hangs: full reads have not failed yet.
        assert_eq!(freshness.records_at(at(20), 100_000), Some(88_000));
        freshness.not_listening();
        assert_eq!(freshness.records_at(at(21), 100_000), None);
        // It never announced anything, and does not now: that says nothing of its reads.
        freshness.read(at(22), at(22));
        freshness.not_listening();
        assert_eq!(freshness.records_at(at(23), 100_000), Some(100_000));
    }

    #[test]
    fn after_an_overflow_a_full_read_is_needed() {
        let at = times();
        let mut freshness = SourceFreshness::new(INTERVAL);
        freshness.listening(at(1));
        freshness.read(at(2), at(2));
        assert!(!freshness.needs_read());
        freshness.overflowed(at(3));
        assert!(freshness.needs_read());
        freshness.read(at(4), at(4));
        assert!(!freshness.needs_read());
    }
}
