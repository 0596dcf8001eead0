//! Answers PostHog's `/flags/definitions` inside Envoy.
//!
//! # The map
//! | room | job |
//! |---|---|
//! | [`config`] | plugin configuration (JSON) → validated settings |
//! | [`request`] | what a request asks: route, method, token, credential, validators |
//! | [`pipeline`] | the order of checks; the only place that knows it |
//! | [`reply`] | every answer the filter can give, as data |
//! | [`directory`] | who may read what: records, buckets, access rules |
//! | [`snapshot`] | source document, manifest, pages, and the loader as a state machine |
//! | [`definitions`] | the payload: keys, the (ETag, payload) pair, confirmed ETags |
//! | [`redis`] | commands as data → one HTTP dialect per gateway → replies |
//! | [`shared`] | the contract of Envoy's shared data, and its keys |
//! | [`metrics`] | every metric name, once |
//! | [`time`] | the clock of ages and deadlines, and the wall clock |
//! | [`usage`] | counting what is billed, and bringing it to Redis once |
//! | `host` | the shell: the only room that imports `proxy_wasm` |
//!
//! # How a request walks
//! `host::stream` reads the headers once, as bytes; [`request::Request::parse`] says what is asked;
//! [`pipeline::start`] answers, forwards, or names what must be read from Redis; `host::flights` reads
//! it once for everybody who waits for the same; [`pipeline::resume`] answers.
//!
//! Every room but `host` is pure: plain data in, plain data out, time as an argument. The publisher
//! and the tests under Node use the crate without `host`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

pub mod config;
pub mod definitions;
pub mod directory;
pub mod metrics;
pub mod pipeline;
pub mod redis;
pub mod reply;
pub mod request;
pub mod shared;
pub mod snapshot;
pub mod time;
pub mod usage;

// Only the shell calls all of it.
#[allow(dead_code)]
mod faults;
mod json;
// Natively only tests have a host: the fake one behind `host::abi`.
#[cfg(all(feature = "host", any(target_arch = "wasm32", test)))]
mod host;
