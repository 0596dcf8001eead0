//! The entries of shared data that hold records: a fixed number of buckets, in the order of hashes.

use crate::hash::Sha256Hash;
use crate::shared::{Scope, Table};

/// Where records are in shared data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    scope: Scope,
    table: Table,
}

impl Buckets {
    /// So many buckets of a scope.
    pub fn new(scope: &Scope, count: u32) -> Self {
        Self {
            table: Table::new(scope, "b:", count),
            scope: scope.clone(),
        }
    }

    /// The scope of everything that is stored beside the records.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How many buckets there are.
    pub fn count(&self) -> u32 {
        self.table.count()
    }

    /// The bucket of a record, by the first 32 bits of its hash, in hash order.
    pub fn of(&self, hash: &Sha256Hash) -> u32 {
        let [a, b, c, d, ..] = *hash.as_bytes();
        let first = u64::from(u32::from_be_bytes([a, b, c, d]));
        u32::try_from((first * u64::from(self.count())) >> 32).unwrap_or(0)
    }

    /// The name of one bucket.
    pub fn name(&self, index: u32) -> String {
        self.table.entry(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn buckets_follow_the_order_of_hashes_and_stay_in_range() {
        let buckets = Buckets::new(&Scope::new("", &[]), 7);
        let bucket = |first: u8| buckets.of(&Sha256Hash::from_bytes([first; 32]));
        assert_eq!((bucket(0), bucket(255)), (0, 6));
        assert!((0..255).all(|first| bucket(first) <= bucket(first + 1)));
    }
}
