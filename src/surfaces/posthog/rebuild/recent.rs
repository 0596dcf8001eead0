//! Which teams were signalled a short time ago, by any worker.
//!
//! One slot of shared data holds the teams that fall into it, each with its full id. Layout of an entry,
//! little-endian: `u32` team, `u64` when it was claimed ([`Monotonic`] milliseconds).

use std::time::Duration;

use crate::records::{CorruptRecord, Reader};
use crate::shared::{Scope, Store, StoreError, Table, Update, drop_oldest, update};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Number of slots.
pub const SLOTS: u32 = 256;

/// Most teams in one slot. Beyond it the one claimed longest ago gives way, and may be signalled early.
const MAX_ENTRIES: usize = 64;

/// Bytes of an entry.
const ENTRY: usize = 12;

/// The entries of shared data.
pub fn slots(scope: &Scope) -> Table {
    Table::new(scope, "s:", SLOTS)
}

/// Whether this caller is to signal `team`: nobody did within `repeat_after`, and of all that ask at once exactly
/// one gets `true`. Zero lets every caller signal. A slot that is too hot to claim counts as signalled: the
/// team's next miss asks again.
///
/// # Errors
/// When shared data fails: then nobody has claimed anything.
pub fn first(
    store: &impl Store,
    slots: &Table,
    team: Tenant,
    now: Monotonic,
    repeat_after: Duration,
) -> Result<bool, StoreError> {
    let claimed = update(store, &slots.of(team.0), |slot| {
        let is_recent = |at: Monotonic| now.since(at) < repeat_after;
        let mut entries = parse(slot).unwrap_or_default();
        if entries.iter().any(|(id, at)| *id == team && is_recent(*at)) {
            return None;
        }
        entries.retain(|(id, at)| *id != team && is_recent(*at));
        drop_oldest(
            &mut entries,
            |(_, at)| *at,
            |entries| entries.len() < MAX_ENTRIES,
        );
        entries.push((team, now));
        Some(encode(&entries))
    })?;
    Ok(claimed == Update::Written)
}

/// Gives up the claim that [`first`] granted at `claimed_at`, so that the team's next miss signals again: for a
/// callout that failed and may work next time. After a refusal ([`crate::redis::Failure::is_refusal`]) the claim
/// is better kept, or every miss brings another refusal. A later claim is left alone.
///
/// # Errors
/// When shared data fails: then the claim runs out.
pub fn forget(
    store: &impl Store,
    slots: &Table,
    team: Tenant,
    claimed_at: Monotonic,
) -> Result<(), StoreError> {
    update(store, &slots.of(team.0), |slot| {
        let mut entries = parse(slot)?;
        let before = entries.len();
        entries.retain(|entry| *entry != (team, claimed_at));
        (entries.len() < before).then(|| encode(&entries))
    })
    .map(drop)
}

/// `None` for bytes that are not a slot; more entries than a slot may have are none, too.
fn parse(slot: &[u8]) -> Option<Vec<(Tenant, Monotonic)>> {
    if slot.len() > MAX_ENTRIES * ENTRY {
        return None;
    }
    let mut input = Reader(slot);
    let mut entries = Vec::with_capacity(slot.len() / ENTRY + 1);
    while !input.is_empty() {
        entries.push(entry(&mut input).ok()?);
    }
    Some(entries)
}

fn entry(input: &mut Reader<'_>) -> Result<(Tenant, Monotonic), CorruptRecord> {
    let team = Tenant(input.u32()?);
    Ok((team, Monotonic::from_millis(input.u64()?)))
}

