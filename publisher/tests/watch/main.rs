//! `watch` against a real Redis, with a database in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod changes;
mod crashes;
mod document_source;
mod documents;
mod etags;
mod failover;
mod failures;
mod file;
mod held_back;
mod inherited;
mod instance;
mod kept;
mod published;
mod reports;
#[allow(dead_code)]
#[path = "../program/support.rs"]
mod support;
