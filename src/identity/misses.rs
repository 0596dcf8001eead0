//! What a look-up brought nothing for, a short time ago.
//!
//! In the memory of one worker and never in shared data: anybody can ask for what does not exist, and
//! shared data never shrinks.

use std::time::Duration;

use super::need::Asked;
use crate::recent::Recent;
use crate::redis::Failure;
use crate::time::Monotonic;

/// Most that is remembered at once; about 400 KB when it is in use.
const SIZE: usize = 4_096;

/// Why a look-up brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// PostHog's cache does not hold what the request needs.
    NotFound,
    /// It is not known whether it does.
    Failed(Failure),
}

/// Look-ups that brought nothing, each remembered for the negative time to live.
#[derive(Clone, Debug)]
pub struct Misses(Recent<Asked, Miss>);

impl Misses {
    /// Nothing yet; what is noted is forgotten after `negative_ttl`.
    pub const fn new(negative_ttl: Duration) -> Self {
        Self(Recent::new(SIZE, negative_ttl))
    }

    /// Remembers that a look-up brought nothing.
    pub fn note(&mut self, asked: Asked, miss: Miss, now: Monotonic) {
        self.0.note(asked, miss, now);
    }

    /// Whether the same look-up brought nothing a short time ago.
    pub fn get(&self, asked: &Asked, now: Monotonic) -> Option<Miss> {
        self.0.get(asked, now).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Sha256Hash;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn asked(token: &str, bearer: &str) -> Asked {
        Asked {
            token: Some(Sha256Hash::of(token.as_bytes())),
            bearer: Some(Sha256Hash::of(bearer.as_bytes())),
        }
    }

    #[test]
    fn a_miss_is_of_a_token_with_a_credential_and_says_why() {
        let (start, later) = (Monotonic::from_millis(0), Monotonic::from_millis(1_000));
        let mut misses = Misses::new(Duration::from_secs(1));
        misses.note(asked("a", "x"), Miss::NotFound, start);
        misses.note(asked("b", "x"), Miss::Failed(Failure::Timeout), start);
        assert_eq!(misses.get(&asked("a", "x"), start), Some(Miss::NotFound));
        assert_eq!(
            misses.get(&asked("b", "x"), start),
            Some(Miss::Failed(Failure::Timeout))
        );
        assert_eq!(misses.get(&asked("a", "y"), start), None);
        assert_eq!(misses.get(&asked("x", "a"), start), None);
        let token_only = Asked {
            bearer: None,
            ..asked("a", "x")
        };
        assert_eq!(misses.get(&token_only, start), None);
        assert_eq!(misses.get(&asked("a", "x"), later), None);
    }
}
