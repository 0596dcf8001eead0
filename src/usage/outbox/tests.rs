use super::*;
use crate::shared::MemoryStore;
use crate::tenant::Tenant;
use crate::usage::{Counter, Unstored};
use std::collections::BTreeMap;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod exactly_once;

/// Two sources.
const A: u8 = 4;
const B: u8 = 8;

static NAMES: UsageKeys = UsageKeys::ByTenant {
    tenant: key,
    source: source_key,
    bytes: |_| 17 + 21,
};

fn key(tenant: Tenant) -> String {
    format!("counts:{tenant}")
}

fn source_key(tenant: Tenant, source: u8) -> String {
    format!("counts:{tenant}:{source}")
}

impl Outbox {
    /// Whether something may be left to send: until a round found nothing that it did not bring to Redis.
    /// Ask [`Outbox::flush_now`] first; what is counted meanwhile is not known here (see [`ledger::unsent`]).
    fn has_unsent(&self) -> bool {
        self.phase != Phase::Idle || self.asked || self.more || self.missed
    }

    /// Begins a round at the next tick, after the one under way: for a drain.
    fn flush_now(&mut self) {
        self.asked = true;
    }
}

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

    /// The sums, without the numbers of batches.
    fn usage(&self) -> BTreeMap<(String, String), u64> {
        let hashes = self.hashes.iter();
        hashes
            .filter(|(key, _)| key.starts_with("counts:"))
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
    Outbox::new(Slots::new("t:"), &NAMES, "p:", INTERVAL, [proposal; 16])
}

fn seconds(seconds: u64) -> Monotonic {
    Monotonic::from_millis(seconds * 1_000)
}

fn one(tenant: u32, source: u8, field: u32) -> Counter {
    Counter {
        tenant: Tenant(tenant),
        source,
        field,
        count: 1,
    }
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

fn count(store: &impl Store, tenant: u32, source: u8, field: u32) {
    let (mut unstored, mut tally) = (Unstored::default(), Tally::default());
    let counter = one(tenant, source, field);
    unstored.count(store, &Slots::new("t:"), counter, &mut tally);
    assert_eq!(tally.get(State::Counted), 1);
}

#[test]
fn each_interval_brings_both_hashes_of_each_tenant() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    for (tenant, source) in [(1, A), (1, A), (2, B)] {
        count(&store, tenant, source, 2);
    }
    let command = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    assert_eq!(outbox.tick(&store, seconds(1), &mut tally), None, "waits");
    let reply = redis.eval(&command);
    answer(&mut outbox, &store, &reply, &mut tally);
    assert!(outbox.is_busy() && outbox.has_unsent());
    assert_eq!(next(&mut outbox, &store, seconds(1), &mut tally), None);
    assert!(!outbox.is_busy() && !outbox.has_unsent());
    let sums: Vec<_> = redis.usage().into_iter().collect();
    let at = |key: &str| (format!("counts:{key}"), "2".to_owned());
    assert_eq!(
        sums,
        [(at("1"), 2), (at("1:4"), 2), (at("2"), 1), (at("2:8"), 1),]
    );
    assert_eq!(tally.get(State::Sent), 3);
    assert_eq!(tally.get(State::Resent), 0);

    count(&store, 1, A, 2);
    assert_eq!(next(&mut outbox, &store, seconds(4), &mut tally), None);
    assert!(next(&mut outbox, &store, seconds(5), &mut tally).is_some());
}

#[test]
fn what_failed_is_sent_again_unchanged_after_the_interval() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    count(&store, 1, A, 2);
    let first = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    redis.eval(&first);
    assert_eq!(
        outbox.reply(&store, Err(Failure::Timeout), &mut tally),
        Err(Failure::Timeout)
    );
    count(&store, 1, A, 2);
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
    assert_eq!(redis.usage()[&(key(Tenant(1)), "2".to_owned())], 2);
    assert_eq!(tally.get(State::Sent), 2);
}

#[test]
fn a_late_reply_acknowledges_what_it_names_and_nothing_else() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let slots = Slots::new("t:");
    let mut outbox = outbox(1);
    count(&store, 1, A, 2);
    let first = next(&mut outbox, &store, seconds(0), &mut tally).unwrap();
    let late = redis.eval(&first);
    // No reply for so long that the driver gives up the wait, and with it the round.
    let given_up = outbox.reply(&store, Err(Failure::Timeout), &mut tally);
    assert_eq!(given_up, Err(Failure::Timeout));
    assert_eq!(next(&mut outbox, &store, seconds(36), &mut tally), None);
    count(&store, 2, A, 2);
    let second = next(&mut outbox, &store, seconds(41), &mut tally).unwrap();
    assert_ne!(first, second);
    answer(&mut outbox, &store, &late, &mut tally);
    assert!(!outbox.is_busy(), "the second reply is still awaited");
    assert_eq!(ledger::unsent(&store, &slots), Ok(1), "tenant 2 stays");
    let reply = redis.eval(&second);
    answer(&mut outbox, &store, &reply, &mut tally);
    assert_eq!(ledger::unsent(&store, &slots), Ok(0));
    assert_eq!(redis.usage()[&(key(Tenant(1)), "2".to_owned())], 1);
}

#[test]
fn a_reply_that_is_not_the_scripts_acknowledges_nothing() {
    let (store, mut tally) = <(MemoryStore, Tally)>::default();
    let mut outbox = outbox(1);
    count(&store, 1, A, 2);
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
    redis.wrong_type = Some(key(Tenant(1)));
    count(&store, 1, A, 2);
    count(&store, 2, A, 2);
    drain(&mut outbox(1), &store, &mut redis, &mut tally);
    assert_eq!((tally.get(State::Sent), tally.get(State::Refused)), (2, 1));
    assert_eq!(redis.usage()[&(key(Tenant(2)), "2".to_owned())], 1);
}

#[test]
fn more_than_one_command_holds_goes_in_several() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let mut outbox = outbox(1);
    for tenant in 0..1_500 {
        count(&store, tenant, A, 2);
    }
    for field in 0..300 {
        count(&store, 0, B, field);
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
    for tenant in 0..1_024 {
        count(&store, tenant, A, 2);
    }
    for time in 0..20 {
        let now = seconds(time * 10);
        while let Some(command) = next(&mut outbox, &store, now, &mut tally) {
            if command.words().contains(&key(Tenant(3)).as_bytes()) {
                let refused = Err(Failure::Refused);
                outbox.reply(&store, refused, &mut tally).unwrap_err();
                next(&mut outbox, &store, now, &mut tally);
            } else {
                let reply = redis.eval(&command);
                answer(&mut outbox, &store, &reply, &mut tally);
            }
        }
    }
    assert_eq!(redis.usage().get(&(key(Tenant(3)), "2".to_owned())), None);
    let left = ledger::unsent(&store, &Slots::new("t:")).unwrap();
    assert!(left < 300, "no more than shares a command with it: {left}");
}

#[test]
fn what_another_vm_brought_meanwhile_is_not_sent_again() {
    let (store, mut redis, mut tally) = <(MemoryStore, Redis, Tally)>::default();
    let (mut slow, mut other) = (outbox(1), outbox(2));
    for tenant in 0..1_024 {
        count(&store, tenant, A, 2);
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
