use super::*;
use crate::shared::{Cas, MemoryStore, Versioned};
use crate::tenant::Tenant;
use crate::time::UnixMillis;
use crate::usage::{Client, Pending, UsageBucket};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What the script does, in memory: by key and field.
#[derive(Default)]
struct Redis {
    hashes: BTreeMap<String, BTreeMap<String, u64>>,
    wrong_type: Option<String>,
}

impl Redis {
    fn eval(&mut self, command: &Command) -> Vec<String> {
        let words: Vec<&str> = command
            .words()
            .into_iter()
            .map(|word| std::str::from_utf8(word).unwrap())
            .collect();
        assert_eq!(words[0], "EVAL");
        let (keys, mut rest) = words[3..].split_at(words[2].parse().unwrap());
        let (mut refused, mut done) = (0, Vec::new());
        while let [slot, sequence, counters, tail @ ..] = rest {
            let number: u64 = sequence.parse().unwrap();
            let (counters, tail) = tail.split_at(4 * counters.parse::<usize>().unwrap());
            rest = tail;
            done.push(format!("{slot}:{sequence}"));
            let seen = self.hash(keys[0]).entry(slot.to_string()).or_default();
            if number <= *seen {
                continue;
            }
            *seen = number;
            for counter in counters.chunks(4) {
                let count: u64 = counter[3].parse().unwrap();
                let mut failed = false;
                for place in &counter[..2] {
                    let key = keys[place.parse::<usize>().unwrap() - 1];
                    if self.wrong_type.as_deref() == Some(key) {
                        failed = true;
                    } else {
                        *self.hash(key).entry(counter[2].to_string()).or_default() += count;
                    }
                }
                refused += if failed { count } else { 0 };
            }
        }
        assert!(rest.is_empty());
        done.insert(0, refused.to_string());
        done
    }

    fn hash(&mut self, key: &str) -> &mut BTreeMap<String, u64> {
        self.hashes.entry(key.to_owned()).or_default()
    }

    /// PostHog's hashes.
    fn usage(&self) -> BTreeMap<(String, String), u64> {
        let hashes = self.hashes.iter();
        hashes
            .filter(|(key, _)| key.starts_with("posthog:"))
            .flat_map(|(key, fields)| {
                fields
                    .iter()
                    .map(|(field, count)| ((key.clone(), field.clone()), *count))
            })
            .collect()
    }
}

fn answer(outbox: &mut Outbox, store: &impl Store, parts: &[String], tally: &mut Tally) {
    let reply = Reply::array(parts.iter().map(|part| part.as_bytes()));
    outbox.reply(store, Ok(reply), tally).unwrap();
}

const INTERVAL: Duration = Duration::from_secs(5);

fn outbox(proposal: u8) -> Outbox {
    Outbox::new(Slots::new("t:"), "p:", INTERVAL, [proposal; 16])
}

fn seconds(seconds: u64) -> Monotonic {
    Monotonic::from_millis(seconds * 1_000)
}

fn wall(minutes: u64) -> UnixMillis {
    UnixMillis::from_millis(minutes * 60_000)
}

/// Ticks until a command comes or there is no work.
fn next(
    outbox: &mut Outbox,
    store: &impl Store,
    now: Monotonic,
    tally: &mut Tally,
) -> Option<Command> {
    let mut command = outbox.tick(store, now, tally);
    while command.is_none() && outbox.is_busy() {
        command = outbox.tick(store, now, tally);
    }
    command
}

/// Sends until everything is in.
fn drain(outbox: &mut Outbox, store: &impl Store, redis: &mut Redis, tally: &mut Tally) {
    let mut rounds = 0;
    outbox.flush_now();
    while outbox.has_unsent() {
        if let Some(command) = next(outbox, store, seconds(0), tally) {
            let reply = redis.eval(&command);
            answer(outbox, store, &reply, tally);
        }
        rounds += 1;
        assert!(rounds < 10_000);
    }
}

fn count(store: &impl Store, team: u32, client: Client, minutes: u64) {
    let (mut pending, mut tally) = (Pending::default(), Tally::default());
    let (slots, now) = (Slots::new("t:"), wall(minutes));
    pending.count(store, &slots, Tenant(team), client, now, &mut tally);
    assert_eq!(tally.get(State::Counted), 1);
}

fn key(team: u32) -> String {
    batch::team_key(Tenant(team))
}

