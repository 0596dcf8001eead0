//! Quota periods as clients live through them that drop their flags on 402 and keep their ETag. Three Envoys of two workers read
//! one Redis, and any worker may get a client's next request. What happens when is random: callouts take their time or are lost,
//! workers are held up for seconds, VMs and Envoys begin anew, limits are short, lifted, or end by themselves.
//!
//! When a limit begins, workers hear of it one after the other: a 304 after a 402 says nothing yet. Once the limit is gone nobody
//! without flags is told 304, but by a worker that never heard of the limit, for as long as counts what it confirmed before the
//! latch was written.

mod redis;
mod run;

use run::Run;

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// How a run goes. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    interval: u64,
    etag_max_age: u64,
    /// One in so many callouts is lost, ticks hold their worker up, ticks are the first of a new VM; 0 for none.
    lost: u64,
    held_up: u64,
    anew: u64,
}

/// A small generator (SplitMix64): runs are long, and a seed repeats one.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn once_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }
}

/// Runs that go like this, each with seeds of its own: the same ones each time.
fn run(lost: u64, held_up: u64, anew: u64) {
    for (interval, etag_max_age) in [(1_000, 2_000), (5_000, 2_000), (2_000, 8_000)] {
        for seed in 0..3 {
            let plan = Plan {
                seed,
                interval,
                etag_max_age,
                lost,
                held_up,
                anew,
            };
            let mut run = Run::of(plan);
            run.until(NOW + 60_000);
            let all = [200, 304, 402].map(|status| run.answers.contains_key(&status));
            assert_eq!(all, [true; 3], "{plan:?}: {:?}", run.answers);
            assert_eq!(run.stuck, Vec::<String>::new(), "{plan:?}");
        }
    }
}

#[test]
fn after_a_limit_nobody_without_flags_is_told_304() {
    run(0, 0, 0);
}

#[test]
fn nor_while_workers_are_held_up() {
    run(0, 20, 0);
}

#[test]
fn nor_while_callouts_are_lost() {
    run(8, 0, 0);
}

#[test]
fn nor_where_vms_and_envoys_begin_anew() {
    run(0, 0, 60);
}

#[test]
fn nor_when_all_of_that_happens() {
    run(8, 20, 60);
}
