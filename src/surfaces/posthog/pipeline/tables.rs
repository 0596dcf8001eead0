//! The tables of shared data that requests look at.

use crate::limits;
use crate::records::Buckets;
use crate::shared::Scope;
use crate::surfaces::posthog::definitions::ConfirmedSlots;
use crate::surfaces::posthog::read_through::table;

/// Their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Records of the snapshot.
    pub buckets: Buckets,
    /// ETags that callouts confirmed.
    pub confirmed: ConfirmedSlots,
    /// What teams owe of their rate limits.
    pub limits: limits::Slots,
    /// Teams and credentials that were looked up.
    pub identities: table::Slots,
}

impl Tables {
    /// Those of a scope, with so many buckets.
    pub fn new(scope: &Scope, buckets: u32) -> Self {
        let buckets = Buckets::new(scope, buckets);
        Self {
            confirmed: ConfirmedSlots::new(&buckets),
            limits: limits::Slots::new(scope),
            identities: table::Slots::new(scope),
            buckets,
        }
    }
}
