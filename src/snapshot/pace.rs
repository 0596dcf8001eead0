//! When to ask Redis next.
//!
//! What a watermark proves is as old as the watermark, so the best moment to ask is just after the next one was
//! written. The publisher writes them at its own pace, which shows in their ids. Asking happens once per
//! `poll_interval`, a little more often where the publisher is slower or a watermark is late.

use std::time::Duration;

/// How long after a watermark is due it is asked for.
const LAG: u64 = 60;

/// When a late watermark is asked for again, at first; then after twice that time, and so on.
const RETRY: Duration = Duration::from_millis(150);

/// The rhythm of one loader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// Id of the newest watermark, in milliseconds of Redis' clock.
    newest: Option<u64>,
    /// Time from one watermark to the next, in milliseconds.
    period: u64,
    late: u32,
}

impl Pace {
    /// Nothing was seen yet.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            newest: None,
            period: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            late: 0,
        }
    }

    /// How long to wait after a poll in which Redis' clock said `redis_now` and the newest watermark, if one came, was
    /// written at `mark`, both in Unix milliseconds.
    pub(super) fn wait(&mut self, redis_now: u64, mark: Option<u64>) -> Duration {
        if let Some(mark) = mark {
            if let Some(period) = self.newest.and_then(|newest| mark.checked_sub(newest)) {
                // Several may have come at once; then this is an upper bound, and corrected by the next.
                self.period = period.max(1);
            }
            (self.newest, self.late) = (Some(mark), 0);
        }
        let Some(due) = self
            .newest
            .map(|newest| newest.saturating_add(self.period + LAG))
        else {
            return self.interval;
        };
        if let Some(due_in) = due.checked_sub(redis_now).filter(|due_in| *due_in > 0) {
            let due_in = Duration::from_millis(due_in).max(self.interval / 2);
            // A poll between two watermarks still brings changes.
            return if due_in > self.interval * 5 / 4 {
                self.interval
            } else {
                due_in
            };
        }
        let retry = RETRY.saturating_mul(1 << self.late.min(8));
        self.late += 1;
        retry.min(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Polls per second, and the most that a watermark was old when the next one was read, both after some time.
    fn simulate(interval: u64, period: u64, phase: u64, stops_at: Option<u64>) -> (f64, u64) {
        let mut pace = Pace::new(Duration::from_millis(interval));
        let (mut now, mut polls, mut oldest, mut read) = (10_000, 0, 0, 0);
        while now < 70_000 {
            let written = stops_at.map_or(now, |stop| now.min(stop));
            let newest = (written - phase) / period * period + phase;
            if read > 0 && now > 20_000 {
                polls += 1;
                oldest = oldest.max(now - read);
            }
            let mark = (newest > read).then_some(newest);
            read = newest;
            now += u64::try_from(pace.wait(now, mark).as_millis()).unwrap();
        }
        (f64::from(polls) / 50.0, oldest)
    }

    #[test]
    fn it_finds_the_rhythm_of_the_publisher() {
        for period in [700, 990, 1_000, 1_003, 1_010, 1_300, 1_900, 3_000] {
            for phase in [0, 130, 510, 900] {
                let (polls, oldest) = simulate(1_000, period, phase, None);
                assert!(polls <= 1.8, "{period}+{phase}: {polls} a second");
                assert!(oldest <= period + 300, "{period}+{phase}: {oldest} ms");
            }
        }
    }

    #[test]
    fn without_a_publisher_it_asks_once_per_interval() {
        let (polls, _) = simulate(1_000, 1_000, 0, Some(15_000));
        assert!(polls <= 1.1, "{polls}");
        let mut pace = Pace::new(Duration::from_secs(1));
        assert_eq!(pace.wait(5, None), Duration::from_secs(1));
    }
}
