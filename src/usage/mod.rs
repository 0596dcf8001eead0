//! A ledger of counts: what is counted is added to hashes in Redis exactly once, as far as Redis keeps what it
//! acknowledged. A killed Envoy loses what was not sent yet.
//!
//! A count is one of requests, by tenant, source and field: a surface says what its sources and fields are, and how the
//! hashes are called ([`UsageKeys`]).
//!
//! Shared data holds a fixed number of slots ([`ledger`]). A request is counted there in the callback that sends
//! its answer; what a worker cannot store at once it keeps for its next tick ([`Unstored`]). From time to time
//! [`Outbox`] freezes what a slot has counted into a numbered batch and sends it until Redis says that it is in.
//! The script ([`batch`]) adds a batch only when its number is new. Every change of a slot is one
//! compare-and-swap, so a VM may vanish between any two steps.

pub mod batch;
mod job;
pub mod ledger;
mod outbox;
pub mod settings;
mod unstored;

pub use batch::UsageKeys;
pub use job::UsageJob;
pub use ledger::{Counter, Slots};
pub use outbox::Outbox;
pub use unstored::Unstored;

use crate::labels::labels;
use crate::shared::Scope;

/// The lease of whoever sends usage.
pub fn lease_name(scope: &Scope) -> String {
    scope.name("lease")
}

/// What became of counted requests. The label of `flag_definitions_usage_total`; each counts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Stored in shared data.
    Counted,
    /// Acknowledged by Redis; each request once, by the VM that took it out of shared data.
    Sent,
    /// Sent again, because an earlier attempt was not acknowledged (yet).
    Resent,
    /// Acknowledged, but one of the two hashes took no count: it is of another type. Redis says so once, so a
    /// lost reply hides it.
    Refused,
    /// Lost: no room was left, or shared data failed for too long.
    Dropped,
}

labels! {
    State {
        Counted: "counted",
        Sent: "sent",
        Resent: "resent",
        Refused: "refused",
        Dropped: "dropped",
    }
}

/// How many requests came into each [`State`] since the tally was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; State::ALL.len()]);

impl Tally {
    /// Adds requests to a state; saturates.
    pub fn add(&mut self, state: State, requests: u64) {
        if let Some(sum) = self.0.get_mut(state as usize) {
            *sum = sum.saturating_add(requests);
        }
    }

    /// Requests of a state.
    pub fn get(&self, state: State) -> u64 {
        self.0.get(state as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_state_has_its_own_sum() {
        let mut tally = Tally::default();
        for (index, state) in State::ALL.into_iter().enumerate() {
            tally.add(state, index as u64 + 1);
        }
        let sums = State::ALL.map(|state| tally.get(state));
        assert_eq!(sums, [1, 2, 3, 4, 5]);
        tally.add(State::Sent, u64::MAX);
        assert_eq!(tally.get(State::Sent), u64::MAX);
    }
}
