use super::*;
use crate::shared::{Cas, MemoryStore};
use proptest::prelude::*;
use std::collections::BTreeMap;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn setup() -> (MemoryStore, Slots) {
    (MemoryStore::default(), Slots::new("t:"))
}

const A: u8 = 4;
const B: u8 = 8;
const C: u8 = 1;

fn counter(tenant: u32, source: u8, field: u32, count: u32) -> Counter {
    Counter {
        tenant: Tenant(tenant),
        source,
        field,
        count,
    }
}

#[test]
fn equal_requests_share_a_counter_and_different_ones_do_not() {
    let (store, slots) = setup();
    for (tenant, source, field) in [
        (5, A, 1),
        (5, A, 1),
        (5, A, 2),
        (5, B, 1),
        (5 + 1_024, A, 1),
    ] {
        let one = counter(tenant, source, field, 1);
        assert_eq!(count(&store, &slots, &one), Ok(Counted::Stored));
    }
    let batch = freeze(&store, &slots, 5).unwrap().batch.unwrap();
    assert_eq!(
        batch.counters,
        [
            counter(5, A, 1, 2),
            counter(5, A, 2, 1),
            counter(5, B, 1, 1),
            counter(5 + 1_024, A, 1, 1),
        ]
    );
    assert_eq!(batch.requests(), 5);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_batch_stays_as_it_is_until_its_number_is_acknowledged() {
    let (store, slots) = setup();
    let one = counter(5, A, 1, 1);
    count(&store, &slots, &one).unwrap();
    let first = freeze(&store, &slots, 5).unwrap();
    assert!(!first.again && !first.more);
    let batch = first.batch.unwrap();
    assert_eq!(batch.sequence, 1);

    count(&store, &slots, &one).unwrap();
    let second = freeze(&store, &slots, 5).unwrap();
    assert_eq!(second.batch, Some(batch));
    assert!(second.again && second.more);

    assert_eq!(
        acknowledge(&store, &slots, 5, 2),
        Ok(Some(0)),
        "another number"
    );
    assert_eq!(unsent(&store, &slots), Ok(2));
    assert_eq!(acknowledge(&store, &slots, 5, 1), Ok(Some(1)));
    assert_eq!(acknowledge(&store, &slots, 5, 1), Ok(Some(0)), "only once");
    assert_eq!(unsent(&store, &slots), Ok(1));

    let third = freeze(&store, &slots, 5).unwrap().batch.unwrap();
    assert_eq!((third.sequence, third.counters), (2, vec![one]));
    assert_eq!(acknowledge(&store, &slots, 5, 2), Ok(Some(1)));
    assert_eq!(freeze(&store, &slots, 5), Ok(Look::default()));
    assert_eq!(freeze(&store, &slots, 6), Ok(Look::default()));
}

#[test]
fn a_batch_is_bounded_and_begins_with_the_oldest() {
    let (store, slots) = setup();
    for field in 0..200 {
        count(&store, &slots, &counter(5, A, field, 1)).unwrap();
    }
    let look = freeze(&store, &slots, 5).unwrap();
    assert!(look.more);
    let counters = look.batch.unwrap().counters;
    assert_eq!(counters.len(), BATCH_COUNTERS);
    assert_eq!(counters[0].field, 0);
}

#[test]
fn a_full_slot_keeps_the_sums_of_whom_it_knows() {
    let (store, slots) = setup();
    for field in 0..MAX_COUNTERS as u32 - 1 {
        count(&store, &slots, &counter(5, A, field, 1)).unwrap();
    }
    count(&store, &slots, &counter(5, B, 7, 1)).unwrap();
    let bytes = store.read(&slots.slot(5)).unwrap().value;
    assert!(bytes.len() <= 64 * 1024);

    let newer = counter(5, B, 9_999, 3);
    assert_eq!(count(&store, &slots, &newer), Ok(Counted::Stored));
    let stranger = counter(5, C, 1, 1);
    assert_eq!(count(&store, &slots, &stranger), Ok(Counted::NoRoom));
    let known = counter(5, A, 0, 1);
    assert_eq!(count(&store, &slots, &known), Ok(Counted::Stored));

    let bytes = store.read(&slots.slot(5)).unwrap().value;
    let content = Content::parse(&bytes).unwrap();
    assert_eq!(content.counters.len(), MAX_COUNTERS);
    let last = Counter::read(content.counters.last().unwrap()).unwrap();
    assert_eq!(last, counter(5, B, 7, 4));
    let first = Counter::read(&content.counters[0]).unwrap();
    assert_eq!(first.count, 2);
}

#[test]
fn a_frozen_counter_never_grows_even_when_the_slot_is_full() {
    let (store, slots) = setup();
    for field in 0..MAX_COUNTERS as u32 {
        let source = if field == 0 { B } else { A };
        count(&store, &slots, &counter(5, source, field, 1)).unwrap();
    }
    let batch = freeze(&store, &slots, 5).unwrap().batch.unwrap();
    // Its only counter is frozen.
    let b = counter(5, B, 0, 1);
    assert_eq!(count(&store, &slots, &b), Ok(Counted::NoRoom));
    let a = counter(5, A, 1, 1);
    assert_eq!(count(&store, &slots, &a), Ok(Counted::Stored));
    assert_eq!(freeze(&store, &slots, 5).unwrap().batch, Some(batch));
}

#[test]
fn a_counter_does_not_wrap() {
    let (store, slots) = setup();
    let most = counter(5, A, 1, u32::MAX);
    assert_eq!(count(&store, &slots, &most), Ok(Counted::Stored));
    let one = counter(5, A, 1, 1);
    assert_eq!(count(&store, &slots, &one), Ok(Counted::NoRoom));
    assert_eq!(unsent(&store, &slots), Ok(u64::from(u32::MAX)));
}

#[test]
fn unreadable_bytes_are_left_alone() {
    let (store, slots) = setup();
    store.replace(&slots.slot(5), b"bad", Cas::ABSENT).unwrap();
    let one = counter(5, A, 1, 1);
    assert_eq!(count(&store, &slots, &one), Ok(Counted::NoRoom));
    assert_eq!(freeze(&store, &slots, 5), Ok(Look::default()));
    assert_eq!(acknowledge(&store, &slots, 5, 1), Ok(Some(0)));
    assert_eq!(unsent(&store, &slots), Ok(0));
    assert_eq!(store.read(&slots.slot(5)).unwrap().value, b"bad");
}

/// One thing that happens to a slot.
#[derive(Clone, Debug)]
enum Change {
    Count(u8, u8),
    Freeze,
    Acknowledge(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u8..14, 0u8..4).prop_map(|(source, field)| Change::Count(source, field)),
        1 => Just(Change::Freeze),
        1 => (0u64..6).prop_map(Change::Acknowledge),
    ]
}

