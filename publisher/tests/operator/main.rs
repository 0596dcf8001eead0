//! `watch`, `diff` and `inspect` together, as an operator uses them: against a real Postgres and a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

#[path = "../program/certificates.rs"]
mod certificates;
mod commands;
#[path = "../postgres/support.rs"]
mod database;
mod doubts;
#[path = "../program/support.rs"]
mod support;
mod watcher;
