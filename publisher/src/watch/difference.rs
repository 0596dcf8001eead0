//! What a full read of the source changes, and what of that is held back. Records of other surfaces are no part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;

use super::doubt::{Doubt, is_credential};
use super::state::{PublishedState, RecordChange};
use crate::redis::published::RecordMap;
use crate::sources::kinds::RecordOwner;
use crate::sources::{Announcement, Reading, SourcePosition};

/// Walks two sorted maps at once: what makes the first into the second. Equal records cost a comparison.
pub fn between(
    before: &RecordMap,
    after: impl IntoIterator<Item = (Sha256Hash, Box<[u8]>)>,
) -> impl Iterator<Item = RecordChange> {
    Walk {
        before: before.iter().peekable(),
        after: after.into_iter().peekable(),
    }
}

struct Walk<'a, A: Iterator<Item = (Sha256Hash, Box<[u8]>)>> {
    before: Peekable<std::collections::btree_map::Iter<'a, Sha256Hash, Box<[u8]>>>,
    after: Peekable<A>,
}

impl<A: Iterator<Item = (Sha256Hash, Box<[u8]>)>> Iterator for Walk<'_, A> {
    type Item = RecordChange;

    fn next(&mut self) -> Option<RecordChange> {
        loop {
            let gone = match (self.before.peek(), self.after.peek()) {
                (Some((old, _)), Some((new, _))) if *old < new => true,
                (Some((old, _)), Some((new, _))) if **old == *new => {
                    let (_, old) = self.before.next()?;
                    let (hash, new) = self.after.next()?;
                    if *old == new {
                        continue;
                    }
                    return Some((hash, Some(new)));
                }
                (Some(_), None) => true,
                _ => false,
            };
            if gone {
                return self.before.next().map(|(hash, _)| (*hash, None));
            }
            return self.after.next().map(|(hash, record)| (hash, Some(record)));
        }
    }
}

/// What is to be published because of a full read.
#[derive(Debug, Default)]
pub struct Difference {
    /// In hash order.
    pub changes: Vec<RecordChange>,
    /// Removals that are not among them, because they are not believed.
    pub held_back: usize,
    /// Why they are not.
    pub doubt: Option<Doubt>,
}

/// No replica lags by more. A database whose positions stay lower for longer began its log anew (it was restored from
/// a backup), and what was known of positions counts no more.
const MAX_LAG: Duration = Duration::from_secs(600);

/// What the database announced, as far as no full read has caught up with it.
#[derive(Debug, Default)]
pub struct Announced {
    by_hash: BTreeMap<Sha256Hash, (SourcePosition, Instant)>,
    /// Position of the last reading that was taken over, and when.
    read: Option<(SourcePosition, Instant)>,
    /// Removals that were held back of that reading.
    held_back: BTreeSet<Sha256Hash>,
}

impl Announced {
    /// The changes of an announcement that are news. Those from before the last full read are not: that saw
    /// at least as much.
    pub fn take(
        &mut self,
        announcement: Announcement,
        state: &PublishedState,
        now: Instant,
    ) -> Vec<RecordChange> {
        let position = announcement.position;
        if self.is_outdated(position, now) {
            return Vec::new();
        }
        let owner = RecordOwner::of_sources();
        let mut changed: BTreeMap<_, _> = announcement.changed.into_iter().collect();
        changed.retain(|hash, _| !state.is_of_another(owner, hash));
        for hash in changed.keys() {
            self.by_hash.insert(*hash, (position, now));
        }
        changed.retain(|hash, record| state.get(hash) != record.as_deref());
        changed.into_iter().collect()
    }

    /// Whether the last full read saw at least as much: of several replicas one may be behind another.
    pub fn is_outdated(&self, position: SourcePosition, now: Instant) -> bool {
        self.read.is_some_and(|(read, taken)| {
            position < read && now.saturating_duration_since(taken) < MAX_LAG
        })
    }

