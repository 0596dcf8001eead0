//! Unpredictable numbers: random keys of a hasher, without a dependency that Envoy's WASI does not load.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Eight random bytes.
pub fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
