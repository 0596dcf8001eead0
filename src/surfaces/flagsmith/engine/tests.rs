//! What holds across the engine.

mod bodies;
mod cases;
#[cfg(not(target_arch = "wasm32"))]
mod differential;
mod documents;
mod harm;
mod operators;
mod slices;
mod support;
