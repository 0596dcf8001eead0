//! What is published: every record that a filter which followed has, ETags among them.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::Bound;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::{Record, RecordCounts, etag_hash};
use flag_definitions_filter::tenant::Tenant;

use crate::redis::published::RecordMap;

/// A change of one record; `None` removes it.
pub type RecordChange = (Sha256Hash, Option<Box<[u8]>>);

/// The published records. ETags are kept apart because they come from another source than the rest.
#[derive(Debug, Default)]
pub struct PublishedState {
    records: RecordMap,
    etags: RecordMap,
    /// How many tokens name a team.
    teams: BTreeMap<Tenant, u32>,
    /// Goes up whenever a team comes or goes.
    teams_revision: u64,
    counts: RecordCounts,
}

impl PublishedState {
    /// What these records make; ETags among them or not.
    pub fn of(records: RecordMap) -> Self {
        let mut state = Self::default();
        for (hash, record) in records {
            state.put((hash, Some(record)));
        }
        state
    }

    /// Teams and credentials, without ETags.
    pub fn records(&self) -> &RecordMap {
        &self.records
    }

    /// The record of a hash, of either kind.
    pub fn get(&self, hash: &Sha256Hash) -> Option<&[u8]> {
        let found = self.records.get(hash).or_else(|| self.etags.get(hash));
        found.map(AsRef::as_ref)
    }

    /// Makes a change, and returns what was there before.
    pub fn put(&mut self, (hash, record): RecordChange) -> Option<Box<[u8]>> {
        let kind = record.as_deref().map(Kind::of);
        let before = match self.records.remove(&hash) {
            Some(before) => Some(before),
            None => self.etags.remove(&hash),
        };
        if let Some(before) = &before {
            self.count(Kind::of(before), false);
        }
        if let (Some(record), Some(kind)) = (record, kind) {
            self.count(kind, true);
            let map = match kind {
                Kind::Removed => return before,
                Kind::ETag => &mut self.etags,
                _ => &mut self.records,
            };
            map.insert(hash, record);
        }
        before
    }

    /// Whether a change is one of an ETag.
    pub fn is_etag(&self, hash: &Sha256Hash, record: Option<&[u8]>) -> bool {
        match record {
            Some(record) => Kind::of(record) == Kind::ETag,
            None => self.etags.contains_key(hash),
        }
    }

    /// Number of records by kind.
    pub fn counts(&self) -> RecordCounts {
        self.counts
    }

    /// The teams, in order.
    pub fn teams(&self) -> impl Iterator<Item = Tenant> {
        self.teams.keys().copied()
    }

    /// How many tokens name the team.
    pub fn tokens(&self, team: Tenant) -> u32 {
        self.teams.get(&team).copied().unwrap_or(0)
    }

    /// Another number whenever a team came or went.
    pub fn teams_revision(&self) -> u64 {
        self.teams_revision
    }

    /// Whether a token names the team.
    pub fn has_team(&self, team: Tenant) -> bool {
        self.teams.contains_key(&team)
    }

    /// ETags of teams that are no longer there.
    pub fn orphaned_etags(&self) -> Vec<Sha256Hash> {
        let known: std::collections::HashSet<Sha256Hash> = self.teams().map(etag_hash).collect();
        let hashes = self.etags.keys();
        hashes
            .filter(|hash| !known.contains(hash))
            .copied()
            .collect()
    }

