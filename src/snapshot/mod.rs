//! The snapshot: who may read, as published to Redis and loaded into shared data.
//!
//! What a person writes is a surface's; [`page`], [`manifest`] and [`change`] are what the publisher writes to
//! Redis; [`loader`] brings them into shared data, one loader per Envoy process ([`crate::shared::lease`]): it asks with
//! [`poll`], loads whole snapshots, and keeps its place in the stream of changes ([`follow`]). [`status`] is what every
//! worker then knows. Whoever tests what reads a snapshot takes the publisher in memory of `testing`.

pub mod attempt;
pub mod change;
pub mod counts;
pub mod event;
pub mod follow;
mod incoming;
mod job;
mod known;
mod load;
pub mod loader;
pub mod manifest;
mod pace;
pub mod page;
pub mod poll;
pub mod settings;
pub mod status;
// What is built for Envoy publishes nothing.
#[cfg(any(test, not(target_arch = "wasm32")))]
pub mod testing;

pub use job::LoaderJob;
pub use known::KnownStatus;
