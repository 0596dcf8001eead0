//! When a key is refused, and when that is not known.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_key_is_refused_by_fresh_and_complete_knowledge_alone() {
    let mut world = World::new("{}");
    for key in ["nobody", "", "ser.nobody"] {
        assert_eq!(world.get(FLAGS, key), UNKNOWN, "{key}");
    }
    assert_eq!(world.get(WHOLE, "client"), UNKNOWN, "no server-side key");
    assert_eq!(world.get(FLAGS, "client"), Became::Waits(read(None)));
    assert_eq!(world.get(WHOLE, "ser.soon"), Became::Waits(read(None)));
    // The list of keys may lack some.
    world.round(false);
    let unknown = Became::Answered(503, "unknown_credential");
    assert_eq!(world.get(FLAGS, "nobody"), unknown);
    world.round(true);
    assert_eq!(world.get(FLAGS, "nobody"), UNKNOWN);
    world.ambient.0.set(false);
    let without_a_clock = Became::Answered(503, "shared_data");
    assert_eq!(world.get(FLAGS, "nobody"), without_a_clock);
    world.ambient.0.set(true);
    // The publisher was not heard of for longer than a refusal may rest on it.
    world.publish(NOW - 6_000, NOW);
    world.surface.library.status = KnownStatus::default();
    let aging = Became::Answered(503, "snapshot_aging");
    assert_eq!(world.get(FLAGS, "nobody"), aging);
    assert_eq!(world.get(FLAGS, "client"), Became::Waits(read(None)));
}

/// The publisher takes it out when it expires. This clock may be ahead of the publisher's.
#[test]
fn a_key_that_expires_is_refused_by_nobody_s_clock_but_the_publisher_s() {
    let mut world = World::new("{}");
    for key in ["ser.soon", "ser.over"] {
        assert_eq!(world.get(WHOLE, key), Became::Waits(read(None)), "{key}");
    }
    let over = Sha256Hash::of(b"ser.over");
    for (tombstone, expected) in [(false, 503), (true, 503)] {
        // A publisher that is gone cannot take it out.
        world.publish(NOW - 6_000, NOW);
        world.surface.library.status = KnownStatus::default();
        if tombstone {
            world.put(over, &FlagsmithRecord::Tombstone);
            world.surface.directory = KeyDirectory::new(
                Buckets::new(&world.surface.library.scope, 4),
                &world.ambient,
            );
        }
        let Became::Answered(status, _) = world.get(WHOLE, "ser.over") else {
            panic!("it is admitted");
        };
        assert_eq!(status, expected);
        assert_eq!(world.get(WHOLE, "ser.soon"), Became::Waits(read(None)));
    }
    world.publish(NOW, NOW);
    world.surface.library.status = KnownStatus::default();
    assert_eq!(world.get(WHOLE, "ser.over"), UNKNOWN, "it was taken out");
}

#[test]
fn a_key_of_a_kind_that_came_later_is_not_refused() {
    let mut world = World::new("{}");
    world.put_bytes(Sha256Hash::of(b"later"), b"\x1fwhat this build cannot read");
    let unknown = Became::Answered(503, "unknown_credential");
    assert_eq!(world.get(FLAGS, "later"), unknown);
    // Another surface's is no key here.
    world.put_bytes(Sha256Hash::of(b"another"), b"\x20another surface's");
    assert_eq!(world.get(FLAGS, "another"), UNKNOWN);
}

#[test]
fn without_a_source_or_a_snapshot_nobody_is_refused() {
    let mut world = World::new("{}");
    world.put(round_hash(), &FlagsmithRecord::Tombstone);
    let unknown = Became::Answered(503, "unknown_credential");
    assert_eq!(world.get(FLAGS, "nobody"), unknown);
    let mut empty = World::new(r#"{"upstream":"forward"}"#);
    empty.store = MemoryStore::default();
    assert_eq!(
        empty.get(FLAGS, "nobody"),
        Became::Forwarded("snapshot_missing")
    );
    let mut empty = World::new("{}");
    empty.store = MemoryStore::default();
    let missing = Became::Answered(503, "snapshot_missing");
    assert_eq!(empty.get(FLAGS, "client"), missing);
    // What is no key at all is none whatever is known.
    assert_eq!(empty.get(FLAGS, ""), UNKNOWN);
}
