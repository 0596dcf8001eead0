//! The bodies that were read last, so that a 200 need not read its own.
//!
//! Of each team one version is kept, under the ETag that clients see. What is kept says nothing about what is
//! current: [`crate::surfaces::posthog::pipeline`] answers with it only when exactly this ETag is known to be current. A text that was
//! read with the ETag of another is not kept ([`super::proof`]).
//!
//! All that is kept is bounded in bytes; the team whose body was not used for longest gives way. Making room drops
//! as many small bodies as the new one has kilobytes at most, which takes less than reading it did.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::gzip::{Compression, LONGEST, Progress};
use super::outcome::Full;
use super::proof::{self, Proof};
use crate::http::ETag;
use crate::tenant::Tenant;

/// What keeping a body costs beyond its bytes: map entries, the ETag, and the allocator's share.
const OVERHEAD: usize = 1 << 10;

/// Most teams whose bodies wait to be compressed. Others ask again with their next request.
const MOST_WANTED: usize = 64;

/// Most long bodies at a time of which it is not known yet whether they may be kept, and their part of all bytes.
const MOST_UNPROVEN: usize = 64;
const UNPROVEN_PART: usize = 4;

/// Bodies of one worker.
pub struct Bodies {
    most: usize,
    bytes: usize,
    entries: FxHashMap<Tenant, Entry>,
    /// Who was used when: the first is who gives way.
    by_use: BTreeMap<u64, Tenant>,
    uses: u64,
    /// What is kept once its text was hashed.
    unproven: VecDeque<(Tenant, Proof)>,
    /// Whose gzip form was asked for and is not there yet.
    wanted: VecDeque<Tenant>,
    compressing: Option<(Tenant, Compression)>,
}

struct Entry {
    full: Rc<Full>,
    gzip: Gzip,
    used: u64,
}

/// The gzip form of a body.
enum Gzip {
    /// Nobody asked for it.
    Unasked,
    /// Somebody did.
    Wanted,
    /// There it is.
    Made(Rc<Vec<u8>>),
    /// It would be no gain.
    Useless,
}

impl Entry {
    fn bytes(&self) -> usize {
        let gzip = match &self.gzip {
            Gzip::Made(gzip) => gzip.len(),
            _ => 0,
        };
        cost(&self.full).saturating_add(gzip)
    }
}

fn cost(full: &Full) -> usize {
    full.text.len().saturating_add(OVERHEAD)
}

