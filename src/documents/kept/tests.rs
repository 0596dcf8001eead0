use super::super::testing::Plain;
use super::*;
use proptest::prelude::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn tag(version: u8) -> ETag {
    ETag::new(format!("v{version}").as_bytes()).unwrap()
}

fn plain(version: u8, length: usize) -> Rc<Plain> {
    Rc::new(Plain {
        etag: tag(version),
        etag_stored: true,
        text: Rc::new(vec![b'0' + version % 10; length]),
    })
}

const TENANT: Tenant = Tenant(7);

/// Everything that was asked for is compressed.
fn compress(documents: &mut Kept<Plain>) {
    for _ in 0..1_000 {
        documents.work();
    }
    assert!(!documents.is_busy());
}

#[test]
fn one_version_of_a_tenant_is_kept_and_no_other_is_answered_with() {
    let mut documents = Kept::new(1 << 20);
    documents.put(TENANT, &plain(1, 10));
    assert_eq!(documents.etag(TENANT), Some(&tag(1)));
    assert_eq!(documents.get(TENANT, &tag(2)), None);
    assert_eq!(documents.gzip(TENANT, &tag(2)), None);
    assert_eq!(documents.length(TENANT, &tag(2), false), None);
    documents.put(TENANT, &plain(2, 20));
    assert_eq!(documents.get(TENANT, &tag(1)), None);
    assert_eq!(documents.get(TENANT, &tag(2)).unwrap().text.len(), 20);
    assert_eq!(documents.bytes, 20 + OVERHEAD);
    // The same ETag with another text: what was read last counts.
    documents.put(TENANT, &plain(2, 30));
    assert_eq!(documents.get(TENANT, &tag(2)).unwrap().text.len(), 30);
    documents.remove(TENANT);
    assert_eq!((documents.get(TENANT, &tag(2)), documents.bytes), (None, 0));
}

#[test]
fn a_text_with_the_etag_of_another_is_not_kept_and_drives_out_what_was() {
    let mut documents = Kept::new(16 << 20);
    for length in [100, 1 << 20] {
        let text = vec![b'x'; length];
        let own = ETag::of_text(&text);
        let version = |etag: &ETag, text: &[u8]| {
            Rc::new(Plain {
                etag: etag.clone(),
                etag_stored: true,
                text: Rc::new(text.to_vec()),
            })
        };
        documents.put(TENANT, &version(&own, &text));
        compress(&mut documents);
        assert_eq!(documents.etag(TENANT), Some(&own));
        documents.put(TENANT, &version(&own, &vec![b'y'; length]));
        compress(&mut documents);
        assert_eq!(documents.etag(TENANT), None, "{length}");
        // What is read meanwhile counts, and what was read before it does not come back.
        documents.put(TENANT, &version(&own, &text));
        documents.put(TENANT, &plain(2, 10));
        compress(&mut documents);
        assert_eq!(documents.etag(TENANT), Some(&tag(2)));
    }
}

