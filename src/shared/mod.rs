//! The contract of Envoy's shared data: one process-wide map of bytes with compare-and-swap.
//!
//! Entries can never be deleted and a growing map stalls every worker (docs/design.md), so the number of
//! keys is fixed: whatever is stored goes into numbered slots, and each slot carries full keys inside.

pub mod lease;

use std::collections::HashMap;
use std::fmt;

use crate::config::Settings;
use crate::hash::Sha256Hash;
use crate::limits;
use crate::redis::Gateway;
use crate::time::Monotonic;

/// Version of everything stored under [`Keys`]: raised when a layout changes, so that two releases of the
/// filter in one Envoy never read each other's bytes.
pub const FORMAT: u8 = 1;

/// Most entries that hold confirmed ETags: with 100 000 teams 12 to an entry.
const ETAG_SLOTS: u32 = 8_192;

/// Entries that hold rate limits: with 100 000 busy teams 25 to an entry.
const RATE_SLOTS: u32 = 4_096;

/// A version of one entry; the host hands it out on reading and compares it on writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas(pub u32);

impl Cas {
    /// Matches no entry that exists: with it a write succeeds only where the entry is absent. (`0`, which the
    /// SDK makes of `None`, overwrites.) One number serves all entries of a process and wraps after 4 294 967 295 writes:
    /// an entry that was written last with that one would be taken for absent, and overwritten.
    pub const ABSENT: Self = Self(u32::MAX);
}

/// A value as it was read; an absent entry reads as empty bytes with [`Cas::ABSENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes; empty when absent.
    pub value: Vec<u8>,
    /// The version to hand back to [`Store::replace`].
    pub cas: Cas,
}

/// Shared data failed in a way that is neither "absent" nor "somebody else was first".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The host's status code.
    pub status: u32,
}

impl StoreError {
    /// Somebody else was first, each time (proxy-wasm ABI 0.2.1, `CasMismatch`).
    pub const CONTENDED: Self = Self { status: 8 };
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared data: the host answered status {}", self.status)
    }
}

impl std::error::Error for StoreError {}

/// Shared data, as the rooms see it.
pub trait Store {
    /// Reads one entry.
    ///
    /// # Errors
    /// When the host answers anything but "found" or "not found".
    fn read(&self, key: &str) -> Result<Versioned, StoreError>;

    /// Replaces an entry if it still has the version `cas`; `false` when somebody else was first.
    ///
    /// # Errors
    /// When the host answers anything but "written" or "version differs".
    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError>;
}

/// How often a read-change-replace round is tried before it is given up: under contention somebody else
/// wins each round, so eight losses in a row mean that the entry is hot, not that the change is lost work.
pub const REPLACE_TRIES: usize = 8;

/// What became of an [`update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The change is in.
    Written,
    /// There was nothing to change.
    Unchanged,
    /// Somebody else was first, [`REPLACE_TRIES`] times in a row.
    Contended,
}

/// Reads, changes and replaces one entry; `change` returns `None` to leave it alone.
///
/// # Errors
/// As [`Store::read`] and [`Store::replace`].
pub fn update(
    store: &impl Store,
    key: &str,
    mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Update, StoreError> {
    update_in_place(store, key, |value| {
        let next = change(value)?;
        *value = next;
        Some(())
    })
}

/// The same, where `change` changes what was read; nothing is written when it returns `None`.
///
/// # Errors
/// As [`Store::read`] and [`Store::replace`].
pub fn update_in_place(
    store: &impl Store,
    key: &str,
    mut change: impl FnMut(&mut Vec<u8>) -> Option<()>,
) -> Result<Update, StoreError> {
    for _ in 0..REPLACE_TRIES {
        let mut current = store.read(key)?;
        if change(&mut current.value).is_none() {
            return Ok(Update::Unchanged);
        }
        if store.replace(key, &current.value, current.cas)? {
            return Ok(Update::Written);
        }
    }
    Ok(Update::Contended)
}

/// Names of the entries. Each begins with [`FORMAT`] and a digest of the settings that decide the content,
/// so that another listener, Redis or prefix in the same `vm_id` never reads or leases them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    scope: String,
    usage_scope: String,
    rate_slots: limits::Slots,
    buckets: u32,
}