impl Bodies {
    /// Keeps at most so many bytes; with 0 nothing at all.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            bytes: 0,
            entries: FxHashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
            unproven: VecDeque::new(),
            wanted: VecDeque::new(),
            compressing: None,
        }
    }

    /// Which version of a team's body is kept.
    pub fn etag(&self, team: Tenant) -> Option<&ETag> {
        self.entries.get(&team).map(|entry| &entry.full.etag)
    }

    /// A team's body, if exactly this version is kept.
    pub fn get(&mut self, team: Tenant, etag: &ETag) -> Option<Rc<Full>> {
        let entry = self.entries.get_mut(&team)?;
        if entry.full.etag != *etag {
            return None;
        }
        if entry.used != self.uses {
            self.by_use.remove(&entry.used);
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, team);
        }
        Some(Rc::clone(&entry.full))
    }

    /// Keeps what was read, in place of what was kept of the team; a long text not before some calls of
    /// [`Bodies::work`].
    pub fn put(&mut self, team: Tenant, full: &Rc<Full>) {
        let same = self.entries.get(&team).is_some_and(|entry| {
            // Read anew, because the ETag had to be computed, or was asked for by who holds another.
            entry.full.etag == full.etag && entry.full == *full
        });
        if same {
            self.get(team, &full.etag);
            return;
        }
        // While it is hashed it may be read again and again: that must not begin anew each time.
        let is_hashed = |(other, proof): &(Tenant, Proof)| *other == team && proof.full() == full;
        if self.unproven.iter().any(is_hashed) {
            return;
        }
        self.remove(team);
        if cost(full) > self.most {
            return;
        }
        match Proof::begin(full) {
            proof::Progress::Done(Some(full)) => self.keep(team, &full),
            proof::Progress::Done(None) => {}
            proof::Progress::More(proof) => {
                let lengths = self
                    .unproven
                    .iter()
                    .map(|(_, proof)| proof.full().text.len());
                let held = lengths.sum::<usize>().saturating_add(full.text.len());
                let fits = held <= self.most / UNPROVEN_PART;
                // The next read brings it again.
                if fits && self.unproven.len() < MOST_UNPROVEN {
                    self.unproven.push_back((team, proof));
                }
            }
        }
    }

    fn keep(&mut self, team: Tenant, full: &Rc<Full>) {
        self.remove(team);
        self.make_room(cost(full));
        self.uses += 1;
        let entry = Entry {
            full: Rc::clone(full),
            gzip: Gzip::Unasked,
            used: self.uses,
        };
        self.bytes += entry.bytes();
        self.by_use.insert(entry.used, team);
        self.entries.insert(team, entry);
    }

    /// The gzip form of a body, if it is there. Otherwise it is made in later calls of [`Bodies::work`].
    pub fn gzip(&mut self, team: Tenant, etag: &ETag) -> Option<Rc<Vec<u8>>> {
        let entry = self.entries.get_mut(&team)?;
        if entry.full.etag != *etag {
            return None;
        }
        match &entry.gzip {
            Gzip::Made(gzip) => return Some(Rc::clone(gzip)),
            Gzip::Unasked if entry.full.text.len() > LONGEST => entry.gzip = Gzip::Useless,
            Gzip::Unasked if self.wanted.len() < MOST_WANTED => {
                entry.gzip = Gzip::Wanted;
                self.wanted.push_back(team);
            }
            _ => {}
        }
        None
    }

    /// Length of what a client gets of a body that is kept in this version.
    pub fn length(&self, team: Tenant, etag: &ETag, accepts_gzip: bool) -> Option<usize> {
        let entry = self.entries.get(&team)?;
        if entry.full.etag != *etag {
            return None;
        }
        Some(match &entry.gzip {
            Gzip::Made(gzip) if accepts_gzip => gzip.len(),
            _ => entry.full.text.len(),
        })
    }

    /// Whether [`Bodies::work`] has something to do.
    pub fn is_busy(&self) -> bool {
        !self.unproven.is_empty() || self.compressing.is_some() || !self.wanted.is_empty()
    }

    /// Does a slice of what takes longer: hashes a part of a long body, or compresses one that is wanted in gzip
    /// form. About 2 ms.
    pub fn work(&mut self) {
        let Some((team, proof)) = self.unproven.pop_front() else {
            return self.compress();
        };
        match proof.step() {
            proof::Progress::More(proof) => self.unproven.push_front((team, proof)),
            proof::Progress::Done(Some(full)) => self.keep(team, &full),
            proof::Progress::Done(None) => {}
        }
    }

    fn compress(&mut self) {
        let Some((team, work)) = self.compressing.take().or_else(|| self.next_wanted()) else {
            return;
        };
        // It may have given way to another, or to a newer version.
        let kept = self.entries.get(&team);
        if !kept.is_some_and(|entry| Rc::ptr_eq(&entry.full, work.full())) {
            return;
        }
        match work.step() {
            Progress::More(work) => self.compressing = Some((team, work)),
            Progress::Done(gzip) => self.keep_gzip(team, gzip),
        }
    }

    fn next_wanted(&mut self) -> Option<(Tenant, Compression)> {
        while let Some(team) = self.wanted.pop_front() {
            let Some(entry) = self.entries.get_mut(&team) else {
                continue;
            };
            if !matches!(entry.gzip, Gzip::Wanted) {
                continue;
            }
            match Compression::begin(Rc::clone(&entry.full)) {
                Some(work) => return Some((team, work)),
                None => entry.gzip = Gzip::Useless,
            }
        }
        None
    }

    fn keep_gzip(&mut self, team: Tenant, gzip: Option<Vec<u8>>) {
        // Taken out meanwhile, so that it does not give way to its own gzip form.
        let Some(mut entry) = self.take(team) else {
            return;
        };
        entry.gzip = match gzip {
            Some(gzip) if cost(&entry.full).saturating_add(gzip.len()) <= self.most => {
                Gzip::Made(Rc::new(gzip))
            }
            _ => Gzip::Useless,
        };
        self.make_room(entry.bytes());
        self.bytes += entry.bytes();
        self.by_use.insert(entry.used, team);
        self.entries.insert(team, entry);
    }

    /// Drops a team's body.
    pub fn remove(&mut self, team: Tenant) {
        self.unproven.retain(|(other, _)| *other != team);
        self.take(team);
    }

    fn take(&mut self, team: Tenant) -> Option<Entry> {
        let entry = self.entries.remove(&team)?;
        self.by_use.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        Some(entry)
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes.saturating_add(bytes) > self.most
            && let Some((_, team)) = self.by_use.pop_first()
        {
            self.take(team);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn tag(version: u8) -> ETag {
        ETag::new(format!("v{version}").as_bytes()).unwrap()
    }

    fn full(version: u8, length: usize) -> Rc<Full> {
        Rc::new(Full {
            etag: tag(version),
            etag_stored: true,
            text: vec![b'0' + version % 10; length],
            billable: true,
        })
    }

    const TEAM: Tenant = Tenant(7);

    /// Everything that was asked for is compressed.
    fn compress(bodies: &mut Bodies) {
        for _ in 0..1_000 {
            bodies.work();
        }
        assert!(!bodies.is_busy());
    }

    #[test]
    fn one_version_of_a_team_is_kept_and_no_other_is_answered_with() {
        let mut bodies = Bodies::new(1 << 20);
        bodies.put(TEAM, &full(1, 10));
        assert_eq!(bodies.etag(TEAM), Some(&tag(1)));
        assert_eq!(bodies.get(TEAM, &tag(2)), None);
        assert_eq!(bodies.gzip(TEAM, &tag(2)), None);
        assert_eq!(bodies.length(TEAM, &tag(2), false), None);
        bodies.put(TEAM, &full(2, 20));
        assert_eq!(bodies.get(TEAM, &tag(1)), None);
        assert_eq!(bodies.get(TEAM, &tag(2)).unwrap().text.len(), 20);
        assert_eq!(bodies.bytes, 20 + OVERHEAD);
        // The same ETag with another text: what was read last counts.
        bodies.put(TEAM, &full(2, 30));
        assert_eq!(bodies.get(TEAM, &tag(2)).unwrap().text.len(), 30);
        bodies.remove(TEAM);
        assert_eq!((bodies.get(TEAM, &tag(2)), bodies.bytes), (None, 0));
    }

    #[test]
    fn a_text_with_the_etag_of_another_is_not_kept_and_drives_out_what_was() {
        let mut bodies = Bodies::new(16 << 20);
        for length in [100, 1 << 20] {
            let text = vec![b'x'; length];
            let own = ETag::of_text(&text);
            let version = |etag: &ETag, text: &[u8]| {
                Rc::new(Full {
                    etag: etag.clone(),
                    etag_stored: true,
                    text: text.to_vec(),
                    billable: true,
                })
            };
            bodies.put(TEAM, &version(&own, &text));
            compress(&mut bodies);
            assert_eq!(bodies.etag(TEAM), Some(&own));
            bodies.put(TEAM, &version(&own, &vec![b'y'; length]));
            compress(&mut bodies);
            assert_eq!(bodies.etag(TEAM), None, "{length}");
            // What is read meanwhile counts, and what was read before it does not come back.
            bodies.put(TEAM, &version(&own, &text));
            bodies.put(TEAM, &full(2, 10));
            compress(&mut bodies);
            assert_eq!(bodies.etag(TEAM), Some(&tag(2)));
        }
    }

    #[test]
    fn long_bodies_that_wait_for_their_proof_are_bounded() {
        let mut bodies = Bodies::new(16 << 20);
        let text = vec![b'x'; 1 << 20];
        let long = Rc::new(Full {
            etag: ETag::of_text(&text),
            etag_stored: true,
            billable: true,
            text,
        });
        for team in 0..9 {
            bodies.put(Tenant(team), &long);
            bodies.put(Tenant(team), &Rc::new((*long).clone()));
        }
        assert_eq!(bodies.unproven.len(), 4, "a quarter of all bytes");
        compress(&mut bodies);
        let kept = (0..9).filter(|team| bodies.etag(Tenant(*team)).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_larger_than_everything_is_not_kept_and_drives_nobody_out() {
        let mut bodies = Bodies::new(10_000);
        bodies.put(Tenant(1), &full(1, 1_000));
        bodies.put(TEAM, &full(1, 10_000));
        assert!(bodies.etag(TEAM).is_none() && bodies.etag(Tenant(1)).is_some());
        bodies.put(TEAM, &full(1, 10_000 - OVERHEAD));
        assert!(bodies.etag(TEAM).is_some() && bodies.etag(Tenant(1)).is_none());
        let mut off = Bodies::new(0);
        off.put(TEAM, &full(1, 0));
        assert_eq!(off.etag(TEAM), None);
    }

    #[test]
    fn the_gzip_form_comes_later_and_stays_while_the_text_does() {
        let mut bodies = Bodies::new(1 << 20);
        bodies.put(TEAM, &full(1, 100_000));
        assert!(!bodies.is_busy(), "nobody asked for it");
        assert_eq!(bodies.gzip(TEAM, &tag(1)), None);
        bodies.compress();
        assert_eq!(bodies.gzip(TEAM, &tag(1)), None, "it takes two slices");
        bodies.compress();
        let gzip = bodies.gzip(TEAM, &tag(1)).unwrap();
        assert!(!bodies.is_busy());
        assert_eq!(bodies.bytes, 100_000 + OVERHEAD + gzip.len());
        assert_eq!(bodies.length(TEAM, &tag(1), true), Some(gzip.len()));
        assert_eq!(bodies.length(TEAM, &tag(1), false), Some(100_000));
        bodies.put(TEAM, &full(1, 100_000));
        assert_eq!(bodies.gzip(TEAM, &tag(1)), Some(gzip));
        bodies.put(TEAM, &full(2, 100_000));
        assert_eq!(bodies.gzip(TEAM, &tag(2)), None);
    }

    #[test]
    fn work_on_a_version_that_gave_way_is_dropped() {
        let mut bodies = Bodies::new(1 << 20);
        bodies.put(TEAM, &full(1, 200_000));
        bodies.gzip(TEAM, &tag(1));
        bodies.compress();
        bodies.put(TEAM, &full(2, 200_000));
        bodies.compress();
        assert!(!bodies.is_busy());
        assert_eq!(bodies.gzip(TEAM, &tag(2)), None);
        bodies.remove(TEAM);
        compress(&mut bodies);
        assert_eq!(bodies.bytes, 0);
    }

    #[test]
    fn a_gzip_form_that_finds_no_room_is_not_made_again_and_again() {
        let mut bodies = Bodies::new(20_000 + OVERHEAD);
        bodies.put(TEAM, &full(1, 20_000));
        bodies.gzip(TEAM, &tag(1));
        compress(&mut bodies);
        assert_eq!(bodies.gzip(TEAM, &tag(1)), None);
        assert!(!bodies.is_busy());
        assert!(bodies.get(TEAM, &tag(1)).is_some(), "the text stays");
    }

    #[test]
    fn who_waits_for_a_gzip_form_is_bounded_and_asks_again() {
        let mut bodies = Bodies::new(1 << 20);
        let teams = || (0..200).map(Tenant);
        teams().for_each(|team| bodies.put(team, &full(1, 1_000)));
        for _ in 0..4 {
            teams().for_each(|team| drop(bodies.gzip(team, &tag(1))));
            assert!(bodies.wanted.len() <= MOST_WANTED);
            compress(&mut bodies);
        }
        assert!(teams().all(|team| bodies.gzip(team, &tag(1)).is_some()));
    }

    #[test]
    fn a_text_too_long_for_gzip_makes_no_work() {
        let mut bodies = Bodies::new(LONGEST * 2);
        bodies.put(TEAM, &full(1, LONGEST + 1));
        assert_eq!(bodies.gzip(TEAM, &tag(1)), None);
        assert!(!bodies.is_busy());
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
            events in events(), most in 0..30_000usize
        ) {
            let mut bodies = Bodies::new(most);
            let mut kept: Vec<(u32, Rc<Full>)> = Vec::new();
            for event in events {
                let before = kept.clone();
                match event {
                    Event::Put(team, version, length) => {
                        let full = full(version, length);
                        bodies.put(Tenant(team), &full);
                        kept.retain(|(id, _)| *id != team);
                        if cost(&full) <= most {
                            kept.push((team, full));
                        }
                    }
                    Event::Get(team, version) => {
                        let got = bodies.get(Tenant(team), &tag(version));
                        let place = kept.iter().position(|(id, full)| {
                            *id == team && full.etag == tag(version)
                        });
                        prop_assert_eq!(got.as_ref(), place.map(|place| &kept[place].1));
                        if let Some(place) = place {
                            let used = kept.remove(place);
                            kept.push(used);
                        }
                    }
                    Event::Gzip(team, version) => {
                        if let Some(gzip) = bodies.gzip(Tenant(team), &tag(version)) {
                            let text = bodies.entries[&Tenant(team)].full.text.len();
                            prop_assert!(gzip.len() < text);
                        }
                    }
                    Event::Compress => bodies.compress(),
                    Event::Remove(team) => {
                        bodies.remove(Tenant(team));
                        kept.retain(|(id, _)| *id != team);
                    }
                }
                prop_assert!(bodies.bytes <= most);
                let sum: usize = bodies.entries.values().map(Entry::bytes).sum();
                prop_assert_eq!(bodies.bytes, sum);
                prop_assert_eq!(bodies.by_use.len(), bodies.entries.len());
                // Who gave way was used before all who stay; but for the one whose gzip form needed the room.
                let gone = kept.iter().take_while(|(id, _)| bodies.etag(Tenant(*id)).is_none());
                let gone = gone.count();
                let stays = |(id, _): &(u32, Rc<Full>)| bodies.etag(Tenant(*id)).is_some();
                if matches!(event, Event::Compress) {
                    kept.retain(stays);
                } else {
                    kept.drain(..gone);
                    prop_assert!(kept.iter().all(stays), "{before:?}");
                }
                prop_assert_eq!(kept.len(), bodies.entries.len());
            }
        }
    }
}
