//! Several VMs of which one loads: leases, and owners that vanish or were only held up.

use super::*;
use crate::snapshot::attempt::Place;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_owner_that_was_held_up_does_not_announce_what_is_live_already() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    publish(&mut redis, 1, 100, &["a"]);
    let (mut slow, mut other) = (process.loader(1), process.loader(2));
    run_to(&mut process, &mut slow, &redis, &mut Vec::new(), |state| {
        matches!(state, Step::Checking(..))
    });
    process.now += 3_000;
    process.run(&mut other, &redis);
    let mut events = Vec::new();
    slow.go_on_loading(&process.store, process.now(), &mut events);
    assert_eq!(events, [LoaderEvent::LeaseLost]);
    assert_eq!(process.status().applying, None);
}

#[test]
fn when_all_vms_serve_one_of_them_loads_without_passing_the_lease_around() {
    for seed in 0..20 {
        let (process, mut redis) = (Process::new(), Publisher::default());
        publish(&mut redis, 1, 100, &["a"]);
        let mut loaders: Vec<LeasedLoader> = (1..=32).map(|owner| process.loader(owner)).collect();
        // The owner that served nobody is gone; its lease has just run out.
        assert!(
            lease::acquire(
                &process.store,
                &lease_name(process.buckets().scope()),
                99,
                false,
                process.now()
            )
            .is_ok()
        );
        let mut first = None;
        'time: for step in 0..2_000u64 {
            let now = Monotonic::from_millis(process.now + 3_000 + step * 10);
            for (index, loader) in loaders.iter_mut().enumerate() {
                // Each VM ticks once a second, at a moment of its own.
                if (step + index as u64 * 37 + seed * 13).is_multiple_of(100)
                    && loader
                        .tick(&process.store, now, true, &mut Vec::new())
                        .is_some()
                {
                    first = Some(step * 10);
                    break 'time;
                }
            }
        }
        assert!(
            first.is_some_and(|millis| millis <= 3_500),
            "seed {seed}: {first:?} ms"
        );
    }
}

#[test]
fn a_loader_that_is_stopped_or_held_up_is_not_taken_for_one_that_trapped() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    publish_many(&mut redis, 1, "a");
    for owner in 1..8 {
        let mut loader = process.loader(owner);
        let mut events = Vec::new();
        run_to(&mut process, &mut loader, &redis, &mut events, |state| {
            matches!(state, Step::Applying(..))
        });
        // The next slice leaves its note.
        loader.tick(&process.store, process.now(), false, &mut events);
        if owner % 2 == 0 {
            loader.stop(&process.store, process.now(), &mut events);
        } else {
            process.now += 3_000;
            let mut other = process.loader(owner + 100);
            other.tick(&process.store, process.now(), false, &mut events);
            loader.tick(&process.store, process.now(), false, &mut events);
            other.stop(&process.store, process.now(), &mut events);
        }
        assert!(
            events.contains(&LoaderEvent::LeaseLost) && !events.contains(&LoaderEvent::MarkedBad)
        );
    }
    let mut last = process.loader(99);
    process.run(&mut last, &redis);
    process.run(&mut last, &redis);
    assert_eq!(process.generation(), Some(1));
}

#[test]
fn one_of_two_loads() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    publish(&mut redis, 1, 100, &["a"]);
    let (mut first, mut second) = (process.loader(1), process.loader(2));
    let mut commands = [0, 0];
    for _ in 0..300 {
        for (index, loader) in [&mut first, &mut second].into_iter().enumerate() {
            let mut events = Vec::new();
            let now = Monotonic::from_millis(process.now);
            if let Some(command) = loader.tick(&process.store, now, false, &mut events) {
                commands[index] += 1;
                loader.reply(&process.store, Ok(redis.reply(&command)), &mut events);
            }
        }
        process.now += 10;
    }
    assert!(commands[0] > 0 && commands[1] == 0, "{commands:?}");
    // The owner vanishes; after its lease the other goes on.
    process.now += 3_000;
    publish(&mut redis, 2, 200, &["b"]);
    process.run(&mut second, &redis);
    assert!(process.knows("b"));
}

#[test]
fn owners_that_vanish_at_the_same_record_mark_the_snapshot_bad() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    publish(&mut redis, 1, 100, &["a"]);
    let mut healthy = process.loader(1);
    process.run(&mut healthy, &redis);
    drop(healthy);
    publish(&mut redis, 2, 200, &["b"]);
    for owner in 2..4 {
        process.now += 3_000;
        let mut loader = process.loader(owner);
        let mut events = Vec::new();
        // It traps inside its first slice: what it noted stays, what it did afterwards is not.
        run_to(&mut process, &mut loader, &redis, &mut events, |state| {
            matches!(state, Step::Applying(..))
        });
        let scope = loader.buckets.scope().clone();
        let load = loader.load.as_mut().unwrap();
        let Step::Applying(page, cursor) = &load.step else {
            panic!("not applying")
        };
        let place = Place {
            page: *page,
            offset: cursor.position().offset,
        };
        load.attempt
            .note(&process.store, &attempt::name(&scope), place)
            .unwrap();
        assert_eq!(events, [LoaderEvent::Started], "owner {owner}");
    }
    process.now += 3_000;
    let mut fourth = process.loader(4);
    assert_eq!(process.run(&mut fourth, &redis), [LoaderEvent::MarkedBad]);
    assert_eq!(process.run(&mut fourth, &redis), []);
    assert!(process.knows("a") && !process.knows("b"));
    publish(&mut redis, 3, 300, &["c"]);
    assert_eq!(
        process.run(&mut fourth, &redis),
        [LoaderEvent::Started, LoaderEvent::Loaded]
    );
    assert!(process.knows("c"));
}

#[test]
fn an_owner_that_was_held_up_does_not_bring_an_older_snapshot_back() {
    let (mut process, mut old) = (Process::new(), Publisher::default());
    publish(&mut old, 1, 100, &["old"]);
    let mut slow = process.loader(1);
    let mut events = Vec::new();
    run_to(&mut process, &mut slow, &old, &mut events, |state| {
        matches!(state, Step::Sweeping(..))
    });
    // Its lease runs out inside its last slice; another VM loads what is newer.
    process.now += 3_000;
    let (mut other, mut new) = (process.loader(2), Publisher::default());
    publish(&mut new, 2, 200, &["new"]);
    process.run(&mut other, &new);
    slow.go_on_loading(&process.store, process.now(), &mut events);
    assert_eq!(process.generation(), Some(2));
    assert!(process.knows("new"));
}

#[test]
fn a_vm_that_serves_requests_steps_aside_once() {
    let (mut process, mut redis) = (Process::new(), Publisher::default());
    publish(&mut redis, 1, 100, &["a"]);
    let (mut busy, mut idle) = (process.loader(1), process.loader(2));
    process.run(&mut busy, &redis);
    let mut events = Vec::new();
    assert!(
        busy.tick(&process.store, process.now(), true, &mut events)
            .is_none()
    );
    process.now += 10;
    assert!(
        idle.tick(&process.store, process.now(), false, &mut events)
            .is_some()
    );
    process.now += 10_000;
    // Nobody else is there any more: it loads although it serves.
    assert!(
        busy.tick(&process.store, process.now(), true, &mut events)
            .is_some()
    );
}
