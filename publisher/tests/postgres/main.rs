//! PostHog's database, against a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod announcements;
mod connections;
mod ear;
mod notifications;
mod reading;
mod support;
mod triggers;