impl Keys {
    /// The names for one plugin configuration.
    pub fn new(settings: &Settings) -> Self {
        let Settings {
            redis,
            snapshot,
            definitions,
            quota,
            ..
        } = settings;
        let place = |redis: &Gateway| format!("{}\n{:?}", redis.cluster, redis.dialect);
        let scope = digest(&[
            &place(&redis.snapshot),
            &place(&redis.definitions),
            &place(&redis.identity),
            &place(&redis.quota),
            &snapshot.prefix,
            &snapshot.buckets.to_string(),
            &definitions.key_prefix,
            &definitions.cache_version,
            &quota.free_latch.to_string(),
        ]);
        // Counts outlive every change of settings but that of their own Redis.
        let usage = digest(&[&place(&redis.usage), &snapshot.prefix]);
        let scope = format!("fd{FORMAT}:{scope}:");
        Self {
            rate_slots: limits::Slots {
                prefix: format!("{scope}r:"),
                count: RATE_SLOTS,
            },
            scope,
            usage_scope: format!("fd{FORMAT}u:{usage}:"),
            buckets: snapshot.buckets,
        }
    }

    /// What all names begin with.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// What is known of the live snapshot.
    pub fn status(&self) -> String {
        format!("{}status", self.scope)
    }

    /// What all names of usage counting begin with.
    pub fn usage_scope(&self) -> &str {
        &self.usage_scope
    }

    /// Slots of rate limits.
    pub fn rate_slots(&self) -> &limits::Slots {
        &self.rate_slots
    }

    /// Slots of looked-up teams and credentials: a number follows.
    pub fn identity_slots(&self) -> String {
        format!("{}i:", self.scope)
    }

    /// Slots of rebuild signals: a number follows.
    pub fn signal_slots(&self) -> String {
        format!("{}s:", self.scope)
    }

    /// Who sends usage.
    pub fn usage_lease(&self) -> String {
        format!("{}lease", self.usage_scope)
    }

    /// The teams whose quota is used up.
    pub fn quota(&self) -> String {
        format!("{}quota", self.scope)
    }

    /// Ends of quota periods that workers saw and the quota set does not have.
    pub fn quota_noticed(&self) -> String {
        format!("{}quota_noticed", self.scope)
    }

    /// Who reads the quota set.
    pub fn quota_lease(&self) -> String {
        format!("{}quota_lease", self.scope)
    }

    /// Who loads.
    pub fn lease(&self) -> String {
        format!("{}lease", self.scope)
    }

    /// How often records changed.
    pub fn revision(&self) -> String {
        format!("{}revision", self.scope)
    }

    /// What the loader was about to do.
    pub fn attempt(&self) -> String {
        format!("{}attempt", self.scope)
    }

    /// Which change the loader was about to apply.
    pub fn change_attempt(&self) -> String {
        format!("{}change_attempt", self.scope)
    }

    /// Number of directory buckets.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// Bucket of a record, by the first 32 bits of its hash, in hash order.
    pub fn bucket_of(&self, hash: &Sha256Hash) -> u32 {
        let [a, b, c, d, ..] = *hash.as_bytes();
        let first = u64::from(u32::from_be_bytes([a, b, c, d]));
        u32::try_from((first * u64::from(self.buckets)) >> 32).unwrap_or(0)
    }

    /// One directory bucket.
    pub fn bucket(&self, index: u32) -> String {
        numbered(&[&self.scope, "b:"], index)
    }

    /// The slot that holds a team's confirmed ETag.
    pub fn etag_slot(&self, team: u32) -> String {
        // Team ids are handed out in sequence, so the remainder spreads them evenly.
        let slots = self.buckets.min(ETAG_SLOTS);
        let slot = team.checked_rem(slots).unwrap_or(0);
        numbered(&[&self.scope, "e:"], slot)
    }
}

/// Name of one of many entries: `name` and a number. A billed request needs one, and `format!` took as long as half of
/// the counting.
pub(crate) fn numbered(name: &[&str], number: u32) -> String {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number);
    let length = name.iter().map(|part| part.len()).sum::<usize>();
    let mut numbered = String::with_capacity(length + digits.len());
    name.iter().for_each(|part| numbered.push_str(part));
    numbered.push_str(digits);
    numbered
}

/// Drops the oldest of an entry's few parts until the rest fits. Sorting them instead takes 5 KB of code for each kind.
pub(crate) fn drop_oldest<T>(
    parts: &mut Vec<T>,
    at: impl Fn(&T) -> Monotonic,
    fits: impl Fn(&[T]) -> bool,
) {
    while !fits(parts) {
        let oldest = parts.iter().enumerate().min_by_key(|(_, part)| at(part));
        let Some((oldest, _)) = oldest else {
            return;
        };
        parts.swap_remove(oldest);
    }
}

fn digest(parts: &[&str]) -> String {
    let digest = Sha256Hash::of(parts.join("\n").as_bytes()).to_hex();
    digest.get(..12).unwrap_or(&digest).to_owned()
}

