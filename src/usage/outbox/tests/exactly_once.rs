//! Whatever crashes, is lost or comes twice: each request is counted once.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::shared::{Cas, Versioned};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Shared data in which writes are lost to other workers, or fail, as planned.
struct Unsteady {
    inner: MemoryStore,
    plan: RefCell<Vec<u8>>,
}

impl Store for Unsteady {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        self.inner.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        match self.plan.borrow_mut().pop() {
            Some(0..=9) => Err(StoreError { status: 10 }),
            // Somebody else was first, and changed nothing that matters.
            Some(10..=80) => Ok(false),
            _ => self.inner.replace(key, value, cas),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Count {
        vm: usize,
        tenant: u32,
        source: u8,
        field: u32,
    },
    Retry {
        vm: usize,
    },
    Tick {
        vm: usize,
    },
    FlushNow {
        vm: usize,
    },
    Crash {
        vm: usize,
    },
    /// A command arrives; what becomes of its reply.
    Arrive {
        command: usize,
        reply: Fate,
    },
    /// A command is lost on the way.
    Lose {
        command: usize,
    },
    /// A reply that was held up arrives, maybe in another VM's hands.
    LateReply {
        reply: usize,
        vm: usize,
    },
    /// A command that arrived before arrives again.
    Duplicate {
        command: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    Lost,
    HeldUp,
}

const VMS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        3 => Just(Fate::Delivered),
        1 => Just(Fate::Lost),
        1 => Just(Fate::HeldUp)
    ];
    // Tenants 1 and 1025 share a slot.
    let tenant = prop_oneof![Just(1u32), Just(1_025), Just(2), Just(300), Just(900)];
    prop_oneof![
        8 => (0..VMS, tenant, 0u8..3, 0u32..3).prop_map(|(vm, tenant, source, field)| Step::Count {
            vm, tenant, source, field
        }),
        2 => (0..VMS).prop_map(|vm| Step::Retry { vm }),
        6 => (0..VMS).prop_map(|vm| Step::Tick { vm }),
        2 => (0..VMS).prop_map(|vm| Step::FlushNow { vm }),
        1 => (0..VMS).prop_map(|vm| Step::Crash { vm }),
        4 => (any::<usize>(), fate).prop_map(|(command, reply)| Step::Arrive { command, reply }),
        1 => any::<usize>().prop_map(|command| Step::Lose { command }),
        1 => (any::<usize>(), 0..VMS).prop_map(|(reply, vm)| Step::LateReply { reply, vm }),
        2 => any::<usize>().prop_map(|command| Step::Duplicate { command }),
    ]
}

proptest! {
    #[test]
    fn whatever_crashes_is_lost_or_comes_twice_each_request_is_counted_once(
        steps in prop::collection::vec(step(), 0..200),
        plan in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let store = Unsteady { inner: MemoryStore::default(), plan: RefCell::new(plan) };
        let slots = Slots::new("t:");
        let (mut redis, mut tally) = <(Redis, Tally)>::default();
        let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut boxes: Vec<Outbox> = (0..VMS as u8).map(outbox).collect();
        let mut lives = [0u32; VMS];
        let mut unstored: Vec<Unstored> = (0..VMS).map(|_| Unstored::default()).collect();
        // (VM, its life, command) on the way; commands that arrived; replies held up.
        let mut flying: Vec<(usize, u32, Command)> = Vec::new();
        let mut arrived: Vec<Command> = Vec::new();
        let mut held: Vec<Vec<String>> = Vec::new();
        let mut now = 0u64;
        for step in steps {
            now += 1;
            match step {
                Step::Count { vm, tenant, source, field } => {
                    let counter = one(tenant, source, field);
                    unstored[vm].count(&store, &slots, counter, &mut tally);
                    let tenant = Tenant(tenant);
                    for key in [key(tenant), source_key(tenant, source)] {
                        *expected.entry((key, field.to_string())).or_default() += 1;
                    }
                }
                Step::Retry { vm } => unstored[vm].retry(&store, &slots, &mut tally),
                Step::Tick { vm } => {
                    if let Some(command) = boxes[vm].tick(&store, seconds(now), &mut tally) {
                        flying.push((vm, lives[vm], command));
                    }
                }
                Step::FlushNow { vm } => boxes[vm].flush_now(),
                Step::Crash { vm } => {
                    // What it counted and could not store is lost with it, and that is said: not here.
                    boxes[vm] = outbox(10 + vm as u8);
                    lives[vm] += 1;
                }
                Step::Arrive { command, reply } if !flying.is_empty() => {
                    let (vm, life, command) = flying.remove(command % flying.len());
                    let parts = redis.eval(&command);
                    arrived.push(command);
                    let alive = lives[vm] == life;
                    match reply {
                        Fate::Delivered if alive => {
                            answer(&mut boxes[vm], &store, &parts, &mut tally);
                        }
                        Fate::Lost | Fate::HeldUp if alive => {
                            let lost = Err(Failure::Timeout);
                            prop_assert!(boxes[vm].reply(&store, lost, &mut tally).is_err());
                        }
                        _ => {}
                    }
                    if matches!(reply, Fate::HeldUp) {
                        held.push(parts);
                    }
                }
                Step::Lose { command } if !flying.is_empty() => {
                    let (vm, life, command) = flying.remove(command % flying.len());
                    if lives[vm] == life {
                        let lost = Err(Failure::Unavailable);
                        prop_assert!(boxes[vm].reply(&store, lost, &mut tally).is_err());
                    }
                    // It may still arrive later.
                    arrived.push(command);
                }
                Step::LateReply { reply, vm } if !held.is_empty() => {
                    let parts = held.remove(reply % held.len());
                    answer(&mut boxes[vm], &store, &parts, &mut tally);
                }
                Step::Duplicate { command } if !arrived.is_empty() => {
                    redis.eval(&arrived[command % arrived.len()]);
                }
                _ => {}
            }
            prop_assert!(redis.usage().iter().all(|(at, sum)| sum <= &expected[at]));
        }
        store.plan.borrow_mut().clear();
        for waiting in &mut unstored {
            waiting.retry(&store, &slots, &mut tally);
        }
        drain(&mut outbox(99), &store, &mut redis, &mut tally);
        prop_assert_eq!(&redis.usage(), &expected);
        prop_assert_eq!(ledger::unsent(&store, &slots), Ok(0));
        for command in flying.iter().map(|(.., command)| command).chain(&arrived) {
            redis.eval(command);
        }
        prop_assert_eq!(&redis.usage(), &expected);

        let requests: u64 = expected.values().sum::<u64>() / 2;
        prop_assert_eq!(tally.get(State::Counted), requests);
        prop_assert_eq!(tally.get(State::Sent), requests);
        prop_assert_eq!(tally.get(State::Dropped) + tally.get(State::Refused), 0);
        // One process id, so one key of sequences.
        let own = redis.hashes.keys().filter(|key| key.starts_with("p:usage:")).count();
        prop_assert!(own <= 1);
    }
}
