//! What a look-up did not bring, a short time ago.
//!
//! In the memory of one worker and never in shared data: anybody can ask for what does not exist, and
//! shared data never shrinks.

use std::time::Duration;

use super::lookup::Asked;
use crate::recent::Recent;
use crate::redis::Failure;
use crate::time::Monotonic;

/// Most that is remembered at once; about 400 KB when it is in use.
const SIZE: usize = 4_096;

/// Why a look-up brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// PostHog's cache does not hold it.
    NotFound,
    /// What PostHog's cache holds cannot be read, which says nothing of whether it is valid.
    Unreadable,
    /// It is not known what PostHog's cache holds.
    Failed(Failure),
}

/// What a look-up did not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Whether that is the token.
    pub token: bool,
    /// Whether that is the credential.
    pub bearer: bool,
    /// Why.
    pub why: Why,
}

impl Miss {
    /// A look-up that brought nothing at all.
    pub const fn failed(failure: Failure) -> Self {
        Self {
            token: true,
            bearer: true,
            why: Why::Failed(failure),
        }
    }
}

/// Look-ups that brought less than was asked for, each remembered for a short time.
#[derive(Clone, Debug)]
pub struct Misses(Recent<Asked, Miss>);

impl Misses {
    /// Nothing yet; what is noted is forgotten after `negative_ttl`. Somebody may be refused because of it, so
    /// it is never remembered for longer than `refuse_max_age`.
    pub fn new(negative_ttl: Duration, refuse_max_age: Duration) -> Self {
        Self(Recent::new(SIZE, negative_ttl.min(refuse_max_age)))
    }

    /// Remembers what a look-up did not bring.
    pub fn note(&mut self, asked: Asked, miss: Miss, now: Monotonic) {
        self.0.note(asked, miss, now);
    }

    /// What the same look-up did not bring a short time ago.
    pub fn get(&self, asked: &Asked, now: Monotonic) -> Option<Miss> {
        self.0.get(asked, now).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Sha256Hash;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn asked(token: &str, bearer: &str) -> Asked {
        Asked {
            token: Some(Sha256Hash::of(token.as_bytes())),
            bearer: Some(Sha256Hash::of(bearer.as_bytes())),
        }
    }

    const NOT_FOUND: Miss = Miss {
        token: true,
        bearer: true,
        why: Why::NotFound,
    };

    #[test]
    fn a_miss_is_of_a_token_with_a_credential_and_says_why() {
        let (start, later) = (Monotonic::from_millis(0), Monotonic::from_millis(1_000));
        let mut misses = Misses::new(Duration::from_secs(1), Duration::from_secs(5));
        let failed = Miss::failed(Failure::Timeout);
        misses.note(asked("a", "x"), NOT_FOUND, start);
        misses.note(asked("b", "x"), failed, start);
        assert_eq!(misses.get(&asked("a", "x"), start), Some(NOT_FOUND));
        assert_eq!(misses.get(&asked("b", "x"), start), Some(failed));
        assert_eq!(misses.get(&asked("a", "y"), start), None);
        assert_eq!(misses.get(&asked("x", "a"), start), None);
        let token_only = Asked {
            bearer: None,
            ..asked("a", "x")
        };
        assert_eq!(misses.get(&token_only, start), None);
        assert_eq!(misses.get(&asked("a", "x"), later), None);
    }

    #[test]
    fn a_miss_is_not_remembered_for_longer_than_somebody_may_be_refused() {
        let at = Monotonic::from_millis;
        let mut misses = Misses::new(Duration::from_secs(60), Duration::from_secs(5));
        misses.note(asked("a", "x"), NOT_FOUND, at(0));
        assert_eq!(misses.get(&asked("a", "x"), at(4_999)), Some(NOT_FOUND));
        assert_eq!(misses.get(&asked("a", "x"), at(5_000)), None);
    }
}