    /// All records after a hash, in hash order.
    pub fn after(&self, last: Option<Sha256Hash>) -> InOrder<'_> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        InOrder {
            records: self.records.range(range).peekable(),
            etags: self.etags.range(range).peekable(),
        }
    }

    /// Bytes of all records and their hashes.
    pub fn bytes(&self) -> usize {
        self.after(None).map(|(_, record)| record.len() + 34).sum()
    }

    fn count(&mut self, kind: Kind, more: bool) {
        let counts = &mut self.counts;
        let counter = match kind {
            Kind::Team(team) => {
                let tokens = self.teams.entry(team).or_default();
                *tokens = if more {
                    *tokens + 1
                } else {
                    tokens.saturating_sub(1)
                };
                if *tokens == 0 {
                    self.teams.remove(&team);
                    self.teams_revision += 1;
                } else if more && *tokens == 1 {
                    self.teams_revision += 1;
                }
                &mut counts.teams
            }
            Kind::TeamSecret => &mut counts.team_secrets,
            Kind::ProjectSecret => &mut counts.project_secret_keys,
            Kind::Personal => &mut counts.personal_keys,
            Kind::ETag => &mut counts.etags,
            Kind::Removed => return,
        };
        *counter = if more {
            *counter + 1
        } else {
            counter.saturating_sub(1)
        };
    }
}

/// Two maps as one, in hash order. They have no hash in common.
pub struct InOrder<'a> {
    records: Peekable<Range<'a, Sha256Hash, Box<[u8]>>>,
    etags: Peekable<Range<'a, Sha256Hash, Box<[u8]>>>,
}

impl<'a> Iterator for InOrder<'a> {
    type Item = (Sha256Hash, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let next = match (self.records.peek(), self.etags.peek()) {
            (Some((record, _)), Some((etag, _))) if etag < record => self.etags.next(),
            (None, _) => self.etags.next(),
            _ => self.records.next(),
        };
        next.map(|(hash, record)| (*hash, record.as_ref()))
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Team(Tenant),
    TeamSecret,
    ProjectSecret,
    Personal,
    ETag,
    /// A tombstone, or bytes that no filter would take either.
    Removed,
}

impl Kind {
    fn of(record: &[u8]) -> Self {
        match Record::decode(record) {
            Ok(Record::Team(team)) => Self::Team(team.id),
            Ok(Record::TeamSecret(_)) => Self::TeamSecret,
            Ok(Record::ProjectSecret { .. }) => Self::ProjectSecret,
            Ok(Record::Personal(_)) => Self::Personal,
            Ok(Record::ETag(_)) => Self::ETag,
            Ok(Record::Tombstone) | Err(_) => Self::Removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::http::ETag;
    use flag_definitions_filter::surfaces::posthog::directory::Team;

    fn bytes(record: &Record) -> Option<Box<[u8]>> {
        Some(record.encode().unwrap().into())
    }

    #[test]
    fn records_and_etags_come_in_one_order_and_are_counted() {
        let mut state = PublishedState::default();
        let team = Tenant(7);
        let token = Sha256Hash::of(b"phc_a");
        let organization = None;
        state.put((
            token,
            bytes(&Record::Team(Team {
                id: team,
                organization,
            })),
        ));
        let etag = Record::ETag(ETag::new(b"aa").unwrap());
        state.put((etag_hash(team), bytes(&etag)));
        for n in 0..50u8 {
            state.put((Sha256Hash::of(&[n]), bytes(&Record::TeamSecret(team))));
        }
        let hashes: Vec<_> = state.after(None).map(|(hash, _)| hash).collect();
        assert!(hashes.is_sorted() && hashes.len() == 52);
        let rest: Vec<_> = state
            .after(hashes.get(20).copied())
            .map(|(hash, _)| hash)
            .collect();
        assert_eq!(rest, hashes[21..]);
        let counts = state.counts();
        assert_eq!(
            (counts.teams, counts.team_secrets, counts.etags),
            (1, 50, 1)
        );
        assert!(state.orphaned_etags().is_empty());

        // A second token of the team, then the first goes: the team stays.
        let other = Sha256Hash::of(b"phc_b");
        state.put((
            other,
            bytes(&Record::Team(Team {
                id: team,
                organization,
            })),
        ));
        assert!(state.put((token, None)).is_some());
        assert!(state.has_team(team));
        state.put((other, bytes(&Record::Tombstone)));
        assert!(!state.has_team(team));
        assert_eq!(state.orphaned_etags(), [etag_hash(team)]);
        assert_eq!(state.counts().teams, 0);
    }
}
