//! Answers PostHog's `/flags/definitions`, Flagsmith's Edge Proxy API and OFREP inside Envoy.
//!
//! # The map
//! | room | job |
//! |---|---|
//! | [`time`], [`tenant`], [`hash`], [`json`], `labels` | clocks; whose flags; SHA-256 and its memory; errors that say where they are; names of an enum's values |
//! | [`redis`] | commands as data → one HTTP dialect per gateway → replies |
//! | [`shared`] | the contract of Envoy's shared data, its names, and who works for the whole process ([`shared::lease`]) |
//! | [`recent`] | a small memory of what happened a short time ago |
//! | [`http`] | what RFC 9110, Fetch and WHATWG URL say: entity tags, `If-None-Match`, `Accept-Encoding`, methods, CORS, query |
//! | [`records`] | records by hash in buckets of shared data: bytes, and as of when they are true |
//! | [`limits`] | rate limits: GCRA for each tenant, and small budgets of a worker's own |
//! | [`usage`] | a ledger of counts, which reach Redis exactly once |
//! | [`snapshot`] | manifest, pages and changes, and the loader as a state machine |
//! | [`documents`] | what each tenant's flags are: when a version is current, what is kept, gzip, proof |
//! | [`surfaces`] | one product's API each, over the same machinery; two of them as one ([`surfaces::Pair`]) |
//! | [`surfaces::posthog`] | PostHog's: request, checks, answers, payload, quota, billing, read-through, rebuild; with a map of its own |
//! | `surfaces::evaluated` | what surfaces share that evaluate flags: documents, compiled and kept; refusals; kept answers; with a map of its own |
//! | `surfaces::flagsmith` | Flagsmith's (feature `flagsmith`): request, keys, answers, rules (its engine), health; with a map of its own |
//! | `surfaces::ofrep` | OFREP's (feature `ofrep`): request, keys, answers, flagd's rules, health; with a map of its own |
//! | [`config`] | plugin configuration (JSON) → validated settings |
//! | [`metrics`] | every metric name, once |
//! | [`worker`] | what one worker does, whatever the shell and the surface: serving, bodies, shared reads, loader and jobs, log, health |
//! | `wasm` | the proxy-wasm shell: the only room that imports `proxy_wasm` |
//!
//! A room imports from those above it (`tests/floors.rs`). `docs/glossary.md` has the words.
//!
//! # How a request walks
//! `wasm::stream` reads the headers once, as bytes, and hands them to the worker's [`surface`](surfaces::Surface), which says
//! what is asked ([`parse`](surfaces::Surface::parse)) and decides ([`start`](surfaces::Surface::start)): it answers, forwards,
//! names what must be read first, or asks for the request's body, with which it goes on ([`body`](surfaces::Surface::body)).
//! [`worker`] reads that once for everybody who waits for the same. The surface takes the reply once
//! ([`landed`](surfaces::Surface::landed)) and goes on with each request ([`resume`](surfaces::Surface::resume)).
//! An answer that was sent is counted and billed ([`sent`](surfaces::Surface::sent)); a [`job`](shared::Job) brings the counts
//! to Redis on a later tick, so that no request waits for it. `docs/request.md` has the steps, with a picture.
//!
//! Every room but [`worker`] and `wasm` is pure: plain data in, plain data out, time as an argument. [`worker`] asks its
//! shell for all else ([`Host`](worker::host::Host)). The publisher and the tests under Node use the crate without `wasm`.

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
pub mod documents;
pub mod hash;
pub mod http;
pub mod json;
mod labels;
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
pub mod worker;

// Natively only tests have this shell, before a fake host.
#[cfg(all(feature = "host", any(target_arch = "wasm32", test)))]
mod wasm;