#[test]
fn each_interval_brings_both_hashes_of_each_team() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    for (team, client) in [(1, Client::Go), (1, Client::Go), (2, Client::Other)] {
        count(&store, team, client, 4);
    }
    let command = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    assert_eq!(outbox.tick(&store, seconds(1), &mut tally), None, "waits");
    let reply = redis.eval(&command);
    answer(&mut outbox, &store, &reply, &mut tally);
    assert!(outbox.is_busy() && outbox.has_unsent());
    assert_eq!(next(&mut outbox, &store, seconds(1), &mut tally), None);
    assert!(!outbox.is_busy() && !outbox.has_unsent());
    let sums: Vec<_> = redis.usage().into_iter().collect();
    let at = |key: &str| {
        (
            format!("posthog:local_evaluation_requests:{key}"),
            "2".to_owned(),
        )
    };
    assert_eq!(
        sums,
        [
            (at("1"), 2),
            (at("2"), 1),
            (at("sdk:1:posthog-go"), 2),
            (at("sdk:2:other"), 1),
        ]
    );
    assert_eq!(tally.get(State::Sent), 3);
    assert_eq!(tally.get(State::Resent), 0);

    count(&store, 1, Client::Go, 4);
    assert_eq!(next(&mut outbox, &store, seconds(4), &mut tally), None);
    assert!(next(&mut outbox, &store, seconds(5), &mut tally).is_some());
}

#[test]
fn what_failed_is_sent_again_unchanged_after_the_interval() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    count(&store, 1, Client::Go, 4);
    let first = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    redis.eval(&first);
    assert_eq!(
        outbox.reply(&store, Err(Failure::Timeout), &mut tally),
        Err(Failure::Timeout)
    );
    count(&store, 1, Client::Go, 4);
    assert_eq!(next(&mut outbox, &store, seconds(3), &mut tally), None);
    assert_eq!(next(&mut outbox, &store, seconds(7), &mut tally), None);
    let second = next(&mut outbox, &store, seconds(8), &mut tally).unwrap();
    assert_eq!(first, second);
    assert_eq!(tally.get(State::Resent), 1);
    drop(second);
    let reply = redis.eval(&first);
    answer(&mut outbox, &store, &reply, &mut tally);
    // What was counted meanwhile follows at once.
    let third = next(&mut outbox, &store, seconds(8), &mut tally).unwrap();
    let reply = redis.eval(&third);
    answer(&mut outbox, &store, &reply, &mut tally);
    assert_eq!(redis.usage()[&(key(1), "2".to_owned())], 2);
    assert_eq!(tally.get(State::Sent), 2);
}

#[test]
fn a_late_reply_acknowledges_what_it_names_and_nothing_else() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let slots = Slots::new("t:");
    let mut outbox = outbox(1);
    count(&store, 1, Client::Go, 4);
    let first = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    let late = redis.eval(&first);
    // No reply for so long that the round is given up.
    assert_eq!(next(&mut outbox, &store, seconds(36), &mut tally), None);
    count(&store, 2, Client::Go, 4);
    let second = next(&mut outbox, &store, seconds(41), &mut tally).unwrap();
    assert_ne!(first, second);
    answer(&mut outbox, &store, &late, &mut tally);
    assert!(!outbox.is_busy(), "the second reply is still awaited");
    assert_eq!(ledger::unsent(&store, &slots), Ok(1), "team 2 stays");
    let reply = redis.eval(&second);
    answer(&mut outbox, &store, &reply, &mut tally);
    assert_eq!(ledger::unsent(&store, &slots), Ok(0));
    assert_eq!(redis.usage()[&(key(1), "2".to_owned())], 1);
}

#[test]
fn a_reply_that_is_not_the_scripts_acknowledges_nothing() {
    let (store, mut tally) = <(MemoryStore, Tally)>::default();
    let mut outbox = outbox(1);
    count(&store, 1, Client::Go, 4);
    assert!(next(&mut outbox, &store, seconds(0), &mut tally).is_some());
    assert_eq!(
        outbox.reply(&store, Ok(Reply::Nil), &mut tally),
        Err(Failure::Malformed)
    );
    assert_eq!(ledger::unsent(&store, &Slots::new("t:")), Ok(1));
    assert!(outbox.has_unsent());
}

#[test]
fn a_hash_of_another_type_is_reported_and_keeps_nothing_back() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    redis.wrong_type = Some(key(1));
    count(&store, 1, Client::Go, 4);
    count(&store, 2, Client::Go, 4);
    drain(&mut outbox(1), &store, &mut redis, &mut tally);
    assert_eq!((tally.get(State::Sent), tally.get(State::Refused)), (2, 1));
    assert_eq!(redis.usage()[&(key(2), "2".to_owned())], 1);
}

