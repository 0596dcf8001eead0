//! The shell: the only room that imports `proxy_wasm`.
//!
//! It translates: header maps → [`Request`](crate::surfaces::posthog::request::Request), [`Step`](crate::surfaces::posthog::pipeline::Step) →
//! host calls. [`abi`] declares the host functions and returns every status; [`sdk`] hands the SDK's
//! callbacks to [`root`], [`plugin`], [`stream`] and [`health`], which natively run against a fake host.
//!
//! Rules of the host that shape this room:
//! - A trap takes the VM of a worker down, so nothing here may panic; a `RefCell` is only ever tried.
//! - The SDK delivers a callout's reply to the stream that asked. It is lost with that stream, so the root
//!   context sends again on its tick ([`flights`]).
//! - Envoy nests local replies, so one callback gives a bounded number of answers ([`backlog`]).
//! - During a configuration update two root contexts live in one VM and both tick ([`registry`]).

mod abi;
mod access;
mod allocator;
mod backlog;
mod callouts;
mod chores;
mod clusters;
#[cfg(test)]
mod fake;
mod flights;
mod health;
mod loading;
mod logger;
mod plugin;
mod random;
mod recorder;
mod registry;
mod respond;
mod root;
#[cfg(target_arch = "wasm32")]
mod sdk;
mod store;
mod stream;
mod wire;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static MEMORY: allocator::SmallBlocks<std::alloc::System> =
    allocator::SmallBlocks::new(std::alloc::System);

#[cfg(test)]
mod tests;
