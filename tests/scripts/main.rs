//! The scripts of the quota and its latch, in a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]
#![cfg(not(target_arch = "wasm32"))]

mod latch;
mod pair;
mod reader;
#[path = "../real_redis/mod.rs"]
mod real_redis;
mod stored;
