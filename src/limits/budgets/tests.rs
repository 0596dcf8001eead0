use std::cell::Cell;

use super::*;
use crate::shared::{Cas, MemoryStore, REPLACE_TRIES, StoreError, Versioned};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TENANT: Tenant = Tenant(7);

/// A store that counts host calls, and lets other workers win or fails.
#[derive(Default)]
struct Watched {
    inner: MemoryStore,
    gets: Cell<usize>,
    sets: Cell<usize>,
    /// So many replaces are lost, each to somebody who spent a cell of the same tenant.
    lost: Cell<usize>,
    fails: Cell<bool>,
}

impl Watched {
    fn calls(&self) -> (usize, usize) {
        (self.gets.take(), self.sets.take())
    }
}

impl Store for Watched {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        self.gets.set(self.gets.get() + 1);
        if self.fails.get() {
            return Err(StoreError { status: 10 });
        }
        self.inner.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        self.sets.set(self.sets.get() + 1);
        if self.lost.get() > 0 {
            self.lost.set(self.lost.get() - 1);
            let limits = limits("600/m");
            let spent = Limiter::new().spend(&limits, &self.inner, &slots(), TENANT, FULL, ms(0));
            assert_eq!(spent, Spent::WITHIN);
        }
        self.inner.replace(key, value, cas)
    }
}

const FULL: Budget = Budget::Full;

fn slots() -> Table {
    Table::new(&Scope::new("", &[]), "r:", 4)
}

fn ms(millis: u64) -> Monotonic {
    Monotonic::from_millis(millis)
}

fn limits(full: &str) -> Limits {
    Limits {
        full: full.parse().unwrap(),
        ..Limits::default()
    }
}

/// One worker on one store.
#[derive(Default)]
struct Worker {
    limiter: Limiter,
    store: Watched,
}

impl Worker {
    fn spend(&mut self, limits: &Limits, tenant: Tenant, budget: Budget, at: u64) -> Spent {
        self.limiter
            .spend(limits, &self.store, &slots(), tenant, budget, ms(at))
    }

    /// How many of so many tries pass.
    fn passes(
        &mut self,
        limits: &Limits,
        tenant: u32,
        budget: Budget,
        tries: u32,
        at: u64,
    ) -> usize {
        (0..tries)
            .filter(|_| {
                self.spend(limits, Tenant(tenant), budget, at)
                    .passes
                    .is_ok()
            })
            .count()
    }
}

#[test]
fn both_budgets_of_each_tenant_are_their_own() {
    let (mut worker, limits) = (Worker::default(), Limits::default());
    for tenant in [1, 5] {
        assert_eq!(worker.passes(&limits, tenant, FULL, 700, 0), 600);
        let conditional = worker.passes(&limits, tenant, Budget::Conditional, 7_000, 0);
        assert_eq!(conditional, 6_000);
    }
    assert_eq!(worker.passes(&limits, 1, FULL, 10, 99), 0);
    assert_eq!(worker.passes(&limits, 1, FULL, 10, 100), 1);
    assert_eq!(worker.store.inner.len(), 1, "1 and 5 share a slot");
}

#[test]
fn an_override_is_for_the_full_budget_of_its_tenant_only() {
    let mut limits = limits("3/m");
    limits.conditional = "4/m".parse().unwrap();
    limits.overrides.insert(TENANT, "5/m".parse().unwrap());
    let mut worker = Worker::default();
    assert_eq!(worker.passes(&limits, 7, FULL, 10, 0), 5);
    assert_eq!(worker.passes(&limits, 7, Budget::Conditional, 10, 0), 4);
    assert_eq!(worker.passes(&limits, 8, FULL, 10, 0), 3);
}

#[test]
fn a_refusal_says_when_to_come_back_and_owes_nothing() {
    let (mut worker, limits) = (Worker::default(), limits("2/m"));
    assert_eq!(worker.passes(&limits, 7, FULL, 2, 0), 2);
    for _ in 0..100 {
        let spent = worker.spend(&limits, TENANT, FULL, 1_500);
        assert_eq!(spent.passes.unwrap_err().seconds(), 29);
        assert_eq!(spent.count, Some((FULL, Mode::Enforced)));
    }
    assert_eq!(worker.passes(&limits, 7, FULL, 2, 29_999), 0);
    assert_eq!(worker.passes(&limits, 7, FULL, 2, 30_000), 1);
}

#[test]
fn who_is_over_passes_and_is_counted_when_allowed_or_only_logged() {
    for (allowed, log_only, mode) in [
        (true, false, Mode::Bypassed),
        (true, true, Mode::Bypassed),
        (false, true, Mode::LogOnly),
    ] {
        let mut limits = limits("1/m");
        limits.log_only = log_only;
        if allowed {
            limits.allowed.insert(TENANT);
        }
        let mut worker = Worker::default();
        assert_eq!(worker.spend(&limits, TENANT, FULL, 0), Spent::WITHIN);
        for _ in 0..10 {
            let spent = worker.spend(&limits, TENANT, FULL, 0);
            assert_eq!(spent.passes, Ok(()));
            assert_eq!(spent.count, Some((FULL, mode)));
        }
        // Those ten owe nothing either: the next cell is there when it is due.
        assert_eq!(worker.spend(&limits, TENANT, FULL, 60_000), Spent::WITHIN);
    }
}

#[test]
fn limits_that_are_off_cost_nothing() {
    let mut worker = Worker::default();
    let limits = Limits {
        enabled: false,
        ..limits("1/d")
    };
    assert_eq!(worker.passes(&limits, 7, FULL, 100, 0), 100);
    assert_eq!(worker.store.calls(), (0, 0));
}

