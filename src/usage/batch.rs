//! Frozen batches as one Redis command, and what Redis says of them.

use std::collections::HashMap;

use super::ledger::{BATCH_COUNTERS, Batch, Counter};
use crate::redis::{Command, Reply, Script};
use crate::tenant::Tenant;

/// Most counters in one command: Redis works them off in a few milliseconds.
const MAX_COUNTERS: usize = 500;

/// Most bytes of keys and arguments in one command, the script aside.
const MAX_BYTES: usize = 32 * 1024;

/// What one key or argument costs besides its bytes.
const SEPARATOR: usize = 1;

/// Adds batches whose numbers are new, and says for each of them that it is in.
///
/// `KEYS[1]` holds the last number of each slot, the other keys are usage hashes. `ARGV`: for each batch its
/// slot, its number, how many counters it has, and for each counter the places in `KEYS` of its two hashes, the field and
/// the count. Place 0 is no hash; the other one then expires [`FIELD_HASH_SECONDS`] after it was last added to. The reply:
/// how many requests one of their hashes refused, then `slot:number` for each batch. All strings, for webdis leaves out what
/// is not one.
///
/// Exactly once rests on this: Redis runs a script alone and writes its effects to replicas and disk as one
/// transaction. Everything for which Redis refuses to write at all (memory, a replica, a disk error, missing
/// permissions) fails at the first write, which is why the number is raised first, and by the same command as
/// the counts: then nothing of that batch was applied. After that nothing raises an error: a hash that cannot
/// be counted into must neither lose nor repeat the rest. A script that wrote cannot be killed. The expiry comes
/// last: if it is refused, all batches are in and will be ignored when they come again.
static SCRIPT: Script = Script::new(
    "\
local done,refused,at={''},0,1 \
while ARGV[at] do \
local slot,sequence,counters=ARGV[at],ARGV[at+1],tonumber(ARGV[at+2]) at=at+3 \
local new=tonumber(sequence)-tonumber(redis.call('HGET',KEYS[1],slot) or 0) \
if new>0 then redis.call('HINCRBY',KEYS[1],slot,new) end \
for _=1,counters do \
if new>0 then \
local failed=false \
for hash=at,at+1 do \
local key=KEYS[tonumber(ARGV[hash])] \
if key then \
local sum=redis.pcall('HINCRBY',key,ARGV[at+2],ARGV[at+3]) \
failed=failed or type(sum)=='table' end end \
if ARGV[at]=='0' then redis.pcall('EXPIRE',KEYS[tonumber(ARGV[at+1])],604800) end \
if failed then refused=refused+tonumber(ARGV[at+3]) end \
end \
at=at+4 end \
done[#done+1]=slot..':'..sequence end \
redis.call('EXPIRE',KEYS[1],2592000) \
done[1]=string.format('%.0f',refused) \
return done",
);

/// The key of the last numbers of a process. It expires 30 days after the process last sent something.
pub fn sequences_key(prefix: &str, process: &str) -> String {
    format!("{prefix}usage:{process}")
}

