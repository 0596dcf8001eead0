//! The program as an operator runs it, against a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod failures;
mod hash;
mod publish;
// The tests of `watch` use the rest of it.
#[allow(dead_code)]
mod support;
mod usage;
