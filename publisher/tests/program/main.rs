//! The program as an operator runs it, against a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod certificates;
mod diff;
mod endpoint;
mod failures;
mod flagd;
mod flagd_outages;
mod flagsmith;
#[allow(dead_code)]
#[path = "../flagsmith/stub.rs"]
mod flagsmith_stub;
mod hash;
mod inspect;
mod monitor;
mod publish;
mod published;
mod secrets;
mod several;
// Some of it is for other tests alone.
#[allow(dead_code)]
mod support;
mod tls;
mod usage;