/// Shared data in memory: for tests of the rooms, natively and under Node.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: std::cell::RefCell<HashMap<String, (Vec<u8>, u32)>>,
}

impl MemoryStore {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        let entries = self.entries.borrow();
        entries.values().map(|(value, _)| value.len()).sum()
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        Ok(match self.entries.borrow().get(key) {
            Some((value, cas)) => Versioned {
                value: value.clone(),
                cas: Cas(*cas),
            },
            None => Versioned {
                value: Vec::new(),
                cas: Cas::ABSENT,
            },
        })
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        let mut entries = self.entries.borrow_mut();
        let current = entries.get(key).map(|(_, cas)| *cas);
        if current.is_some_and(|current| current != cas.0) {
            return Ok(false);
        }
        entries.insert(key.to_owned(), (value.to_vec(), current.unwrap_or(0) + 1));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn put_if_absent_loses_against_an_existing_entry() {
        let store = MemoryStore::default();
        assert!(store.replace("k", b"one", Cas::ABSENT).unwrap());
        assert!(!store.replace("k", b"two", Cas::ABSENT).unwrap());
        assert_eq!(store.read("k").unwrap().value, b"one");
    }

    #[test]
    fn keys_differ_with_every_setting_that_decides_their_content() {
        let base = Keys::new(&Settings::default());
        let with = |json: &str| Keys::new(&Settings::from_json(json.as_bytes()).unwrap());
        for json in [
            r#"{"redis":{"default":{"cluster":"other"}}}"#,
            r#"{"snapshot":{"prefix":"other:"}}"#,
            r#"{"snapshot":{"buckets":16}}"#,
            r#"{"definitions":{"key_prefix":"other:"}}"#,
            r#"{"definitions":{"cache_version":"2"}}"#,
        ] {
            assert_ne!(base, with(json), "{json}");
        }
        assert_eq!(base, with(r#"{"role":"health"}"#), "the health role reads");
        assert_eq!(base, with(r#"{"snapshot":{"max_age":"1h"}}"#));
    }

    #[test]
    fn the_entries_of_the_default_settings_do_not_make_envoys_map_grow_twice() {
        let keys = Keys::new(&Settings::default());
        // Who loads, who sends usage, and so on: `Keys` has a name for each.
        let single = 100;
        let slots = [
            u32::from(crate::identity::table::SLOTS),
            u32::from(crate::usage::ledger::SLOTS),
            crate::signal::SLOTS,
            keys.rate_slots().count,
            ETAG_SLOTS,
        ];
        let entries = keys.buckets() + slots.iter().sum::<u32>() + single;
        // Sizes of libc++'s unordered_map on its way: it visits all entries when it gets one more than these.
        assert!((25_717..51_437).contains(&entries), "{entries}");
    }

    #[test]
    fn counts_outlive_a_change_of_anything_but_their_redis() {
        let scope = |json: &str| {
            let settings = Settings::from_json(json.as_bytes()).unwrap();
            Keys::new(&settings).usage_scope().to_owned()
        };
        let base = scope("{}");
        let kept = r#"{"definitions":{"key_prefix":"other:"},"redis":{"quota":{"cluster":"q"}}}"#;
        assert_eq!(base, scope(kept));
        assert_ne!(base, scope(r#"{"redis":{"usage":{"cluster":"other"}}}"#));
    }

    #[test]
    fn the_oldest_give_way_until_the_rest_fits() {
        let at = |part: &u64| Monotonic::from_millis(*part);
        let mut parts = vec![5, 1, 4, 2, 3];
        drop_oldest(&mut parts, at, |parts| parts.len() <= 3);
        parts.sort_unstable();
        assert_eq!(parts, [3, 4, 5]);
        drop_oldest(&mut parts, at, |_| false);
        assert!(parts.is_empty());
    }

    #[test]
    fn a_name_ends_with_its_number() {
        for number in [0, 7, 10, 1_023, 4_294_967_295] {
            assert_eq!(numbered(&["a:", "b"], number), format!("a:b{number}"));
        }
    }

    #[test]
    fn buckets_follow_the_order_of_hashes_and_stay_in_range() {
        let keys = Keys::new(&Settings::from_json(br#"{"snapshot":{"buckets":7}}"#).unwrap());
        let bucket = |first: u8| keys.bucket_of(&Sha256Hash::from_bytes([first; 32]));
        assert_eq!((bucket(0), bucket(255)), (0, 6));
        assert!((0..255).all(|first| bucket(first) <= bucket(first + 1)));
    }
}