#[test]
fn more_than_one_command_holds_goes_in_several() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    for team in 0..1_500 {
        count(&store, team, Client::Go, 4);
    }
    for field in 0..300 {
        count(&store, 0, Client::Js, 2 * field);
    }
    let mut commands = 0;
    while let Some(command) = next(&mut outbox, &store, seconds(0), &mut tally) {
        let bytes: usize = command.words().iter().skip(2).map(|word| word.len()).sum();
        assert!(bytes <= 32 * 1024);
        let reply = redis.eval(&command);
        answer(&mut outbox, &store, &reply, &mut tally);
        commands += 1;
    }
    assert!(commands > 3, "{commands}");
    assert!(
        !outbox.has_unsent(),
        "the rest of a long slot followed at once"
    );
    assert_eq!(tally.get(State::Sent), 1_800);
    assert_eq!(tally.get(State::Resent), 0);
}

#[test]
fn a_command_that_always_fails_does_not_keep_the_rest_back() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    for team in 0..1_024 {
        count(&store, team, Client::Go, 4);
    }
    for time in 0..20 {
        let now = seconds(time * 10);
        while let Some(command) = next(&mut outbox, &store, now, &mut tally) {
            if command.words().contains(&key(3).as_bytes()) {
                let refused = Err(Failure::Refused);
                outbox.reply(&store, refused, &mut tally).unwrap_err();
                next(&mut outbox, &store, now, &mut tally);
            } else {
                let reply = redis.eval(&command);
                answer(&mut outbox, &store, &reply, &mut tally);
            }
        }
    }
    assert_eq!(redis.usage().get(&(key(3), "2".to_owned())), None);
    let left = ledger::unsent(&store, &Slots::new("t:")).unwrap();
    assert!(left < 300, "no more than shares a command with it: {left}");
}

#[test]
fn what_another_vm_brought_meanwhile_is_not_sent_again() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let (mut slow, mut other) = (outbox(1), outbox(2));
    for team in 0..1_024 {
        count(&store, team, Client::Go, 4);
    }
    assert!(next(&mut slow, &store, seconds(0), &mut tally).is_some());
    let lost = Err(Failure::Timeout);
    slow.reply(&store, lost, &mut tally).unwrap_err();
    drain(&mut other, &store, &mut redis, &mut tally);
    slow.flush_now();
    assert_eq!(next(&mut slow, &store, seconds(0), &mut tally), None);
    assert!(!slow.has_unsent());
}

#[test]
fn all_vms_use_the_id_of_the_first() {
    let store = MemoryStore::default();
    let (slots, other) = (Slots::new("t:"), Slots::new("o:"));
    let first = process_id(&store, &slots, [1; 16]).unwrap().unwrap();
    assert_eq!(first.len(), 32);
    assert_eq!(process_id(&store, &slots, [2; 16]), Ok(Some(first.clone())));
    let elsewhere = process_id(&store, &other, [1; 16]).unwrap().unwrap();
    assert_ne!(first, elsewhere, "slots of the same numbers");
}

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
        team: u32,
        client: u8,
        minutes: u64,
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
    // Teams 1 and 1025 share a slot.
    let team = prop_oneof![Just(1u32), Just(1_025), Just(2), Just(300), Just(900)];
    prop_oneof![
        8 => (0..VMS, team, 0u8..3, 0u64..6).prop_map(|(vm, team, client, minutes)| Step::Count {
            vm, team, client, minutes
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
        let mut pendings: Vec<Pending> = (0..VMS).map(|_| Pending::default()).collect();
        // (VM, its life, command) on the way; commands that arrived; replies held up.
        let mut flying: Vec<(usize, u32, Command)> = Vec::new();
        let mut arrived: Vec<Command> = Vec::new();
        let mut held: Vec<Vec<String>> = Vec::new();
        let mut now = 0u64;
        for step in steps {
            now += 1;
            match step {
                Step::Count { vm, team, client, minutes } => {
                    let client = Client::from_code(client);
                    let (team, time) = (Tenant(team), wall(minutes));
                    pendings[vm].count(&store, &slots, team, client, time, &mut tally);
                    let field = UsageBucket::of(time).0.to_string();
                    for key in [batch::team_key(team), batch::client_key(team, client)] {
                        *expected.entry((key, field.clone())).or_default() += 1;
                    }
                }
                Step::Retry { vm } => pendings[vm].retry(&store, &slots, &mut tally),
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
        for pending in &mut pendings {
            pending.retry(&store, &slots, &mut tally);
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
