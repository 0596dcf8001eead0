//! What look-ups taught, in shared data: a fixed number of slots, by the first bits of the hash.
//!
//! A slot holds up to eight entries, each with its full hash. Layout of an entry, little-endian: 32 bytes
//! hash, `u64` when it was looked up ([`Monotonic`] milliseconds), a byte that says whether 32 bytes hash of
//! the project token follow, `u16` length, the record.
//!
//! Only what was found goes in, so nobody fills the table with inventions.

use std::time::Duration;

use super::Known;
use crate::hash::Sha256Hash;
use crate::records::{CorruptRecord, Reader};
use crate::shared::{Scope, Store, StoreError, Table, Update, drop_oldest, update};
use crate::surfaces::posthog::directory::Record;
use crate::time::Monotonic;

/// Number of slots, a power of two.
pub const SLOTS: u16 = 4_096;

/// Most entries in one slot; beyond it the one looked up longest ago gives way.
const MAX_ENTRIES: usize = 8;

/// Longest entry, in bytes. A longer one is not kept: it would push out too many others.
const MAX_ENTRY: usize = 4 << 10;

/// Longest slot, in bytes, so that the table stays below 64 MiB whatever happens.
const MAX_SLOT: usize = 16 << 10;

/// The entries of shared data.
pub fn slots(scope: &Scope) -> Table {
    Table::new(scope, "i:", u32::from(SLOTS))
}

/// The slot of a hash.
fn slot(slots: &Table, hash: &Sha256Hash) -> String {
    let [a, b, ..] = *hash.as_bytes();
    let slot = u16::from_be_bytes([a, b]) / (u16::MAX / SLOTS + 1);
    slots.entry(u32::from(slot))
}

/// What is known of a token or credential, if it was looked up less than `ttl` ago. Unreadable bytes are
/// nothing known; the next write to the slot replaces them.
///
/// # Errors
/// When shared data fails, which does not mean "unknown".
pub fn find(
    store: &impl Store,
    slots: &Table,
    hash: &Sha256Hash,
    now: Monotonic,
    ttl: Duration,
) -> Result<Option<Known>, StoreError> {
    let slot = store.read(&slot(slots, hash))?.value;
    Ok(search(&slot, hash)
        .ok()
        .flatten()
        .filter(|entry| entry.is_fresh(now, ttl))
        .and_then(|entry| entry.known().ok()))
}

