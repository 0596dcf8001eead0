//! Answers PostHog's `/flags/definitions` inside Envoy.
//!
//! # The map
//! | room | job |
//! |---|---|
//! | [`config`] | plugin configuration (JSON) → validated settings |
//! | [`request`] | what a request asks: route, method, token, credential, validators |
//! | [`pipeline`] | the order of checks; the only place that knows it |
//! | [`reply`] | every answer the filter can give, as data |
//! | [`hash`], [`tenant`], [`time`], [`json`] | SHA-256 and its memory; whose flags; two clocks; documents whose errors say where they are |
//! | [`http`] | what RFC 9110 says: entity tags, `If-None-Match`, `Accept-Encoding`, methods, query |
//! | [`records`] | bytes that are read front to back, and as of when they are true |
//! | [`directory`] | who may read what: records, buckets, access rules |
//! | [`snapshot`] | source document, manifest, pages, and the loader as a state machine |
//! | [`identity`] | read-through of PostHog's own cache of teams and checked credentials |
//! | [`limits`] | rate limits, and whose quota is used up |
//! | [`definitions`] | the payload: encodings, the (ETag, payload) pair, kept bodies, the quota latch, the object store |
//! | [`usage`] | counting what is billed, and bringing it to Redis once |
//! | [`signal`] | asks for a rebuild of a payload that is missing |
//! | [`redis`] | commands as data → one HTTP dialect per gateway → replies |
//! | [`shared`] | the contract of Envoy's shared data, its keys, and who works for the whole process ([`shared::lease`]) |
//! | [`recent`] | a small memory of what happened a short time ago |
//! | [`metrics`] | every metric name, once |
//! | `host` | the shell: the only room that imports `proxy_wasm` |
//!
//! # How a request walks
//! `host::stream` reads the headers once, as bytes; [`request::Request::parse_with`] says what is asked;
//! [`pipeline::start`] answers, forwards, or names what must be read from Redis; `host::flights` reads
//! it once for everybody who waits for the same; [`pipeline::resume`] answers. What is billed or missing is
//! noted there; `host::chores` sends it on a later tick, so that no request waits for it.
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
pub mod hash;
pub mod http;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod recent;
pub mod records;
pub mod redis;
pub mod shared;
pub mod snapshot;
pub mod surfaces;
pub mod tenant;
pub mod time;
pub mod usage;

// Only the shell calls all of it.
#[allow(dead_code)]
mod faults;
// Natively only tests have a host: the fake one behind `host::abi`.
#[cfg(all(feature = "host", any(target_arch = "wasm32", test)))]
mod host;
