//! The proxy-wasm shell: the only room that imports `proxy_wasm`.
//!
//! It translates: header maps → a surface's request, a [`crate::http::Response`] → host calls. [`abi`] declares the host
//! functions and returns every status; [`sdk`] hands the SDK's callbacks to [`root`] and [`stream`]; [`shell`] is the
//! [`crate::worker::host::Host`] that the worker asks. Natively they run against a fake host.
//!
//! Rules of the host that shape this room:
//! - A trap takes the VM of a worker down, so nothing here may panic; a `RefCell` is only ever tried.
//! - The SDK delivers a callout's reply to the context that made it, and drops it when that context is gone
//!   ([`shell::WasmHost::gone`]).
//! - During a configuration update two root contexts live in one VM and both tick ([`crate::worker::registry`]).

mod abi;
mod allocator;
#[cfg(test)]
mod fake;
mod logger;
mod random;
mod respond;
mod root;
#[cfg(target_arch = "wasm32")]
mod sdk;
mod shell;
mod store;
mod stream;
mod wire;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static MEMORY: allocator::SmallBlocks<std::alloc::System> =
    allocator::SmallBlocks::new(std::alloc::System);

#[cfg(test)]
mod tests;