/// The hashes in Redis to which the counters of a surface are added.
#[derive(Clone, Copy, Debug)]
pub enum UsageKeys {
    /// Two for each tenant. A counter is added to both, in its own field.
    ByTenant {
        /// The key of all counts of a tenant.
        tenant: fn(Tenant) -> String,
        /// The key of a tenant's counts from one source.
        source: fn(Tenant, u8) -> String,
        /// Bytes of both keys together for this source and the longest tenant: at most [`MAX_KEY_BYTES`]. It is asked
        /// often, and needs no formatting.
        bytes: fn(u8) -> usize,
    },
    /// One for each field of the counters, [`field_key`] with this name, whose own fields are `tenant:source`. It expires
    /// [`FIELD_HASH_SECONDS`] after it was last added to, so whoever takes the counts out need not come for them to be
    /// bounded.
    ByField(&'static str),
}

/// Most bytes of both keys of a counter.
pub const MAX_KEY_BYTES: usize = 200;

/// For how long a hash of [`UsageKeys::ByField`] stays after it was last added to, in seconds: a week.
pub const FIELD_HASH_SECONDS: u32 = 604_800;

/// What the keys of all hashes of [`UsageKeys::ByField`] begin with: no process is called so.
///
/// ```
/// use flag_definitions_filter::usage::batch::{field_key, field_prefix};
/// assert_eq!(field_prefix("fd:", "toy"), "fd:usage:toy:");
/// assert_eq!(field_key("fd:", "toy", 9), "fd:usage:toy:9");
/// ```
pub fn field_prefix(prefix: &str, name: &str) -> String {
    format!("{prefix}usage:{name}:")
}

/// The key of the hash of one field of [`UsageKeys::ByField`].
pub fn field_key(prefix: &str, name: &str, field: u32) -> String {
    format!("{}{field}", field_prefix(prefix, name))
}

/// A hash among those of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CountHash {
    Tenant(Tenant),
    Source(Tenant, u8),
    Field(u32),
}

/// Batches on their way into one command.
#[derive(Debug, Default)]
pub struct Cargo {
    keys: Vec<String>,
    places: HashMap<CountHash, usize>,
    arguments: Vec<String>,
    counters: usize,
    bytes: usize,
    batches: Vec<(u16, u64)>,
}

impl Cargo {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Slot and number of each of its batches, as [`Applied::batches`] will name them.
    pub fn batches(&self) -> &[(u16, u64)] {
        &self.batches
    }

    /// Puts a batch in; `false` when it would be too much, which a first batch never is. `prefix`: of the filter's own keys.
    pub fn load(&mut self, names: &UsageKeys, prefix: &str, batch: &Batch) -> bool {
        let counters = self.counters + batch.counters.len();
        let bytes = self.bytes + size(names, prefix, batch);
        if !self.is_empty() && (counters > MAX_COUNTERS || bytes > MAX_BYTES) {
            return false;
        }
        self.counters = counters;
        self.bytes = bytes;
        self.batches.push((batch.slot, batch.sequence));
        self.argument(batch.slot);
        self.argument(batch.sequence);
        self.argument(batch.counters.len());
        for counter in &batch.counters {
            let (tenant, code) = (counter.tenant, counter.source);
            match names {
                UsageKeys::ByTenant {
                    tenant: all,
                    source,
                    ..
                } => {
                    let all = self.place(CountHash::Tenant(tenant), || all(tenant));
                    let of_source = CountHash::Source(tenant, code);
                    let source = self.place(of_source, || source(tenant, code));
                    self.argument(all);
                    self.argument(source);
                    self.argument(counter.field);
                }
                UsageKeys::ByField(name) => {
                    let field = counter.field;
                    let hash = CountHash::Field(field);
                    let place = self.place(hash, || field_key(prefix, name, field));
                    self.argument(0);
                    self.argument(place);
                    self.argument(format_args!("{tenant}:{code}"));
                }
            }
            self.argument(counter.count);
        }
        true
    }

    fn argument(&mut self, argument: impl ToString) {
        self.arguments.push(argument.to_string());
    }

    /// Place of a hash in `KEYS`.
    fn place(&mut self, hash: CountHash, key: impl FnOnce() -> String) -> usize {
        // Lua counts from one, and the first key is that of the sequences.
        let next = self.keys.len() + 2;
        *self.places.entry(hash).or_insert_with(|| {
            self.keys.push(key());
            next
        })
    }

    /// The command; `sequences` as [`sequences_key`] makes it.
    pub fn command(self, sequences: &str) -> Command {
        let keys = std::iter::once(sequences.to_owned()).chain(self.keys);
        Command::eval(&SCRIPT, keys, self.arguments)
    }
}