#[test]
fn long_bodies_that_wait_for_their_proof_are_bounded() {
    let mut documents = Kept::new(16 << 20);
    let text = vec![b'x'; 1 << 20];
    let long = Rc::new(Plain {
        etag: ETag::of_text(&text),
        etag_stored: true,
        text: Rc::new(text),
    });
    for tenant in 0..9 {
        documents.put(Tenant(tenant), &long);
        documents.put(Tenant(tenant), &Rc::new((*long).clone()));
    }
    assert_eq!(documents.unproven.len(), 4, "a quarter of all bytes");
    compress(&mut documents);
    let kept = (0..9).filter(|tenant| documents.etag(Tenant(*tenant)).is_some());
    assert_eq!(kept.collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn what_is_larger_than_everything_is_not_kept_and_drives_nobody_out() {
    let mut documents = Kept::new(10_000);
    documents.put(Tenant(1), &plain(1, 1_000));
    documents.put(TENANT, &plain(1, 10_000));
    assert!(documents.etag(TENANT).is_none() && documents.etag(Tenant(1)).is_some());
    documents.put(TENANT, &plain(1, 10_000 - OVERHEAD));
    assert!(documents.etag(TENANT).is_some() && documents.etag(Tenant(1)).is_none());
    let mut off = Kept::new(0);
    off.put(TENANT, &plain(1, 0));
    assert_eq!(off.etag(TENANT), None);
}

#[test]
fn the_gzip_form_comes_later_and_stays_while_the_text_does() {
    let mut documents = Kept::new(1 << 20);
    documents.put(TENANT, &plain(1, 100_000));
    assert!(!documents.is_busy(), "nobody asked for it");
    assert_eq!(documents.gzip(TENANT, &tag(1)), None);
    documents.compress();
    assert_eq!(documents.gzip(TENANT, &tag(1)), None, "it takes two slices");
    documents.compress();
    let gzip = documents.gzip(TENANT, &tag(1)).unwrap();
    assert!(!documents.is_busy());
    assert_eq!(documents.bytes, 100_000 + OVERHEAD + gzip.len());
    assert_eq!(documents.length(TENANT, &tag(1), true), Some(gzip.len()));
    assert_eq!(documents.length(TENANT, &tag(1), false), Some(100_000));
    documents.put(TENANT, &plain(1, 100_000));
    assert_eq!(documents.gzip(TENANT, &tag(1)), Some(gzip));
    documents.put(TENANT, &plain(2, 100_000));
    assert_eq!(documents.gzip(TENANT, &tag(2)), None);
}

#[test]
fn work_on_a_version_that_gave_way_is_dropped() {
    let mut documents = Kept::new(1 << 20);
    documents.put(TENANT, &plain(1, 200_000));
    documents.gzip(TENANT, &tag(1));
    documents.compress();
    documents.put(TENANT, &plain(2, 200_000));
    documents.compress();
    assert!(!documents.is_busy());
    assert_eq!(documents.gzip(TENANT, &tag(2)), None);
    documents.remove(TENANT);
    compress(&mut documents);
    assert_eq!(documents.bytes, 0);
}

#[test]
fn a_gzip_form_that_finds_no_room_is_not_made_again_and_again() {
    let mut documents = Kept::new(20_000 + OVERHEAD);
    documents.put(TENANT, &plain(1, 20_000));
    documents.gzip(TENANT, &tag(1));
    compress(&mut documents);
    assert_eq!(documents.gzip(TENANT, &tag(1)), None);
    assert!(!documents.is_busy());
    assert!(documents.get(TENANT, &tag(1)).is_some(), "the text stays");
}

#[test]
fn who_waits_for_a_gzip_form_is_bounded_and_asks_again() {
    let mut documents = Kept::new(1 << 20);
    let tenants = || (0..200).map(Tenant);
    tenants().for_each(|tenant| documents.put(tenant, &plain(1, 1_000)));
    for _ in 0..4 {
        tenants().for_each(|tenant| drop(documents.gzip(tenant, &tag(1))));
        assert!(documents.wanted.len() <= MAX_WANTED);
        compress(&mut documents);
    }
    assert!(tenants().all(|tenant| documents.gzip(tenant, &tag(1)).is_some()));
}

#[test]
fn a_text_too_long_for_gzip_makes_no_work() {
    let mut documents = Kept::new(LONGEST * 2);
    documents.put(TENANT, &plain(1, LONGEST + 1));
    assert_eq!(documents.gzip(TENANT, &tag(1)), None);
    assert!(!documents.is_busy());
}

#[derive(Clone, Debug)]
enum Event {
    Put(u32, u8, usize),
    Get(u32, u8),
    Gzip(u32, u8),
    Compress,
    Remove(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..12u32, 0..4u8, 0..6_000usize).prop_map(|(t, v, n)| Event::Put(t, v, n)),
        4 => (0..12u32, 0..4u8).prop_map(|(t, v)| Event::Get(t, v)),
        2 => (0..12u32, 0..4u8).prop_map(|(t, v)| Event::Gzip(t, v)),
        2 => Just(Event::Compress),
        1 => (0..12u32).prop_map(Event::Remove),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    /// Against a list in the order of use.
    #[test]
    fn bytes_are_bounded_and_the_least_recently_used_gives_way(
        events in events(), limit in 0..30_000usize
    ) {
        let mut documents = Kept::new(limit);
        let mut kept: Vec<(u32, Rc<Plain>)> = Vec::new();
        for event in events {
            let before = kept.clone();
            match event {
                Event::Put(tenant, version, length) => {
                    let full = plain(version, length);
                    documents.put(Tenant(tenant), &full);
                    kept.retain(|(id, _)| *id != tenant);
                    if cost(full.as_ref()) <= limit {
                        kept.push((tenant, full));
                    }
                }
                Event::Get(tenant, version) => {
                    let got = documents.get(Tenant(tenant), &tag(version));
                    let place = kept.iter().position(|(id, full)| {
                        *id == tenant && full.etag() == &tag(version)
                    });
                    prop_assert_eq!(got.as_ref(), place.map(|place| &kept[place].1));
                    if let Some(place) = place {
                        let used = kept.remove(place);
                        kept.push(used);
                    }
                }
                Event::Gzip(tenant, version) => {
                    if let Some(gzip) = documents.gzip(Tenant(tenant), &tag(version)) {
                        let text = documents.entries[&Tenant(tenant)].document.text().len();
                        prop_assert!(gzip.len() < text);
                    }
                }
                Event::Compress => documents.compress(),
                Event::Remove(tenant) => {
                    documents.remove(Tenant(tenant));
                    kept.retain(|(id, _)| *id != tenant);
                }
            }
            prop_assert!(documents.bytes <= limit);
            let sum: usize = documents.entries.values().map(Entry::bytes).sum();
            prop_assert_eq!(documents.bytes, sum);
            prop_assert_eq!(documents.by_use.len(), documents.entries.len());
            // Who gave way was used before all who stay; but for the one whose gzip form needed the room.
            let gone = kept.iter().take_while(|(id, _)| documents.etag(Tenant(*id)).is_none());
            let gone = gone.count();
            let stays = |(id, _): &(u32, Rc<Plain>)| documents.etag(Tenant(*id)).is_some();
            if matches!(event, Event::Compress) {
                kept.retain(stays);
            } else {
                kept.drain(..gone);
                prop_assert!(kept.iter().all(stays), "{before:?}");
            }
            prop_assert_eq!(kept.len(), documents.entries.len());
        }
    }
}