proptest! {
    #[test]
    fn what_was_counted_is_acknowledged_or_still_there(changes in prop::collection::vec(change(), 0..80)) {
        let (store, slots) = setup();
        let mut counted: BTreeMap<(u8, u32), u64> = BTreeMap::new();
        let mut sent: BTreeMap<(u8, u32), u64> = BTreeMap::new();
        let mut frozen: Option<Batch> = None;
        let add = |sums: &mut BTreeMap<_, _>, counters: &[Counter]| {
            for one in counters {
                *sums.entry((one.source, one.field)).or_default() += u64::from(one.count);
            }
        };
        for change in changes {
            match change {
                Change::Count(source, field) => {
                    let one = counter(5, source, u32::from(field), 1);
                    prop_assert_eq!(count(&store, &slots, &one), Ok(Counted::Stored));
                    add(&mut counted, &[one]);
                }
                Change::Freeze => {
                    let look = freeze(&store, &slots, 5).unwrap();
                    if frozen.is_some() {
                        prop_assert_eq!(&look.batch, &frozen);
                    }
                    frozen = look.batch;
                }
                Change::Acknowledge(sequence) => {
                    let taken = acknowledge(&store, &slots, 5, sequence).unwrap().unwrap();
                    match frozen.take_if(|batch| batch.sequence == sequence) {
                        Some(batch) => {
                            prop_assert_eq!(taken, batch.requests());
                            add(&mut sent, &batch.counters);
                        }
                        None => prop_assert_eq!(taken, 0),
                    }
                }
            }
        }
        while let Some(batch) = freeze(&store, &slots, 5).unwrap().batch {
            add(&mut sent, &batch.counters);
            acknowledge(&store, &slots, 5, batch.sequence).unwrap();
        }
        prop_assert_eq!(sent, counted);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let (store, slots) = setup();
        store.replace(&slots.slot(5), &bytes, Cas::ABSENT).unwrap();
        let _ = count(&store, &slots, &counter(5, A, 1, 1));
        let _ = freeze(&store, &slots, 5);
        let _ = acknowledge(&store, &slots, 5, 1);
        let _ = unsent(&store, &slots);
    }
}