/// At most so many bytes of keys and arguments. A longest number each is closer than it looks and needs no
/// formatting; a key is counted as often as it is used, but for hashes by field: neighbours share theirs.
fn size(names: &UsageKeys, prefix: &str, batch: &Batch) -> usize {
    let mut last = None;
    let counter = |counter: &Counter| match names {
        UsageKeys::ByTenant { bytes, .. } => bytes(counter.source) + COUNTER_BYTES,
        UsageKeys::ByField(name) => {
            let is_same = last.replace(counter.field) == Some(counter.field);
            let key = prefix.len() + "usage::".len() + name.len() + NUMBER;
            // Its field is two numbers.
            COUNTER_BYTES + NUMBER + if is_same { 0 } else { key }
        }
    };
    HEADER_BYTES + batch.counters.iter().map(counter).sum::<usize>()
}

/// Most bytes of a number, with what it costs besides.
const NUMBER: usize = 10 + SEPARATOR;

/// Of a counter besides its keys: what those cost besides their bytes, their places, the field and the count.
const COUNTER_BYTES: usize = 2 * SEPARATOR + 2 * (4 + SEPARATOR) + 2 * NUMBER;

/// Of a batch besides its counters: slot, number (twice as long) and how many they are.
const HEADER_BYTES: usize = 4 * NUMBER;

/// What Redis says of a command's batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Requests that one of their two hashes refused.
    pub refused: u64,
    /// Slot and number of each batch that is in, now or since an earlier time.
    pub batches: Vec<(u16, u64)>,
}

