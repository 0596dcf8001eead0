//! The tables of shared data that requests look at.

use crate::limits::budgets;
use crate::records::Buckets;
use crate::shared::{Scope, Table};
use crate::surfaces::posthog::read_through::table;

/// Their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Records of the snapshot.
    pub buckets: Buckets,
    /// What teams owe of their rate limits.
    pub limits: Table,
    /// Teams and credentials that were looked up.
    pub identities: Table,
}

impl Tables {
    /// Those of a scope, with so many buckets.
    pub fn new(scope: &Scope, buckets: u32) -> Self {
        let buckets = Buckets::new(scope, buckets);
        Self {
            limits: budgets::slots(scope),
            identities: table::slots(scope),
            buckets,
        }
    }
}
