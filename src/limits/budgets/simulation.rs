//! Many workers on one state, against the algorithm itself.

use proptest::prelude::*;

use super::*;
use crate::limits::gcra::Debt;
use crate::limits::reserve::largest_batch;
use crate::shared::MemoryStore;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TENANT: Tenant = Tenant(7);
const MINUTE: u64 = 60_000;

/// A small generator (SplitMix64): runs are long, and a seed repeats one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// How requests come.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    seed: u64,
    workers: u64,
    /// Requests (or crowds of them) that come, in percent of what the refill allows.
    percent: u64,
    /// Requests come in crowds of up to so many, all to one worker, in the same milliseconds.
    crowd: u64,
    /// By how many milliseconds workers' readings of the clock may be behind.
    late: u64,
}

impl Traffic {
    /// When and where requests come, in order of time, until `end` milliseconds.
    fn arrivals(self, rate: Rate, end: u64) -> Vec<(u64, usize)> {
        let mut random = Random(self.seed);
        let period = rate.period().as_millis() as u64;
        let total = u64::from(rate.count()) * self.percent * end / (100 * period);
        let mut arrivals = Vec::new();
        while (arrivals.len() as u64) < total {
            let (at, worker) = (random.below(end), random.below(self.workers));
            for _ in 0..=random.below(self.crowd) {
                arrivals.push((at + random.below(self.crowd.min(20)), worker as usize));
            }
        }
        arrivals.sort_unstable();
        arrivals
    }
}

/// What passed here and by the algorithm itself.
struct Outcome {
    demand: u64,
    passed: u64,
    ideal: u64,
    /// By how much this may pass more: cells that workers hold, and refill that a late first reading of the
    /// clock adds.
    spare: u64,
    /// Whether in some window more passed than burst, refill and the cells that workers may hold.
    exceeded: bool,
}

fn run(rate: Rate, traffic: Traffic, end: u64) -> Outcome {
    let limits = Limits {
        full: rate,
        ..Limits::default()
    };
    let slots = Table::new(&Scope::new("", &[]), "r:", 1);
    let store = MemoryStore::default();
    let mut workers: Vec<Limiter> = (0..traffic.workers).map(|_| Limiter::new()).collect();
    let mut random = Random(!traffic.seed);
    let held = traffic.workers as u32 * (largest_batch(rate) - 1);
    // A bucket that is larger by what workers may hold, and refilled at the same rate. It overflows exactly
    // when there is a window in which more passed than it allows.
    let cell = rate.period().as_nanos() as i128 / i128::from(rate.count());
    let (mut level, mut before) = (0i128, 0);
    let (mut ideal, mut ideal_at) = (Debt::NONE, 0);
    let mut outcome = Outcome {
        demand: 0,
        passed: 0,
        ideal: 0,
        spare: u64::from(held)
            + (u128::from(traffic.late) * 1_000_000).div_ceil(cell as u128) as u64,
        exceeded: false,
    };
    for (at, worker) in traffic.arrivals(rate, end) {
        outcome.demand += 1;
        ideal = ideal.after(std::time::Duration::from_millis(at - ideal_at));
        ideal_at = at;
        if let Ok((debt, _)) = ideal.take(rate, 1) {
            (ideal, outcome.ideal) = (debt, outcome.ideal + 1);
        }
        let reading = Monotonic::from_millis(1_000_000 + at - random.below(traffic.late + 1));
        let spent = workers[worker].spend(&limits, &store, &slots, TENANT, Budget::Full, reading);
        level = (level - i128::from(at - before) * 1_000_000).max(0);
        before = at;
        if spent.passes.is_ok() {
            outcome.passed += 1;
            level += cell;
            // Clock readings that are late by a little may let as much refill be seen earlier or later.
            let slack = i128::from(traffic.late) * 1_000_000 + i128::from(rate.count());
            outcome.exceeded |= level > cell * i128::from(rate.count() + held) + slack;
        }
    }
    outcome
}

fn rates() -> impl Strategy<Value = Rate> {
    prop::sample::select(vec![
        Rate::per(600, Period::Minute),
        Rate::per(6_000, Period::Minute),
        Rate::per(100_000, Period::Minute),
        Rate::per(2_000, Period::Second),
    ])
}

fn traffic(percent: std::ops::Range<u64>) -> impl Strategy<Value = Traffic> {
    let crowd = prop::sample::select(vec![1, 5, 30, 120]);
    let late = prop::sample::select(vec![0, 3, 50]);
    (any::<u64>(), 1u64..=8, percent, crowd, late).prop_map(
        |(seed, workers, percent, crowd, late)| Traffic {
            seed,
            workers,
            percent,
            crowd,
            late,
        },
    )
}

/// Three periods, but not more than a hundred thousand requests or so.
fn length(rate: Rate) -> u64 {
    let period = rate.period().as_millis() as u64;
    if rate.count() > 50_000 {
        period / 2
    } else {
        period * 3
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn demand_above_the_limit_gets_it_to_one_percent(rate in rates(), traffic in traffic(400..800)) {
        let outcome = run(rate, traffic, length(rate));
        prop_assert!(outcome.demand > outcome.ideal, "demand must exceed the limit");
        prop_assert!(!outcome.exceeded);
        let (passed, ideal) = (outcome.passed, outcome.ideal);
        prop_assert!(passed * 100 >= ideal * 99, "{passed} of {ideal}");
        prop_assert!(passed <= ideal + outcome.spare, "{passed} of {ideal}");
    }

    #[test]
    fn light_traffic_is_never_refused(rate in rates(), traffic in traffic(20..90)) {
        let outcome = run(rate, traffic, length(rate));
        prop_assert_eq!(outcome.ideal, outcome.demand, "the algorithm itself refuses none of it");
        prop_assert_eq!(outcome.passed, outcome.demand);
    }
}

#[test]
fn bursts_that_leave_cells_behind_each_second_lose_none_of_the_rate() {
    // Each worker gets a crowd every 1.1 s that ends just after it took its largest batch.
    let rate = Rate::per(6_000, Period::Minute);
    let limits = Limits {
        full: rate,
        ..Limits::default()
    };
    let slots = Table::new(&Scope::new("", &[]), "r:", 1);
    let store = MemoryStore::default();
    let mut workers: Vec<Limiter> = (0..8).map(|_| Limiter::new()).collect();
    let mut passed = 0;
    let end = 5 * MINUTE;
    for at in (0..end).step_by(1_100) {
        for worker in &mut workers {
            for _ in 0..20 {
                let now = Monotonic::from_millis(at);
                let spent = worker.spend(&limits, &store, &slots, TENANT, Budget::Full, now);
                passed += u64::from(spent.passes.is_ok());
            }
        }
    }
    let allowed = 6_000 + 100 * end / 1_000;
    assert!(passed * 100 >= allowed * 99, "{passed} of {allowed}");
    assert!(passed <= allowed, "{passed} of {allowed}");
}
