//! Who does a piece of work for the whole process: one VM at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shared::{Held, Store, StoreError, Update, update};
use crate::time::Monotonic;

/// How long a lease holds without being renewed. Its owner renews at every tick (1 s at most).
pub const TERM: Duration = Duration::from_secs(3);

/// How long a VM that serves requests leaves a free lease to those that serve none: Envoy keeps such a VM on
/// its main thread, where loading disturbs nobody.
pub const DEFERENCE: Duration = Duration::from_millis(1_500);

/// The entry in shared data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    owner: u64,
    expires_at: u64,
}

/// How the lease came to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It was free.
    Taken,
    /// It was held already.
    Renewed,
    /// Another owner has it, or may have it first.
    Denied,
}

/// Takes or renews the lease of this name. Absent bytes are an expired lease.
///
/// # Errors
/// When shared data fails: then nobody holds it.
pub fn acquire(
    store: &impl Store,
    name: &str,
    owner: u64,
    serves_requests: bool,
    now: Monotonic,
) -> Result<Hold, StoreError> {
    let mut hold = Hold::Denied;
    let written = update(store, name, |current| {
        let lease: Lease = serde_json::from_slice(current).unwrap_or_default();
        let ours = lease.owner == owner;
        let free_for = now.since(Monotonic::from_millis(lease.expires_at));
        let expired = now.as_millis() >= lease.expires_at;
        hold = if ours {
            Hold::Renewed
        } else if expired && (!serves_requests || free_for >= DEFERENCE) {
            Hold::Taken
        } else {
            Hold::Denied
        };
        (hold != Hold::Denied).then(|| {
            encode(&Lease {
                owner,
                expires_at: now.plus(TERM).as_millis(),
            })
        })?
    })?;
    Ok(match written {
        Update::Written => hold,
        Update::Unchanged | Update::Contended => Hold::Denied,
    })
}

/// Lets go of the lease, if `owner` holds it, so that a VM which serves no request can take it at once.
///
/// # Errors
/// When shared data fails: then it expires.
pub fn release(
    store: &impl Store,
    name: &str,
    owner: u64,
    now: Monotonic,
) -> Result<bool, StoreError> {
    let update = update(store, name, |current| {
        let lease: Lease = serde_json::from_slice(current).ok()?;
        (lease.owner == owner).then(|| {
            encode(&Lease {
                owner: 0,
                expires_at: now.as_millis(),
            })
        })?
    })?;
    Ok(update == Update::Written)
}

fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

/// One worker's hold on a lease, over time.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    owner: u64,
    /// The lease was left to others once.
    stepped_aside: bool,
}

impl Holder {
    /// A worker that holds nothing yet. `owner` tells it from all others of the process.
    pub fn new(owner: u64) -> Self {
        Self {
            owner: owner.max(1),
            stepped_aside: false,
        }
    }

    /// Takes or renews the lease of this name. With `steps_aside`, a VM that serves requests leaves it to others once,
    /// unless it waited for them before it took it.
    ///
    /// ```
    /// use flag_definitions_filter::shared::{Held, MemoryStore, lease::Holder};
    /// use flag_definitions_filter::time::Monotonic;
    /// let store = MemoryStore::default();
    /// let (mut one, mut other) = (Holder::new(1), Holder::new(2));
    /// let mut hold = |who: &mut Holder, millis| {
    ///     who.hold(&store, "lease", false, false, Monotonic::from_millis(millis))
    /// };
    /// assert_eq!(hold(&mut one, 0), Held::Yes);
    /// assert_eq!(hold(&mut other, 2_999), Held::No);
    /// assert_eq!(hold(&mut other, 3_000), Held::Yes, "it was not renewed for its term");
    /// assert_eq!(hold(&mut one, 3_001), Held::No);
    /// ```
    pub fn hold(
        &mut self,
        store: &impl Store,
        name: &str,
        serves_requests: bool,
        steps_aside: bool,
        now: Monotonic,
    ) -> Held {
        match acquire(store, name, self.owner, serves_requests, now) {
            // It let the others go first before it took the lease.
            Ok(Hold::Taken) => self.stepped_aside |= serves_requests,
            Ok(Hold::Renewed) => {}
            Ok(Hold::Denied) => return Held::No,
            Err(_) => return Held::Failed,
        }
        if steps_aside && serves_requests && !self.stepped_aside {
            self.stepped_aside = true;
            self.release(store, name, now);
            return Held::No;
        }
        Held::Yes
    }

    /// Lets go of it. If it cannot be released, it runs out.
    pub fn release(&self, store: &impl Store, name: &str, now: Monotonic) {
        let _ = release(store, name, self.owner, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::MemoryStore;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NAME: &str = "lease";

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(10_000 + millis)
    }

    fn hold(store: &MemoryStore, owner: u64, serves: bool, millis: u64) -> Hold {
        acquire(store, NAME, owner, serves, at(millis)).unwrap()
    }

    #[test]
    fn one_owner_at_a_time() {
        let store = MemoryStore::default();
        for (owner, millis, expected) in [
            (1, 0, Hold::Taken),
            (2, 2_999, Hold::Denied),
            (1, 2_999, Hold::Renewed),
            (2, 5_998, Hold::Denied),
            (2, 5_999, Hold::Taken),
            (1, 6_000, Hold::Denied),
        ] {
            assert_eq!(
                hold(&store, owner, false, millis),
                expected,
                "{owner} {millis}"
            );
        }
    }

    #[test]
    fn a_vm_that_serves_requests_lets_others_go_first() {
        let store = MemoryStore::default();
        assert_eq!(hold(&store, 1, true, 0), Hold::Taken);
        assert!(release(&store, NAME, 1, at(100)).unwrap());
        assert_eq!(hold(&store, 1, true, 200), Hold::Denied);
        assert_eq!(hold(&store, 2, false, 200), Hold::Taken);
        assert!(!release(&store, NAME, 1, at(300)).unwrap());
        // Nobody else is there: it takes the lease after all.
        assert!(release(&store, NAME, 2, at(400)).unwrap());
        assert_eq!(hold(&store, 1, true, 1_800), Hold::Denied);
        assert_eq!(hold(&store, 1, true, 1_900), Hold::Taken);
    }
}
