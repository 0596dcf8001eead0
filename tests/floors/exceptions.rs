//! Violations of the dependency rule that stand today. The lists only get shorter.

/// Imports to the right: file → room.
pub const IMPORTS: &[&str] = &[];

/// Files left of `surfaces` that name a product.
pub const PRODUCTS: &[&str] = &[];

/// Public type names that are defined more than once.
pub const TYPE_NAMES: &[&str] = &["Batch", "Callout", "Content", "Progress", "Status"];