    /// What a full read changes. It must not undo what was announced when it had begun already.
    /// `max_removal_percent` may go without being held back ([`Doubt`]); 100: all of everything.
    pub fn difference(
        &mut self,
        reading: Reading,
        state: &PublishedState,
        max_removal_percent: u32,
        now: Instant,
    ) -> Difference {
        self.read = Some((reading.position, now));
        self.by_hash.retain(|_, (announced, since)| {
            *announced >= reading.position && now.saturating_duration_since(*since) < MAX_LAG
        });
        let lacks_project_keys = reading.lacks_project_keys;
        let owner = RecordOwner::of_sources();
        let mut changes: Vec<RecordChange> = between(state.records(), reading.records)
            .filter(|(hash, _)| !self.by_hash.contains_key(hash))
            .filter(|(hash, _)| !state.is_of_another(owner, hash))
            .collect();
        let doubt = Doubt::of(state, &changes, lacks_project_keys, max_removal_percent);
        let held_back = match doubt {
            Some(_) => self.hold_back(&mut changes, state),
            None => BTreeSet::new(),
        };
        self.held_back = held_back;
        Difference {
            changes,
            held_back: self.held_back.len(),
            doubt,
        }
    }

    /// Takes the removals out of `changes`. A single credential that went after the reading before was held back was
    /// revoked by itself: it stays among them.
    fn hold_back(
        &self,
        changes: &mut Vec<RecordChange>,
        state: &PublishedState,
    ) -> BTreeSet<Sha256Hash> {
        let mut removed: BTreeSet<Sha256Hash> = changes
            .iter()
            .filter(|(_, record)| record.is_none())
            .map(|(hash, _)| *hash)
            .collect();
        let mut news = removed.difference(&self.held_back).copied();
        let revoked = match (news.next(), news.next()) {
            (Some(hash), None) if !self.held_back.is_empty() => Some(hash),
            _ => None,
        };
        if let Some(hash) = revoked.filter(|hash| is_credential(state.get(hash))) {
            removed.remove(&hash);
        }
        changes.retain(|(hash, _)| !removed.contains(hash));
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::surfaces::posthog::directory::{Record, Team};
    use flag_definitions_filter::tenant::Tenant;

    fn hash(n: u32) -> Sha256Hash {
        Sha256Hash::of(&n.to_le_bytes())
    }

    fn secret(team: u32) -> Box<[u8]> {
        Record::TeamSecret(Tenant(team)).encode().unwrap().into()
    }

    fn records(numbers: impl IntoIterator<Item = u32>) -> RecordMap {
        numbers.into_iter().map(|n| (hash(n), secret(1))).collect()
    }

    fn teams(numbers: impl IntoIterator<Item = u32>) -> RecordMap {
        let team = |n| {
            let organization = None;
            Record::Team(Team {
                id: Tenant(n),
                organization,
            })
            .encode()
            .unwrap()
            .into()
        };
        numbers.into_iter().map(|n| (hash(n), team(n))).collect()
    }

    fn state(numbers: impl IntoIterator<Item = u32>) -> PublishedState {
        PublishedState::of(records(numbers))
    }

    fn reading(records: RecordMap, position: u64) -> Reading {
        Reading {
            records,
            position: SourcePosition(position),
            ..Reading::default()
        }
    }

    fn announcement(n: u32, record: Option<Box<[u8]>>, position: u64) -> Announcement {
        Announcement {
            changed: vec![(hash(n), record)],
            position: SourcePosition(position),
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let before = records(0..500);
        let mut after = records(100..600);
        after.insert(hash(200), secret(2));
        let mut copy = before.clone();
        let changes: Vec<RecordChange> = between(&before, after.clone()).collect();
        assert_eq!(changes.len(), 100 + 100 + 1);
        assert!(changes.is_sorted_by_key(|(hash, _)| *hash));
        for (hash, record) in changes {
            match record {
                Some(record) => copy.insert(hash, record),
                None => copy.remove(&hash),
            };
        }
        assert_eq!(copy, after);
        assert_eq!(between(&after, after.clone()).count(), 0);
    }

    #[test]
    fn too_many_removals_are_held_back_alone() {
        for (left, percent, held_back) in [
            (800, 20, 0),
            (799, 20, 201),
            (0, 20, 1_000),
            (0, 100, 0),
            (899, 0, 101),
            (900, 0, 0),
        ] {
            let state = state(0..1_000);
            let mut after = records(0..left);
            after.insert(hash(5_000), secret(1));
            let mut announced = Announced::default();
            let difference =
                announced.difference(reading(after, 1), &state, percent, Instant::now());
            assert_eq!(difference.held_back, held_back, "{left} {percent}");
            let expected = 1 + 1_000 - left as usize - held_back;
            assert_eq!(difference.changes.len(), expected);
        }
    }

    #[test]
    fn a_credential_revoked_while_removals_are_held_back_goes_out() {
        let mut before = teams(0..10);
        before.extend(records(100..110));
        let mut state = PublishedState::of(before);
        let (mut announced, now) = (Announced::default(), Instant::now());
        // What goes out, and how many removals do not.
        let mut take = |state: &mut PublishedState, after: RecordMap| {
            let difference = announced.difference(reading(after, 1), state, 20, now);
            let held_back = difference.held_back;
            assert_eq!(difference.doubt.is_some(), held_back > 0);
            let mut changed = Vec::new();
            for change in difference.changes {
                changed.push(change.0);
                state.put(change);
            }
            changed.sort_unstable();
            (changed, held_back)
        };
        let left = |secrets: std::ops::Range<u32>| {
            let mut left = teams(0..5);
            left.extend(records(secrets));
            left
        };
        // With the teams it waits; alone it does not; two at once do.
        assert_eq!(take(&mut state, left(101..110)), (vec![], 6));
        assert_eq!(take(&mut state, left(102..110)), (vec![hash(101)], 6));
        assert_eq!(take(&mut state, left(103..110)), (vec![hash(102)], 6));
        assert_eq!(take(&mut state, left(105..110)), (vec![], 8));
        // Nor a team, however small its share of what is new.
        let mut fewer = left(105..110);
        fewer.remove(&hash(0));
        assert_eq!(take(&mut state, fewer), (vec![], 9));
        // All of it is back, but for one that may go.
        let mut back = teams(0..10);
        back.extend(records(100..109));
        let mut expected = vec![hash(101), hash(102), hash(109)];
        expected.sort_unstable();
        assert_eq!(take(&mut state, back), (expected, 0));
    }

    #[test]
    fn an_older_reading_does_not_undo_an_announcement() {
        let mut published = state([1, 2]);
        let (mut announced, now) = (Announced::default(), Instant::now());
        let changes = announced.take(announcement(1, None, 10), &published, now);
        assert_eq!(changes, [(hash(1), None)]);
        published.put((hash(1), None));

        // Begun before: still has what is gone.
        for position in [9, 10] {
            let difference =
                announced.difference(reading(records([1, 2]), position), &published, 20, now);
            assert!(difference.changes.is_empty(), "{position}");
        }
        let difference = announced.difference(reading(records([1, 2]), 11), &published, 20, now);
        assert_eq!(difference.changes, [(hash(1), Some(secret(1)))]);
        // Looked up before the reading: old news.
        assert!(
            announced
                .take(announcement(2, None, 10), &published, now)
                .is_empty()
        );
        assert_eq!(
            announced
                .take(announcement(2, None, 11), &published, now)
                .len(),
            1
        );
        assert!(
            announced
                .take(announcement(2, Some(secret(1)), 12), &published, now)
                .is_empty()
        );

        // A replica that is behind, and a log that began anew.
        assert!(announced.is_outdated(SourcePosition(10), now));
        assert!(!announced.is_outdated(SourcePosition(10), now + MAX_LAG));
        let later = now + MAX_LAG;
        let difference = announced.difference(reading(records([1]), 5), &published, 20, later);
        assert_eq!(difference.changes.len(), 2);
    }
}