fn encode(entries: &[(Tenant, Monotonic)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (team, at) in entries {
        bytes.extend_from_slice(&team.0.to_le_bytes());
        bytes.extend_from_slice(&at.as_millis().to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::shared::{Cas, MemoryStore, Versioned};
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TEAM: Tenant = Tenant(7);
    const MINUTE: Duration = Duration::from_secs(60);

    fn slots() -> Table {
        super::slots(&Scope::new("", &[]))
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(1_000_000 + millis)
    }

    fn ask(store: &impl Store, team: Tenant, millis: u64) -> bool {
        first(store, &slots(), team, at(millis), MINUTE).unwrap()
    }

    #[test]
    fn a_team_is_signalled_once_in_a_while() {
        let store = MemoryStore::default();
        for (millis, expected) in [
            (0, true),
            (0, false),
            (59_999, false),
            (60_000, true),
            (119_999, false),
            // Another worker that looked at the clock a moment earlier.
            (59_000, false),
            (120_000, true),
        ] {
            assert_eq!(ask(&store, TEAM, millis), expected, "{millis}");
        }
        assert!(ask(&store, Tenant(8), 0));
    }

    #[test]
    fn without_an_interval_every_miss_signals() {
        let store = MemoryStore::default();
        for _ in 0..3 {
            assert_eq!(
                first(&store, &slots(), TEAM, at(0), Duration::ZERO),
                Ok(true)
            );
        }
    }

    /// Lets a rival claim the team between the read and the write of the first caller.
    struct Raced {
        inner: MemoryStore,
        rival: Cell<Option<Tenant>>,
    }

    impl Store for Raced {
        fn read(&self, key: &str) -> Result<Versioned, StoreError> {
            self.inner.read(key)
        }

        fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
            if let Some(team) = self.rival.take() {
                assert!(ask(&self.inner, team, 0), "the rival wins");
            }
            self.inner.replace(key, value, cas)
        }
    }

    #[test]
    fn of_those_that_ask_at_once_one_wins() {
        // The rival asks for the same team, or for another one in the same slot.
        for (rival, expected) in [(TEAM, false), (Tenant(TEAM.0 + SLOTS), true)] {
            let store = Raced {
                inner: MemoryStore::default(),
                rival: Cell::new(Some(rival)),
            };
            assert_eq!(ask(&store, TEAM, 0), expected, "{rival}");
            assert!(!ask(&store.inner, rival, 1));
            assert!(!ask(&store.inner, TEAM, 1));
        }
    }

    struct Hot;

    impl Store for Hot {
        fn read(&self, _: &str) -> Result<Versioned, StoreError> {
            MemoryStore::default().read("")
        }

        fn replace(&self, _: &str, _: &[u8], _: Cas) -> Result<bool, StoreError> {
            Ok(false)
        }
    }

    #[test]
    fn who_cannot_claim_does_not_signal() {
        assert!(!ask(&Hot, TEAM, 0));
    }

    #[test]
    fn a_forgotten_claim_is_free_again() {
        let store = MemoryStore::default();
        let neighbour = Tenant(TEAM.0 + SLOTS);
        assert!(ask(&store, TEAM, 0));
        assert!(ask(&store, neighbour, 0));
        forget(&store, &slots(), TEAM, at(0)).unwrap();
        assert!(!ask(&store, neighbour, 1));
        assert!(ask(&store, TEAM, 1));
        // The failure of the first callout comes late: the second claim stands.
        forget(&store, &slots(), TEAM, at(0)).unwrap();
        assert!(!ask(&store, TEAM, 2));
    }

    #[test]
    fn slots_stay_bounded() {
        let store = MemoryStore::default();
        for round in 0..100 {
            assert!(ask(&store, Tenant(round * SLOTS), u64::from(round)));
        }
        let slot = store.read(&slots().of(0)).unwrap().value;
        assert_eq!(slot.len(), 64 * 12);
        // The oldest gave way, the newest are known.
        assert!(!ask(&store, Tenant(36 * SLOTS), 100));
        assert!(ask(&store, Tenant(0), 100));
        for team in 0..2_000 {
            ask(&store, Tenant(team), 100);
        }
        assert_eq!(store.len(), 256);
    }

    #[test]
    fn claims_that_ran_out_make_room() {
        let store = MemoryStore::default();
        for round in 0..10 {
            assert!(ask(&store, Tenant(round * SLOTS), 0));
        }
        assert!(ask(&store, Tenant(0), 60_000));
        assert_eq!(store.read(&slots().of(0)).unwrap().value.len(), 12);
    }

    #[test]
    fn unreadable_bytes_are_nothing_known_and_are_replaced() {
        let store = MemoryStore::default();
        for bytes in [&b"nonsense"[..], &[0; 12 * 65]] {
            let cas = store.read("test:s:7").unwrap().cas;
            store.replace("test:s:7", bytes, cas).unwrap();
            assert_eq!(forget(&store, &slots(), TEAM, at(0)), Ok(()));
            assert!(ask(&store, TEAM, 0));
            assert!(!ask(&store, TEAM, 1));
        }
    }

    proptest! {
        #[test]
        fn claims_survive(entries in prop::collection::vec((any::<u32>(), any::<u64>()), 0..65)) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(team, at)| (Tenant(team), Monotonic::from_millis(at)))
                .collect();
            let expected = (entries.len() <= MAX_ENTRIES).then(|| entries.clone());
            prop_assert_eq!(parse(&encode(&entries)), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..800), now: u64) {
            let store = MemoryStore::default();
            store.replace("test:s:7", &bytes, Cas::ABSENT).unwrap();
            let now = Monotonic::from_millis(now);
            prop_assert!(first(&store, &slots(), TEAM, now, MINUTE).is_ok());
            prop_assert_eq!(first(&store, &slots(), TEAM, now, MINUTE), Ok(false));
        }
    }
}