#[test]
fn a_take_is_one_get_and_one_set_and_a_refusal_one_get() {
    let (mut worker, limits) = (Worker::default(), limits("2/m"));
    for expected in [(1, 1), (1, 1), (1, 0), (1, 0)] {
        let _ = worker.spend(&limits, TENANT, FULL, 0);
        assert_eq!(worker.store.calls(), expected);
    }
}

#[test]
fn a_busy_worker_makes_host_calls_for_a_batch_and_not_for_a_request() {
    let (mut worker, limits) = (Worker::default(), Limits::default());
    // 1 + 2 + 4 + 6 cells, then 6 a time.
    assert_eq!(
        worker.passes(&limits, 7, Budget::Conditional, 6_000, 0),
        6_000
    );
    let takes = 3 + (6_000usize - 7).div_ceil(6);
    assert_eq!(worker.store.calls(), (takes, takes));
    let mut fast = limits.clone();
    fast.full = "100000/s".parse().unwrap();
    assert_eq!(worker.passes(&fast, 7, FULL, 6_400, 0), 6_400);
    let (gets, _) = worker.store.calls();
    assert!(gets <= 106, "{gets}");
}

#[test]
fn what_other_workers_spend_meanwhile_is_kept() {
    let (mut worker, limits) = (Worker::default(), limits("600/m"));
    worker.store.lost.set(REPLACE_TRIES - 1);
    assert_eq!(worker.spend(&limits, TENANT, FULL, 0), Spent::WITHIN);
    assert_eq!(worker.store.calls(), (REPLACE_TRIES, REPLACE_TRIES));
    assert_eq!(worker.passes(&limits, 7, FULL, 700, 0), 600 - REPLACE_TRIES);
}

#[test]
fn a_contended_slot_or_failing_shared_data_lets_the_request_pass_and_counts_it() {
    let (mut worker, limits) = (Worker::default(), limits("600/m"));
    let unchecked = Spent {
        passes: Ok(()),
        count: Some((FULL, Mode::Contended)),
    };
    worker.store.lost.set(usize::MAX);
    assert_eq!(worker.spend(&limits, TENANT, FULL, 0), unchecked);
    assert_eq!(worker.store.calls(), (REPLACE_TRIES, REPLACE_TRIES));
    worker.store.fails.set(true);
    assert_eq!(worker.spend(&limits, TENANT, FULL, 0), unchecked);
    assert_eq!(worker.store.calls(), (1, 0));
}

#[test]
fn cells_to_give_back_are_not_lost_when_the_slot_is_contended() {
    let (mut worker, limits) = (Worker::default(), Limits::default());
    let budget = Budget::Conditional;
    // Another worker uses up whole batches: 1 + 2 + 4, then 6 a time.
    let mut other = Limiter::new();
    for _ in 0..3_001 {
        let spent = other.spend(&limits, &worker.store, &slots(), TENANT, budget, ms(0));
        assert_eq!(spent, Spent::WITHIN);
    }
    // This one takes 1 + 2 + 4 and leaves 3; then the take that would give them back comes to nothing.
    assert_eq!(worker.passes(&limits, 7, budget, 4, 0), 4);
    worker.store.fails.set(true);
    let spent = worker.spend(&limits, TENANT, budget, 1_000);
    assert_eq!(spent.count, Some((budget, Mode::Contended)));
    worker.store.fails.set(false);
    // Used and on the books: 3001 + 4; refilled in that second: 100.
    let left = 6_000 - 3_005 + 100;
    assert_eq!(worker.passes(&limits, 7, budget, 7_000, 1_000), left);
}

#[test]
fn a_step_of_the_clock_refuses_nobody_and_forgives_no_more_than_its_time() {
    let limits = limits("600/m");
    let start = 10_000_000;
    for step in [
        0,
        1,
        5_000,
        start - 101,
        start - 5_000,
        start + 5_000,
        u64::MAX,
    ] {
        let mut worker = Worker::default();
        assert_eq!(worker.passes(&limits, 7, FULL, 300, start), 300);
        let left = worker.passes(&limits, 7, FULL, 1_000, step);
        assert!(left >= 300, "{left} at {step}");
        if step < start {
            assert_eq!(left, 300, "a step back, to {step}");
        }
        assert_eq!(
            worker.passes(&limits, 7, FULL, 9, step.saturating_add(100)),
            { usize::from(step != u64::MAX) }
        );
    }
}

#[test]
fn a_rate_with_a_shorter_period_is_not_bound_by_debt_of_a_longer_one() {
    let mut worker = Worker::default();
    assert_eq!(worker.passes(&limits("10/d"), 7, FULL, 20, 0), 10);
    assert_eq!(worker.passes(&limits("10/s"), 7, FULL, 20, 1), 10);
}

#[test]
fn bytes_that_are_no_slot_refuse_nobody_and_are_replaced() {
    let (mut worker, limits) = (Worker::default(), limits("2/m"));
    let name = slots().of(TENANT.0);
    let junk = [0xff; 50];
    worker
        .store
        .inner
        .replace(&name, &junk, Cas::ABSENT)
        .unwrap();
    assert_eq!(worker.passes(&limits, 7, FULL, 5, 0), 2);
}

#[test]
fn slots_are_fixed_in_number() {
    let scope = Scope::new("", &[]);
    let names = |count| {
        let slots = Table::new(&scope, "r:", count);
        (0..100).map(|id| slots.of(id)).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(4).len(), 4);
    assert_eq!(names(0), BTreeSet::from([scope.name("r:0")]));
}
