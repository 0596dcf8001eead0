//! What clients see: each surface is one product's API over the same machinery.

pub mod posthog;
