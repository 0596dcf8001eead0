//! The state of the tenants that share one slot of shared data.
//!
//! Layout, little-endian: `u64` clock of the slot ([`Monotonic`] milliseconds), then for each account `u32`
//! tenant, `u8` budget, `u64` [`Debt`] as of that clock.

use super::budgets::Budget;
use super::gcra::{Debt, advance};
use crate::records::{CorruptRecord, Reader};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most accounts in one slot. Only those that owe something are kept, so a slot is full when so many of its
/// tenants are active at once; beyond that, the one that owes least starts anew.
pub(super) const MAX_ACCOUNTS: usize = 32;

/// Bytes of one account.
const ACCOUNT_BYTES: usize = 13;

/// One budget of one tenant.
pub(super) type Account = (Tenant, Budget);

/// A slot, brought up to a clock reading.
pub(super) struct Slot {
    at: Monotonic,
    debts: Vec<(Account, Debt)>,
}

impl Slot {
    /// Reads a slot as of `now`. Bytes that are not a slot are one in which nobody owes anything.
    pub(super) fn parse(bytes: &[u8], now: Monotonic) -> Self {
        Self::decode(bytes, now).unwrap_or_else(|_| Self {
            at: now,
            debts: Vec::with_capacity(1),
        })
    }

    fn decode(bytes: &[u8], now: Monotonic) -> Result<Self, CorruptRecord> {
        let mut input = Reader(bytes);
        let (at, elapsed) = advance(Monotonic::from_millis(input.u64()?), now);
        let mut debts = Vec::with_capacity(MAX_ACCOUNTS.min(bytes.len() / ACCOUNT_BYTES + 1));
        while !input.is_empty() {
            if debts.len() == MAX_ACCOUNTS {
                return Err(CorruptRecord);
            }
            let tenant = Tenant(input.u32()?);
            let budget = Budget::from_code(input.byte()?).ok_or(CorruptRecord)?;
            let debt = Debt::from_units(input.u64()?).after(elapsed);
            if debt != Debt::NONE {
                debts.push(((tenant, budget), debt));
            }
        }
        Ok(Self { at, debts })
    }

    /// What an account owes.
    pub(super) fn debt(&self, account: Account) -> Debt {
        let found = self.debts.iter().find(|(key, _)| *key == account);
        found.map_or(Debt::NONE, |(_, debt)| *debt)
    }

    /// Sets what an account owes; in a full slot the account that owes least gives way.
    pub(super) fn set(&mut self, account: Account, debt: Debt) {
        if let Some((_, held)) = self.debts.iter_mut().find(|(key, _)| *key == account) {
            *held = debt;
            return;
        }
        if self.debts.len() >= MAX_ACCOUNTS {
            let owed = self.debts.iter().enumerate();
            if let Some((least, _)) = owed.min_by_key(|(_, (_, debt))| *debt) {
                self.debts.swap_remove(least);
            }
        }
        self.debts.push((account, debt));
    }

    /// The bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.debts.len() * ACCOUNT_BYTES);
        bytes.extend_from_slice(&self.at.as_millis().to_le_bytes());
        for ((tenant, budget), debt) in &self.debts {
            bytes.extend_from_slice(&tenant.0.to_le_bytes());
            bytes.push(budget.code());
            bytes.extend_from_slice(&debt.as_units().to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MILLI: u64 = 65_536_000_000;

    fn ms(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn full(tenant: u32) -> Account {
        (Tenant(tenant), Budget::Full)
    }

    #[test]
    fn both_budgets_of_a_tenant_are_kept_apart() {
        let mut slot = Slot::parse(&[], ms(5));
        slot.set((Tenant(1), Budget::Full), Debt::from_units(1));
        slot.set((Tenant(1), Budget::Conditional), Debt::from_units(2));
        let slot = Slot::parse(&slot.encode(), ms(5));
        assert_eq!(slot.debt((Tenant(1), Budget::Full)).as_units(), 1);
        assert_eq!(slot.debt((Tenant(1), Budget::Conditional)).as_units(), 2);
        assert_eq!(slot.debt((Tenant(2), Budget::Full)), Debt::NONE);
    }

    #[test]
    fn a_full_slot_forgets_the_idle_first_and_then_who_owes_least() {
        let mut slot = Slot::parse(&[], ms(0));
        for tenant in 1..=32 {
            slot.set(full(tenant), Debt::from_units(u64::from(tenant) * MILLI));
        }
        slot.set(full(99), Debt::from_units(50 * MILLI));
        assert_eq!(slot.debt(full(1)), Debt::NONE);
        assert_eq!(slot.debt(full(2)).as_units(), 2 * MILLI);
        assert_eq!(slot.encode().len(), 8 + 32 * ACCOUNT_BYTES);
        // Ten milliseconds later 2..=10 are idle, and nobody has to give way.
        let mut later = Slot::parse(&slot.encode(), ms(10));
        later.set(full(100), Debt::from_units(1));
        assert_eq!(later.debt(full(11)).as_units(), MILLI);
        assert_eq!(later.encode().len(), 8 + 24 * ACCOUNT_BYTES);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_stay_bounded(
            bytes in prop::collection::vec(any::<u8>(), 0..600), now in any::<u64>()
        ) {
            let mut slot = Slot::parse(&bytes, ms(now));
            slot.set(full(1), Debt::from_units(7));
            let encoded = slot.encode();
            prop_assert!(encoded.len() <= 8 + MAX_ACCOUNTS * ACCOUNT_BYTES);
            prop_assert_eq!(Slot::parse(&encoded, slot.at).debt(full(1)).as_units(), 7);
        }
    }
}
