//! Violations of the dependency rule that stand today. The lists only get shorter.

/// Imports to the right: file → room.
pub const IMPORTS: &[&str] = &[];

/// Files left of `surfaces` that name a product.
pub const PRODUCTS: &[&str] = &[
    "src/usage/batch.rs",
    "src/usage/client.rs",
    "src/usage/ledger.rs",
    "src/usage/ledger/tests.rs",
    "src/usage/outbox/tests.rs",
    "src/usage/pending.rs",
];

/// Public type names that are defined more than once.
pub const TYPE_NAMES: &[&str] = &[
    "Batch", "Callout", "Content", "Event", "Need", "Pending", "Progress", "Status",
];
