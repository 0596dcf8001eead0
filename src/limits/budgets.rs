//! The limits of tenants, shared by all workers of one Envoy.
//!
//! # How exact it is
//! A worker that is busy for a tenant takes up to [a thousandth of the burst](Limits) at once and passes the next
//! requests without a host call. What it did not use within a second it gives back when it takes again. Let `h`
//! be the cells that workers hold at a moment, at most `workers × (largest batch - 1)`, less than 1 % of a burst
//! for 8 workers. Then
//! - in every window at most burst + refill + `h` requests pass (`h` as of the window's beginning, zero at first);
//! - a request that would have passed with `h` cells of the burst spared passes here: light traffic is never
//!   refused.
//!
//! Outside of this lie: a [`Mode::Contended`] request, which passes and is not on the books; cells whose place in
//! the worker's table went to another tenant after their second, which are lost, once; an account that gave way in a
//! slot of more than 32 busy ones and starts anew; clock readings of workers that come out of order, which are worth
//! at most 100 ms of refill, and steps forward, which are worth their length.

use std::collections::{BTreeMap, BTreeSet};

use super::gcra::RetryAfter;
use super::rate::{Period, Rate};
use super::reserve::{Plan, Reserve};
use super::slot::{Account, Slot};
use crate::labels::labels;
use crate::shared::{Scope, Store, Table, Update, update};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// What a request is spent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// Requests without `If-None-Match`, and those whose ETag turned out stale.
    Full,
    /// Requests with `If-None-Match`.
    Conditional,
}

labels! {
    Budget {
        Full: "full",
        Conditional: "conditional",
    }
}

impl Budget {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::Conditional => 1,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|budget| budget.code() == code)
    }
}

/// What was done with a request that is not simply within its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Over, and refused.
    Enforced,
    /// Over, and passed because limits are only logged.
    LogOnly,
    /// Over, and passed because the tenant is on the allow-list.
    Bypassed,
    /// Passed unchecked: shared data failed, or other workers were first each time.
    Contended,
}

labels! {
    Mode {
        Enforced: "enforced",
        LogOnly: "log_only",
        Bypassed: "bypassed",
        Contended: "contended",
    }
}

/// The settings of `rate_limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether anything is limited.
    pub enabled: bool,
    /// Rate of [`Budget::Full`].
    pub full: Rate,
    /// Rate of [`Budget::Conditional`].
    pub conditional: Rate,
    /// Rates of single tenants, for [`Budget::Full`] only.
    pub overrides: BTreeMap<Tenant, Rate>,
    /// Tenants that spend, and pass when over.
    pub allowed: BTreeSet<Tenant>,
    /// Whether everybody passes when over, and is counted.
    pub log_only: bool,
}

impl Default for Limits {
    /// 600 and 6000 a minute.
    fn default() -> Self {
        Self {
            enabled: true,
            full: Rate::per(600, Period::Minute),
            conditional: Rate::per(6_000, Period::Minute),
            overrides: BTreeMap::new(),
            allowed: BTreeSet::new(),
            log_only: false,
        }
    }
}

impl Limits {
    /// The rate of a tenant's budget.
    pub fn rate(&self, tenant: Tenant, budget: Budget) -> Rate {
        match budget {
            Budget::Full => self.overrides.get(&tenant).copied().unwrap_or(self.full),
            Budget::Conditional => self.conditional,
        }
    }

    /// The allow-list comes first: it would let the tenant pass in enforced mode as well.
    fn when_over(&self, tenant: Tenant) -> Mode {
        if self.allowed.contains(&tenant) {
            Mode::Bypassed
        } else if self.log_only {
            Mode::LogOnly
        } else {
            Mode::Enforced
        }
    }
}

/// How many entries of shared data hold the budgets: with 100 000 busy tenants 25 to an entry.
pub const SLOTS: u32 = 4_096;

/// Those entries.
pub fn slots(scope: &Scope) -> Table {
    Table::new(scope, "r:", SLOTS)
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Spent {
    /// Whether it passes; else when to come back.
    pub passes: Result<(), RetryAfter>,
    /// What to count, if it was not simply within its budget.
    pub count: Option<(Budget, Mode)>,
}

impl Spent {
    const WITHIN: Self = Self {
        passes: Ok(()),
        count: None,
    };
}

/// What the shared state said.
enum Taken {
    Cells(u32),
    Over(RetryAfter),
    Unknown,
}

/// A worker's side of the limits: the cells that it holds. About 24 KB.
pub struct Limiter {
    reserve: Reserve,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Limiter {
    /// A worker that holds nothing.
    pub fn new() -> Self {
        Self {
            reserve: Reserve::new(),
        }
    }

    /// Spends one cell of a tenant's budget: no host call when the worker holds one, else one get and one set.
    /// A request that is over costs one get, and owes nothing.
    pub fn spend(
        &mut self,
        limits: &Limits,
        store: &impl Store,
        slots: &Table,
        tenant: Tenant,
        budget: Budget,
        now: Monotonic,
    ) -> Spent {
        if !limits.enabled {
            return Spent::WITHIN;
        }
        let account = (tenant, budget);
        let rate = limits.rate(tenant, budget);
        let (cells, give_back) = match self.reserve.plan(account, rate, now) {
            Plan::Held => return Spent::WITHIN,
            Plan::Take { cells, give_back } => (cells, give_back),
        };
        match take(store, slots, account, rate, (cells, give_back), now) {
            Taken::Cells(taken) => {
                self.reserve.keep(account, rate, taken, now);
                Spent::WITHIN
            }
            Taken::Over(retry) => {
                let mode = limits.when_over(tenant);
                Spent {
                    passes: match mode {
                        Mode::Enforced => Err(retry),
                        Mode::LogOnly | Mode::Bypassed | Mode::Contended => Ok(()),
                    },
                    count: Some((budget, mode)),
                }
            }
            Taken::Unknown => Spent {
                passes: Ok(()),
                count: Some((budget, Mode::Contended)),
            },
        }
    }
}

/// Takes up to `cells` from the shared state, after returning `give_back`.
fn take(
    store: &impl Store,
    slots: &Table,
    account: Account,
    rate: Rate,
    (cells, give_back): (u32, u32),
    now: Monotonic,
) -> Taken {
    let mut taken = Taken::Unknown;
    let written = update(store, &slots.of(account.0.0), |bytes| {
        let mut slot = Slot::parse(bytes, now);
        let debt = slot.debt(account).give_back(rate, give_back);
        match debt.take(rate, cells) {
            Ok((debt, granted)) => {
                taken = Taken::Cells(granted);
                slot.set(account, debt);
                Some(slot.encode())
            }
            Err(retry) => {
                taken = Taken::Over(retry);
                None
            }
        }
    });
    match written {
        Ok(Update::Written | Update::Unchanged) => taken,
        Ok(Update::Contended) | Err(_) => Taken::Unknown,
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
