//! Cells that a worker took in advance, so that not each request costs a round of host calls.

use std::time::Duration;

use super::rate::Rate;
use super::slot::Account;
use crate::time::Monotonic;

/// Accounts for which a worker can hold cells: a fixed table, each account has one place in it.
const PLACES: usize = 1_024;

/// A batch that lasted longer than this is not followed by a larger one.
const BUSY: Duration = Duration::from_millis(100);

/// Cells that were not used by then are given back at the next take.
const TERM: Duration = Duration::from_secs(1);

/// Cells a worker may take at once: a thousandth of the burst, 1 to 64. So 8 workers together hold less than
/// 1 % of a burst.
pub(super) fn largest_batch(rate: Rate) -> u32 {
    (rate.count() / 1_000).clamp(1, 64)
}

#[derive(Clone, Copy)]
struct Held {
    account: Account,
    left: u32,
    batch: u32,
    since: Monotonic,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: a cell was here.
    Held,
    /// Cells from the shared state, after giving back those that were held too long.
    Take { cells: u32, give_back: u32 },
}

/// The table of a worker.
pub(super) struct Reserve(Vec<Option<Held>>);

impl Reserve {
    pub(super) fn new() -> Self {
        Self(vec![None; PLACES])
    }

    /// Uses a held cell, or says what to take.
    pub(super) fn plan(&mut self, account: Account, rate: Rate, now: Monotonic) -> Plan {
        let Some(Some(held)) = self.place(account) else {
            return SINGLE;
        };
        if held.account != account {
            return SINGLE;
        }
        let age = now.since(held.since);
        if held.left == 0 {
            let cells = if age < BUSY { held.batch * 2 } else { 1 };
            let cells = cells.min(largest_batch(rate));
            return Plan::Take {
                cells,
                give_back: 0,
            };
        }
        if age < TERM {
            held.left -= 1;
            return Plan::Held;
        }
        Plan::Take {
            cells: 1,
            give_back: held.left,
        }
    }

    /// Notes that `taken` cells were taken, of which the request at hand uses one.
    ///
    /// Another account's cells are not pushed out while they can be used; [`Reserve::plan`] asks for more
    /// than one cell only where the account has the place already, so nothing is lost.
    pub(super) fn keep(&mut self, account: Account, rate: Rate, taken: u32, now: Monotonic) {
        if largest_batch(rate) == 1 {
            return;
        }
        let Some(place) = self.place(account) else {
            return;
        };
        let usable =
            |held: &Held| held.account != account && held.left > 0 && now.since(held.since) < TERM;
        if place.as_ref().is_some_and(usable) {
            return;
        }
        *place = Some(Held {
            account,
            left: taken.saturating_sub(1),
            batch: taken,
            since: now,
        });
    }

    fn place(&mut self, (tenant, budget): Account) -> Option<&mut Option<Held>> {
        let number = (tenant.0 as usize)
            .wrapping_mul(2)
            .wrapping_add(usize::from(budget.code()));
        self.0.get_mut(number % PLACES)
    }
}

const SINGLE: Plan = Plan::Take {
    cells: 1,
    give_back: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budgets::Budget;
    use crate::limits::rate::Period;
    use crate::tenant::Tenant;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const RATE: Rate = Rate::per(6_000, Period::Minute);

    fn account(tenant: u32) -> Account {
        (Tenant(tenant), Budget::Full)
    }

    fn ms(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    /// The batches that a worker takes when requests come at the given times.
    fn batches(times: impl IntoIterator<Item = u64>) -> Vec<(u64, u32, u32)> {
        let mut reserve = Reserve::new();
        let mut taken = Vec::new();
        for time in times {
            if let Plan::Take { cells, give_back } = reserve.plan(account(1), RATE, ms(time)) {
                taken.push((time, cells, give_back));
                reserve.keep(account(1), RATE, cells, ms(time));
            }
        }
        taken
    }

    #[test]
    fn the_largest_batch_is_a_thousandth_of_the_burst_up_to_64() {
        let batch = |count| largest_batch(Rate::per(count, Period::Second));
        assert_eq!(
            [1, 600, 1_999, 2_000, 6_000, 64_999, u32::MAX].map(batch),
            [1, 1, 1, 2, 6, 64, 64]
        );
    }

    #[test]
    fn batches_double_while_requests_come_quickly() {
        assert_eq!(
            batches(0..14),
            [(0, 1, 0), (1, 2, 0), (3, 4, 0), (7, 6, 0), (13, 6, 0)]
        );
        assert_eq!(
            batches([0, 100, 200]),
            [(0, 1, 0), (100, 1, 0), (200, 1, 0)]
        );
    }

    #[test]
    fn cells_held_for_a_second_are_given_back_at_the_next_take() {
        assert_eq!(
            batches([0, 1, 2, 3, 1_003]),
            [(0, 1, 0), (1, 2, 0), (3, 4, 0), (1_003, 1, 3)]
        );
        assert_eq!(batches([0, 1, 2, 3, 1_002]).len(), 3, "still usable");
    }

    #[test]
    fn a_rate_without_batches_takes_no_place() {
        let mut reserve = Reserve::new();
        let slow = Rate::per(600, Period::Minute);
        reserve.keep(account(1), slow, 1, ms(0));
        assert!(reserve.0.iter().all(Option::is_none));
    }

    #[test]
    fn usable_cells_of_another_tenant_are_not_pushed_out() {
        let mut reserve = Reserve::new();
        let other = account(1 + PLACES as u32 / 2);
        reserve.keep(account(1), RATE, 4, ms(0));
        assert_eq!(reserve.plan(other, RATE, ms(1)), SINGLE);
        reserve.keep(other, RATE, 1, ms(1));
        assert_eq!(reserve.plan(other, RATE, ms(2)), SINGLE);
        assert_eq!(reserve.plan(account(1), RATE, ms(2)), Plan::Held);
        // After their term the place is free.
        reserve.keep(other, RATE, 1, ms(1_000));
        assert_eq!(
            reserve.plan(other, RATE, ms(1_001)),
            Plan::Take {
                cells: 2,
                give_back: 0
            }
        );
    }
}