impl Applied {
    /// Reads the script's reply; `None` for anything else.
    pub fn read(reply: &Reply<'_>) -> Option<Self> {
        let parts = reply.strings()?;
        let (refused, batches) = parts.split_first()?;
        let batches = batches.iter().map(|part| {
            let (slot, sequence) = text(part)?.split_once(':')?;
            Some((slot.parse().ok()?, sequence.parse().ok()?))
        });
        Some(Self {
            refused: text(refused)?.parse().ok()?,
            batches: batches.collect::<Option<_>>()?,
        })
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

// A batch must fit into a command, or it could never be sent.
const _: () = assert!(BATCH_COUNTERS <= MAX_COUNTERS);
const _: () = assert!(HEADER_BYTES + BATCH_COUNTERS * (MAX_KEY_BYTES + COUNTER_BYTES) <= MAX_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NAMES: UsageKeys = UsageKeys::ByTenant {
        tenant: |tenant| format!("counts:{tenant}"),
        source: |tenant, source| format!("counts:{tenant}:{source}"),
        bytes: |_| 17 + 21,
    };

    fn counter(tenant: u32, source: u8, field: u32) -> Counter {
        Counter {
            tenant: Tenant(tenant),
            source,
            field,
            count: 3,
        }
    }

    fn batch(slot: u16, sequence: u64, counters: Vec<Counter>) -> Batch {
        Batch {
            slot,
            sequence,
            counters,
        }
    }

    fn words(command: &Command) -> Vec<&str> {
        let words = command.words().into_iter();
        words.map(|word| text(word).unwrap()).collect()
    }

    #[test]
    fn a_command_names_each_hash_once() {
        let mut cargo = Cargo::default();
        let five = vec![counter(5, 4, 7), counter(5, 4, 8)];
        assert!(cargo.load(&NAMES, "", &batch(5, 12, five)));
        assert!(cargo.load(&NAMES, "", &batch(6, 1, vec![counter(6, 13, 7)])));
        assert_eq!(cargo.batches(), [(5, 12), (6, 1)]);
        let command = cargo.command(&sequences_key("flag_definitions:", "ab"));
        let words = words(&command);
        assert_eq!((words[0], words[1]), ("EVAL", SCRIPT.text()));
        assert_eq!(
            words[2..].join(" "),
            "5 flag_definitions:usage:ab counts:5 counts:5:4 counts:6 counts:6:13 5 12 2 2 3 7 3 2 3 8 3 6 1 1 4 5 7 3"
        );
    }

    #[test]
    fn hashes_by_field_have_tenants_and_sources_as_their_fields() {
        let mut cargo = Cargo::default();
        let names = UsageKeys::ByField("toy");
        let counters = vec![counter(5, 1, 7), counter(1_029, 0, 7), counter(5, 1, 8)];
        assert!(cargo.load(&names, "fd:", &batch(5, 12, counters)));
        let command = cargo.command(&sequences_key("fd:", "ab"));
        assert_eq!(
            words(&command)[2..].join(" "),
            "3 fd:usage:ab fd:usage:toy:7 fd:usage:toy:8 5 12 3 0 2 5:1 3 0 2 1029:0 3 0 3 5:1 3"
        );
    }

    #[test]
    fn the_script_lets_a_hash_of_fields_expire_after_the_time_that_is_said() {
        let expiry = format!("'EXPIRE',KEYS[tonumber(ARGV[at+1])],{FIELD_HASH_SECONDS})");
        assert!(SCRIPT.text().contains(&expiry));
    }

    #[test]
    fn a_command_is_bounded_in_bytes_and_counters() {
        let longest = |tenant: u32| counter(tenant, u8::MAX, u32::MAX);
        let big = |slot: u16| {
            let tenants = 0..BATCH_COUNTERS as u32;
            batch(
                slot,
                u64::MAX,
                tenants.map(|n| longest(u32::MAX - n)).collect(),
            )
        };
        let longest_keys = UsageKeys::ByTenant {
            tenant: |tenant| format!("{tenant:099}"),
            source: |tenant, source| format!("{tenant:097}:{source}"),
            bytes: |_| MAX_KEY_BYTES,
        };
        let mut cargo = Cargo::default();
        assert!(cargo.load(&longest_keys, "", &big(1)));
        assert!(!cargo.load(&longest_keys, "", &big(2)));
        let size: usize = words(&cargo.command(""))
            .iter()
            .skip(4)
            .map(|word| word.len() + 1)
            .sum();
        assert!(size <= MAX_BYTES, "{size}");

        let mut cargo = Cargo::default();
        let mut slots = 0;
        while cargo.load(&NAMES, "", &batch(slots, 1, vec![counter(1, 4, 1)])) {
            slots += 1;
        }
        assert!((100..=500).contains(&slots), "{slots}");
    }

    #[test]
    fn only_the_scripts_own_reply_counts() {
        let read = |parts: &[&'static str]| {
            Applied::read(&Reply::array(parts.iter().map(|part| part.as_bytes())))
        };
        assert_eq!(
            read(&["4", "5:12", "1023:1"]),
            Some(Applied {
                refused: 4,
                batches: vec![(5, 12), (1_023, 1)],
            })
        );
        for parts in [
            &[][..],
            &[""],
            &["-1"],
            &["0", "5"],
            &["0", "5:x"],
            &["0", "70000:1"],
        ] {
            assert_eq!(read(parts), None, "{parts:?}");
        }
        for reply in [
            Reply::Nil,
            Reply::Bytes(b"0".into()),
            Reply::Integer(0),
            Reply::Status(b"OK"),
        ] {
            assert_eq!(Applied::read(&reply), None, "{reply:?}");
        }
    }

    proptest! {
        #[test]
        fn the_estimate_is_never_too_small(
            counters in prop::collection::vec((any::<u32>(), any::<u8>(), any::<u32>()), 1..20),
            slot in 0u16..1_024,
            sequence in any::<u64>(),
        ) {
            let counters = counters.into_iter();
            let counters = counters.map(|(tenant, source, field)| counter(tenant, source, field));
            let batch = batch(slot, sequence, counters.collect());
            for names in [NAMES, UsageKeys::ByField("toy")] {
                let mut cargo = Cargo::default();
                cargo.load(&names, "fd:", &batch);
                let command = cargo.command("");
                let real: usize = words(&command).iter().skip(4).map(|word| word.len() + 1).sum();
                let estimate = size(&names, "fd:", &batch);
                prop_assert!(real <= estimate, "{} > {}", real, estimate);
            }
        }

        #[test]
        fn arbitrary_replies_never_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..4)) {
            let _ = Applied::read(&Reply::array(parts.iter().map(Vec::as_slice)));
        }
    }
}