/// Keeps what a look-up taught, each where nothing newer or as new is known. Returns how many went in; those
/// do not whose entry would be longer than 4 KiB, or whose look-up took longer than `ttl`.
///
/// # Errors
/// When shared data fails; the rest is not kept then.
pub fn keep(
    store: &impl Store,
    slots: &Table,
    records: &[(Sha256Hash, Known)],
    now: Monotonic,
    ttl: Duration,
) -> Result<usize, StoreError> {
    let mut kept = 0usize;
    for (hash, known) in records {
        let Some(record) = known.record.encode() else {
            continue;
        };
        let entry = Entry {
            hash: *hash,
            at: known.looked_up_at,
            api_token: known.api_token,
            record: &record,
        };
        if entry.len() > MAX_ENTRY || !entry.is_fresh(now, ttl) {
            continue;
        }
        let key = slot(slots, hash);
        if update(store, &key, |slot| put(slot, entry, now, ttl))? == Update::Written {
            kept = kept.saturating_add(1);
        }
    }
    Ok(kept)
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    hash: Sha256Hash,
    at: Monotonic,
    api_token: Option<Sha256Hash>,
    record: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(input: &mut Reader<'a>) -> Result<Self, CorruptRecord> {
        let hash = Sha256Hash::from_bytes(input.array()?);
        let at = Monotonic::from_millis(input.u64()?);
        let api_token = if input.flag()? {
            Some(Sha256Hash::from_bytes(input.array()?))
        } else {
            None
        };
        let length = usize::from(input.u16()?);
        Ok(Self {
            hash,
            at,
            api_token,
            record: input.take(length)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.hash.as_bytes());
        out.extend_from_slice(&self.at.as_millis().to_le_bytes());
        out.push(u8::from(self.api_token.is_some()));
        if let Some(token) = &self.api_token {
            out.extend_from_slice(token.as_bytes());
        }
        // Lossless: an entry has at most MAX_ENTRY bytes, or came out of a u16 length.
        out.extend_from_slice(&(self.record.len() as u16).to_le_bytes());
        out.extend_from_slice(self.record);
    }

    fn len(&self) -> usize {
        let token = if self.api_token.is_some() { 32 } else { 0 };
        self.record.len().saturating_add(32 + 8 + 1 + token + 2)
    }

    fn is_fresh(&self, now: Monotonic, ttl: Duration) -> bool {
        now.since(self.at) < ttl
    }

    fn known(&self) -> Result<Known, CorruptRecord> {
        Ok(Known {
            record: Record::decode(self.record)?,
            api_token: self.api_token,
            looked_up_at: self.at,
        })
    }
}

fn search<'a>(slot: &'a [u8], hash: &Sha256Hash) -> Result<Option<Entry<'a>>, CorruptRecord> {
    let mut input = Reader(slot);
    while !input.is_empty() {
        let entry = Entry::read(&mut input)?;
        if entry.hash == *hash {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn parse(slot: &[u8]) -> Result<Vec<Entry<'_>>, CorruptRecord> {
    let mut input = Reader(slot);
    let mut entries = Vec::new();
    while !input.is_empty() {
        entries.push(Entry::read(&mut input)?);
    }
    Ok(entries)
}

/// The slot with `new` in it; `None` when it knows as much already.
fn put(slot: &[u8], new: Entry<'_>, now: Monotonic, ttl: Duration) -> Option<Vec<u8>> {
    let mut others = parse(slot).unwrap_or_default();
    if others
        .iter()
        .any(|entry| entry.hash == new.hash && entry.at >= new.at)
    {
        return None;
    }
    others.retain(|entry| entry.hash != new.hash && entry.is_fresh(now, ttl));
    let length = |others: &[Entry<'_>]| {
        let others = others.iter().map(Entry::len);
        others.fold(new.len(), usize::saturating_add)
    };
    drop_oldest(
        &mut others,
        |entry| entry.at,
        |others| others.len() < MAX_ENTRIES && length(others) <= MAX_SLOT,
    );
    let mut bytes = Vec::with_capacity(length(&others));
    new.write(&mut bytes);
    others.iter().for_each(|entry| entry.write(&mut bytes));
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Cas, MemoryStore};
    use crate::surfaces::posthog::directory::{OrganizationId, PersonalKey};
    use crate::tenant::Tenant;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TTL: Duration = Duration::from_secs(60);

    fn slots() -> Table {
        super::slots(&Scope::new("", &[]))
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    /// Hashes that all fall into one slot.
    fn hash(last: u8) -> Sha256Hash {
        let mut bytes = [7; 32];
        bytes[31] = last;
        Sha256Hash::from_bytes(bytes)
    }

    fn known(team: u32, millis: u64) -> Known {
        Known {
            record: Record::TeamSecret(Tenant(team)),
            api_token: None,
            looked_up_at: at(millis),
        }
    }

    /// A record of about 16 bytes for each organization.
    fn large(organizations: usize, millis: u64) -> Known {
        Known {
            record: Record::Personal(PersonalKey {
                organizations: vec![OrganizationId([9; 16]); organizations],
                ..PersonalKey::default()
            }),
            api_token: Some(hash(99)),
            looked_up_at: at(millis),
        }
    }

    fn put(store: &MemoryStore, last: u8, known: Known) -> usize {
        let now = known.looked_up_at;
        keep(store, &slots(), &[(hash(last), known)], now, TTL).unwrap()
    }

    fn get(store: &MemoryStore, last: u8, now: u64) -> Option<Known> {
        find(store, &slots(), &hash(last), at(now), TTL).unwrap()
    }

    #[test]
    fn an_entry_is_known_for_its_time_to_live() {
        let store = MemoryStore::default();
        put(&store, 1, large(3, 1_000));
        assert_eq!(get(&store, 1, 60_999), Some(large(3, 1_000)));
        assert_eq!(get(&store, 1, 61_000), None);
        assert_eq!(get(&store, 2, 1_000), None);
    }

    #[test]
    fn a_late_reply_never_replaces_newer_knowledge() {
        let store = MemoryStore::default();
        assert_eq!(put(&store, 1, known(1, 20)), 1);
        assert_eq!(put(&store, 1, known(2, 10)), 0);
        assert_eq!(put(&store, 1, known(3, 20)), 0);
        assert_eq!(get(&store, 1, 20), Some(known(1, 20)));
        assert_eq!(put(&store, 1, known(4, 30)), 1);
        assert_eq!(get(&store, 1, 30), Some(known(4, 30)));
    }

    #[test]
    fn a_slot_keeps_eight_and_the_oldest_gives_way() {
        let store = MemoryStore::default();
        for last in [3, 1, 2, 4, 5, 6, 7, 8] {
            put(&store, last, known(1, u64::from(last)));
        }
        assert!((1..=8).all(|last| get(&store, last, 10).is_some()));
        put(&store, 9, known(1, 9));
        assert_eq!(get(&store, 1, 10), None);
        assert!((2..=9).all(|last| get(&store, last, 10).is_some()));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn what_has_expired_is_dropped_on_writing() {
        let store = MemoryStore::default();
        put(&store, 1, known(1, 0));
        put(&store, 2, known(1, 60_000));
        let slot = store.read(&slot(&slots(), &hash(1))).unwrap().value;
        assert_eq!(parse(&slot).unwrap().len(), 1);
    }

    #[test]
    fn a_look_up_that_took_longer_than_its_time_to_live_is_not_kept() {
        let store = MemoryStore::default();
        let records = [(hash(1), known(1, 0))];
        assert_eq!(keep(&store, &slots(), &records, at(60_000), TTL), Ok(0));
        assert!(store.is_empty());
    }

    #[test]
    fn large_entries_are_not_kept_and_slots_stay_within_their_bound() {
        let store = MemoryStore::default();
        assert_eq!(put(&store, 1, large(300, 1)), 0);
        assert!(store.is_empty());
        for last in 1..=8 {
            assert_eq!(put(&store, last, large(240, u64::from(last))), 1);
            let slot = store.read(&slot(&slots(), &hash(last))).unwrap().value;
            assert!(slot.len() <= MAX_SLOT);
        }
        assert_eq!(get(&store, 4, 10), None);
        assert!((5..=8).all(|last| get(&store, last, 10).is_some()));
    }

    #[test]
    fn the_number_of_keys_is_fixed() {
        let key = |first: u8, second: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[1]) = (first, second);
            slot(&slots(), &Sha256Hash::from_bytes(bytes))
        };
        let mut keys: Vec<String> = (0..=255u8)
            .flat_map(|first| (0..=255u8).map(move |second| (first, second)))
            .map(|(first, second)| key(first, second))
            .collect();
        assert_eq!(keys[0], slots().entry(0));
        assert_eq!(keys[65_535], slots().entry(4_095));
        keys.dedup();
        assert_eq!(keys.len(), usize::from(SLOTS));
    }

    #[test]
    fn unreadable_bytes_are_nothing_known_and_are_replaced() {
        let store = MemoryStore::default();
        let key = slot(&slots(), &hash(1));
        store.replace(&key, b"nonsense", Cas::ABSENT).unwrap();
        assert_eq!(get(&store, 1, 0), None);
        put(&store, 1, known(1, 0));
        assert_eq!(get(&store, 1, 0), Some(known(1, 0)));
    }

    proptest! {
        #[test]
        fn arbitrary_slots_never_panic_and_take_an_entry(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let store = MemoryStore::default();
            store.replace(&slot(&slots(), &hash(1)), &bytes, Cas::ABSENT).unwrap();
            prop_assert_eq!(get(&store, 1, 0), None);
            put(&store, 1, known(1, 0));
            prop_assert_eq!(get(&store, 1, 0), Some(known(1, 0)));
        }

        #[test]
        fn a_write_takes_the_place_of_older_knowledge_only_and_changes_nothing_else(
            writes in prop::collection::vec((0u8..12, 0u64..100_000, any::<u32>()), 1..40)
        ) {
            let store = MemoryStore::default();
            let now = 100_000;
            let all = || (0u8..12).map(|last| get(&store, last, now)).collect::<Vec<_>>();
            for (last, millis, team) in writes {
                let before = all();
                let new = known(team, millis);
                keep(&store, &slots(), &[(hash(last), new.clone())], at(now), TTL).unwrap();
                let fresh = at(now).since(new.looked_up_at) < TTL;
                for (other, (before, after)) in (0u8..12).zip(before.into_iter().zip(all())) {
                    if other != last {
                        prop_assert!(after.is_none() || after == before);
                    } else if fresh && before.as_ref().is_none_or(|held| held.looked_up_at < new.looked_up_at) {
                        prop_assert_eq!(after, Some(new.clone()));
                    } else {
                        prop_assert_eq!(after, before);
                    }
                }
                prop_assert!(all().iter().flatten().count() <= MAX_ENTRIES);
            }
        }
    }
}
