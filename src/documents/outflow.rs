//! How many bytes of large bodies a worker hands to Envoy.
//!
//! Envoy copies each body, and keeps the copy until the client has taken it. Over HTTP/1 it ends the stream at once, so
//! nobody tells the filter when that is; what it can bound is how much it hands over before Envoy's overload manager is
//! heard. A worker hears of that between two turns of its event loop, and a turn takes as long as there are requests: so
//! what was handed over is forgotten on the tick alone, which comes once a turn at most.

use crate::time::Monotonic;

/// A body of so many bytes counts. Smaller ones hardly add up, and most answers have them.
const LARGE: usize = 256 << 10;

/// What one worker handed over, less what has passed since.
#[derive(Debug, Default)]
pub struct Outflow {
    bytes: u64,
    as_of: Monotonic,
}

impl Outflow {
    /// Whether a body of this length may be handed over; notes that it is. `per_second`: 0 bounds nothing.
    pub fn admits(&mut self, length: usize, per_second: u32, now: Monotonic) -> bool {
        if length < LARGE || per_second == 0 {
            return true;
        }
        let (length, per_second) = (length as u64, u64::from(per_second));
        if self.bytes == 0 {
            self.as_of = now;
        }
        // A body that is longer than all of it has its turn, too.
        let admitted = self.bytes == 0 || self.bytes.saturating_add(length) <= per_second;
        if admitted {
            self.bytes = self.bytes.saturating_add(length);
        }
        admitted
    }

    /// Forgets what so much time is enough for.
    pub fn tick(&mut self, per_second: u32, now: Monotonic) {
        let millis = u64::try_from(now.since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        let passed = u64::from(per_second).saturating_mul(millis) / 1_000;
        self.bytes = self.bytes.saturating_sub(passed);
        self.as_of = now;
    }

    /// Whether ticks have something to forget.
    pub const fn is_busy(&self) -> bool {
        self.bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MIB: usize = 1 << 20;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn a_second_s_worth_may_leave_at_once_and_more_as_time_passes() {
        let mut outflow = Outflow::default();
        let mut admits = |length: usize, millis| {
            outflow.tick(8 << 20, at(millis));
            outflow.admits(length, 8 << 20, at(millis))
        };
        assert!(admits(4 * MIB, 5_000) && admits(4 * MIB, 5_000));
        assert!(!admits(MIB, 5_000));
        assert!(admits(MIB, 5_125), "an eighth of a second later");
        assert!(!admits(MIB, 5_125));
        assert!(!admits(MIB, 4_000), "a clock that goes back gives nothing");
        assert!(admits(8 * MIB, 9_000) && !admits(MIB, 9_000));
    }

    #[test]
    fn small_bodies_pass_and_count_for_nothing() {
        let mut outflow = Outflow::default();
        for _ in 0..1_000 {
            assert!(outflow.admits(LARGE - 1, MIB as u32, at(0)));
        }
        assert!(outflow.admits(MIB, MIB as u32, at(0)));
        assert!(!outflow.admits(LARGE, MIB as u32, at(0)));
        assert!(outflow.admits(LARGE - 1, MIB as u32, at(0)));
        assert!(outflow.admits(9 * MIB, 0, at(0)), "no bound");
    }

    #[test]
    fn what_is_longer_than_a_second_s_worth_waits_for_an_empty_bucket() {
        let mut outflow = Outflow::default();
        assert!(outflow.admits(8 * MIB, MIB as u32, at(0)));
        outflow.tick(MIB as u32, at(7_999));
        assert!(!outflow.admits(8 * MIB, MIB as u32, at(7_999)));
        outflow.tick(MIB as u32, at(8_001));
        assert!(outflow.admits(8 * MIB, MIB as u32, at(8_001)));
    }

    #[test]
    fn in_one_turn_of_the_event_loop_time_gives_nothing() {
        let mut outflow = Outflow::default();
        assert!(outflow.admits(MIB, MIB as u32, at(1_000)) && outflow.is_busy());
        assert!(!outflow.admits(MIB, MIB as u32, at(9_000)));
        outflow.tick(MIB as u32, at(9_000));
        assert!(!outflow.is_busy() && outflow.admits(MIB, MIB as u32, at(9_000)));
        // What is handed over after a pause does not count as of the tick before it.
        outflow.tick(MIB as u32, at(20_000));
        assert!(outflow.admits(MIB, MIB as u32, at(29_990)));
        outflow.tick(MIB as u32, at(30_000));
        assert!(!outflow.admits(MIB, MIB as u32, at(30_000)));
    }

    proptest! {
        #[test]
        fn in_no_time_more_passes_than_was_promised(
            asks in proptest::collection::vec((0u64..2_000, LARGE..8 * MIB), 1..100)
        ) {
            const PER_SECOND: u64 = 16 << 20;
            let mut outflow = Outflow::default();
            let mut passed = Vec::new();
            let mut now = 0;
            for (later, length) in asks {
                now += later;
                outflow.tick(PER_SECOND as u32, at(now));
                if outflow.admits(length, PER_SECOND as u32, at(now)) {
                    passed.push((now, length as u64));
                }
            }
            for (index, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (until, length) in &passed[index..] {
                    sum += length;
                    prop_assert!(sum <= PER_SECOND + PER_SECOND * (until - from) / 1_000);
                }
            }
        }
    }
}
