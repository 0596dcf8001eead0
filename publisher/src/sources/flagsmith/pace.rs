//! When the next poll of something is due.

use std::time::{Duration, Instant};

/// Wait after the first failure. It doubles with each further one, up to the poll frequency.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// A poll that took longer is slow: the next one waits for others rather than making them wait.
const SLOW: Duration = Duration::from_secs(1);

/// The clock of one thing that is polled.
#[derive(Clone, Debug)]
pub struct PollClock {
    frequency: Duration,
    /// Where it is among others, 0 to 1: many that begin together are spread by it.
    place: f64,
    due: Instant,
    /// When the poll under way began.
    began: Option<Instant>,
    failures: u32,
    was_slow: bool,
    is_spread: bool,
}

impl PollClock {
    /// Due at once.
    pub fn new(frequency: Duration, place: f64, now: Instant) -> Self {
        Self {
            frequency,
            place,
            due: now,
            began: None,
            failures: 0,
            was_slow: false,
            is_spread: false,
        }
    }

    /// When the next poll is due; `None`: one is under way.
    pub fn due(&self) -> Option<Instant> {
        Some(self.due).filter(|_| self.began.is_none())
    }

    /// Whether the next poll may take long.
    pub const fn is_slow(&self) -> bool {
        self.failures > 0 || self.was_slow
    }

    /// How many polls failed in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// A poll begins.
    pub fn begin(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// The poll was answered. The next one is due a poll frequency after this one began; the second one sooner, by its place.
    pub fn answered(&mut self, now: Instant) {
        let began = self.began.take().unwrap_or(now);
        let wait = match self.is_spread {
            true => self.frequency,
            false => self.frequency.mul_f64(0.5 + self.place / 2.0),
        };
        self.is_spread = true;
        self.failures = 0;
        self.was_slow = now.saturating_duration_since(began) > SLOW;
        // Where an answer takes longer than the frequency, there is a pause all the same.
        self.due = (began + wait).max(now + self.frequency / 10);
    }

    /// The poll failed. Where it `may_pass`, the next one is due soon, after the first failures.
    pub fn failed(&mut self, now: Instant, may_pass: bool) {
        self.began = None;
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        let wait = match may_pass {
            true => doubled.mul_f64(0.75 + self.place / 2.0),
            false => self.frequency,
        };
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait.min(self.frequency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCY: Duration = Duration::from_secs(60);

    #[test]
    fn a_poll_is_due_a_frequency_after_the_last_one_began() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut clock = PollClock::new(FREQUENCY, 0.5, start);
        assert_eq!(clock.due(), Some(start));
        clock.begin(at(3));
        assert_eq!(clock.due(), None);
        clock.answered(at(4));
        assert_eq!(clock.due(), Some(at(48)), "three quarters: its place");
        assert!(!clock.is_slow());
        clock.begin(at(48));
        clock.answered(at(50));
        assert_eq!(clock.due(), Some(at(108)));
        assert!(clock.is_slow());
        clock.begin(at(108));
        clock.answered(at(200));
        assert_eq!(clock.due(), Some(at(206)), "a tenth of the frequency");
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_the_frequency() {
        let start = Instant::now();
        let mut clock = PollClock::new(FREQUENCY, 0.5, start);
        let mut wait = || {
            clock.begin(start);
            clock.failed(start, true);
            assert!(clock.is_slow());
            clock.due().unwrap().duration_since(start).as_secs()
        };
        let waits: Vec<_> = (0..40).map(|_| wait()).collect();
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(waits[8..].iter().all(|wait| *wait == 60));
        clock.begin(start);
        clock.answered(start);
        assert_eq!(clock.failures(), 0);
    }

    #[test]
    fn what_does_not_pass_waits_for_the_frequency() {
        let start = Instant::now();
        let mut clock = PollClock::new(FREQUENCY, 0.5, start);
        clock.begin(start);
        clock.failed(start, false);
        assert_eq!(clock.due(), Some(start + FREQUENCY));
    }

    #[test]
    fn a_short_frequency_bounds_the_backoff() {
        let start = Instant::now();
        let mut clock = PollClock::new(Duration::from_millis(100), 0.0, start);
        clock.begin(start);
        clock.failed(start, true);
        assert_eq!(clock.due(), Some(start + Duration::from_millis(100)));
    }
}
