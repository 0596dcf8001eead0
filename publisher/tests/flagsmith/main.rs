//! The source that follows Flagsmith, against a server of the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod failures;
mod followed;
mod keys;
mod many;
mod origins;
mod pages;
mod stub;
mod tls;
mod usage;
mod validators;
