//! What a worker remembers of whom it admitted, and that it remembers no refusal.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Counts the look-ups of records.
struct Counting<'a>(&'a MemoryStore, RefCell<u32>);

impl Store for Counting<'_> {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        *self.1.borrow_mut() += u32::from(key.contains(":b:"));
        self.0.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        self.0.replace(key, value, cas)
    }
}

#[test]
fn who_asks_again_is_admitted_without_a_look_and_only_while_the_snapshot_counts() {
    for (token, bearer) in [
        ("?token=phc_one", "phs_one"),
        ("?token=phc_one", "phx_ok"),
        ("", "phs_one"),
    ] {
        let mut world = world("{}");
        let request = get(token, bearer, "");
        let looks = |world: &World| {
            let store = Counting(&world.store, RefCell::default());
            let (step, observed) = world.step_over(&store, &request);
            {
                let status = match &step {
                    Step::Read(_) => 200,
                    step => status_of(step),
                };
                (status, observed.auth.is_some(), store.1.into_inner())
            }
        };
        let (status, admitted, first) = looks(&world);
        assert!(status == 200 && admitted && first > 0);
        assert_eq!(looks(&world), (200, true, 0), "{bearer}");
        world.freshness = Freshness::Aging;
        assert_eq!(looks(&world), (200, true, 0));
        world.freshness = Freshness::Expired;
        assert_eq!(looks(&world), (503, false, 0));
        world.freshness = Freshness::Current;
        world.put_as_of(Sha256Hash::of(bearer.as_bytes()), 2, &Record::Tombstone);
        world.now = world.now.plus(Duration::from_millis(10));
        assert_eq!(looks(&world).0, 401);
    }
}

#[test]
fn a_refusal_is_looked_up_each_time() {
    let world = world("{}");
    let request = get("?token=phc_one", "phs_two", "");
    for _ in 0..2 {
        let store = Counting(&world.store, RefCell::default());
        assert_eq!(status_of(&world.step_over(&store, &request).0), 401);
        assert_eq!(store.1.into_inner(), 2);
    }
}

#[test]
fn shared_data_that_fails_is_an_outage_and_not_a_refusal() {
    let world = world("{}");
    let request = get("?token=phc_one", "phs_one", "");
    let (step, _) = world.step_over(&Broken, &request);
    assert_eq!(status_of(&step), 503);
}
