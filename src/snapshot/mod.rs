//! The snapshot: who may read, as published to Redis and loaded into shared data.
//!
//! [`document`] is what a person writes; [`page`] and [`manifest`] are what the publisher writes to Redis;
//! [`loader`] brings them into shared data, one loader per Envoy process ([`crate::lease`]); [`status`] is what
//! every worker then knows of it.

pub mod attempt;
pub mod change;
pub mod document;
pub mod loader;
pub mod manifest;
pub mod page;
pub mod poll;
pub mod status;
mod stream_id;

pub use stream_id::StreamId;
