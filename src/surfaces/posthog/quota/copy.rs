//! A worker's own copy of the set, so that a request costs no host call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Left, MAX_MEMBERS, QuotaEnd, QuotaSet, longest_pending};
use crate::hash::Sha256Hash;
use crate::shared::{Cas, Store, StoreError};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// For how long at least a team that left the set is remembered: longer than an ETag may count as confirmed, so that
/// what was confirmed before the end of its limit is not used after it.
const LEFT_TTL: Duration = Duration::from_secs(62);

/// Most of those that are remembered.
const MOST_LEFT: usize = 2 * MAX_MEMBERS;

/// The set as a worker knows it, and who left it a short time ago.
#[derive(Debug, Default)]
pub struct QuotaCopy {
    cas: Option<Cas>,
    set: QuotaSet,
    left_tokens: BTreeMap<Sha256Hash, Left>,
    left_teams: BTreeMap<Tenant, Left>,
    interval: Duration,
}

impl QuotaCopy {
    /// A copy of nothing. `interval`: how often the set is read.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            ..Self::default()
        }
    }

    /// Copies the set if it changed; to be called on the tick, once a second or more often. Unreadable bytes
    /// leave the copy as it is.
    ///
    /// # Errors
    /// When shared data fails; the copy stays.
    pub fn refresh(
        &mut self,
        store: &impl Store,
        entry: &str,
        now: Monotonic,
    ) -> Result<(), StoreError> {
        let ttl = LEFT_TTL.max(longest_pending(self.interval));
        let remembered = |left: &Left| now.since(left.at) < ttl;
        self.left_tokens.retain(|_, left| remembered(left));
        self.left_teams.retain(|_, left| remembered(left));
        let stored = store.read(entry)?;
        if self.cas != Some(stored.cas) {
            self.cas = Some(stored.cas);
            if let Ok(set) = QuotaSet::decode(&stored.value) {
                self.replace(set, now);
            }
        }
        Ok(())
    }

    fn replace(&mut self, set: QuotaSet, now: Monotonic) {
        let before = std::mem::replace(&mut self.set, set);
        let redis_now = QuotaEnd::from_millis(self.set.redis_now(now));
        for member in before.members {
            let has_room = self.left_tokens.len() < MOST_LEFT;
            if has_room && self.set.member(&member.hash).is_none() {
                let end = member.end.min(redis_now);
                let left = Left { at: now, end };
                self.left_tokens.insert(member.hash, left);
                if let Some(team) = member.team {
                    self.left_teams.insert(team, left);
                }
            }
        }
    }

    /// The set.
    pub fn set(&self) -> &QuotaSet {
        &self.set
    }

    /// Until when a team is limited, see [`QuotaSet::ends`].
    pub fn ends(
        &self,
        team: Tenant,
        token: Option<&Sha256Hash>,
        now: Monotonic,
    ) -> Option<QuotaEnd> {
        self.set.ends(team, token, now)
    }

    /// Whether this token is limited, and the set does not say whose it is.
    pub fn lacks_team_of(&self, token: &Sha256Hash) -> bool {
        let member = self.set.member(token);
        member.is_some_and(|member| member.team.is_none())
    }

    /// Since when what was confirmed about a team's ETag counts: since the end of its limit, where that lies only a
    /// short time back, because its ETag got a suffix then. Later than any time while it is limited.
    pub fn settled_since(&self, team: Tenant, token: Option<&Sha256Hash>) -> Option<Monotonic> {
        if self.set.is_empty() && self.left_tokens.is_empty() {
            return None;
        }
        let left = self.forgotten(team, token).map(|left| left.at);
        left.max(self.set.over_at(team, token))
    }

    /// When a limit ended here a short time ago; to be asked for a team that is not limited.
    pub fn left(&self, team: Tenant, token: Option<&Sha256Hash>) -> Option<Left> {
        if self.set.is_empty() && self.left_tokens.is_empty() {
            return None;
        }
        let later = |left: &Left| left.at;
        let known = [self.forgotten(team, token), self.set.ends_at(team, token)];
        known.into_iter().flatten().max_by_key(later)
    }

    fn forgotten(&self, team: Tenant, token: Option<&Sha256Hash>) -> Option<Left> {
        let by_team = self.left_teams.get(&team);
        let by_token = token.and_then(|token| self.left_tokens.get(token));
        by_team
            .into_iter()
            .chain(by_token)
            .max_by_key(|left| left.at)
            .copied()
    }
}

#[cfg(test)]
use super::{Clock, Member};

#[cfg(test)]
impl QuotaCopy {
    /// That of a worker which saw a limit end.
    pub(crate) fn of_one_who_left(token: &[u8], at: Monotonic) -> Self {
        let mut copy = Self::default();
        let end = QuotaEnd::from_millis(1_763_728_000_000);
        copy.left_tokens
            .insert(Sha256Hash::of(token), Left { at, end });
        copy
    }

    /// One in which a token is limited for a minute from `now` on, as the list was read then.
    pub(crate) fn of_one_limited(token: &[u8], team: Option<Tenant>, now: Monotonic) -> Self {
        let clock = Clock {
            asked_at: now,
            millis: 1_763_728_000_000,
        };
        let member = Member {
            hash: Sha256Hash::of(token),
            team,
            end: QuotaEnd::from_millis(clock.millis + 60_000),
        };
        Self {
            set: QuotaSet::new(clock, vec![member]),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, clock, member};
    use super::*;
    use crate::shared::{Cas, MemoryStore};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn who_left_the_set_is_remembered_for_a_while() {
        let store = MemoryStore::default();
        let mut copy = QuotaCopy::default();
        let put = |copy: &mut QuotaCopy, members, now| {
            let set = QuotaSet::new(clock(0, 1_000), members);
            let cas = store.read("q").unwrap().cas;
            assert!(store.replace("q", &set.encode(), cas).unwrap());
            copy.refresh(&store, "q", at(now)).unwrap();
        };
        let team = Tenant(7);
        let token = Sha256Hash::of(b"a");
        assert_eq!(copy.settled_since(team, Some(&token)), None);
        put(
            &mut copy,
            vec![member("a", 7, 5_000), member("b", 0, 6_000)],
            1_000,
        );
        // Ends 4 s after the read at 0, and a margin later.
        let ended = Some(at(4_500));
        assert_eq!(copy.settled_since(team, None), ended);
        assert_eq!(copy.settled_since(Tenant(8), Some(&token)), ended);
        put(&mut copy, vec![], 7_000);
        for (team, token, expected) in [
            (7, None, Some(7_000)),
            (8, Some(&b"a"[..]), Some(7_000)),
            (8, Some(b"b"), Some(7_000)),
            (8, Some(b"c"), None),
            (8, None, None),
        ] {
            let token = token.map(Sha256Hash::of);
            let since = copy.settled_since(Tenant(team), token.as_ref());
            assert_eq!(since, expected.map(at));
        }
        put(&mut copy, vec![], 7_000 + 61_999);
        assert!(copy.settled_since(team, None).is_some());
        put(&mut copy, vec![], 7_000 + 62_000);
        assert_eq!(copy.settled_since(team, Some(&token)), None);
    }

    #[test]
    fn when_a_limit_ended_here_is_known_for_three_intervals() {
        let store = MemoryStore::default();
        let mut copy = QuotaCopy::new(Duration::from_secs(30));
        let put = |copy: &mut QuotaCopy, set: QuotaSet, now| {
            let cas = store.read("q").unwrap().cas;
            assert!(store.replace("q", &set.encode(), cas).unwrap());
            copy.refresh(&store, "q", at(now)).unwrap();
        };
        let left = |millis, end| {
            let end = QuotaEnd::from_millis(end);
            Some(Left {
                at: at(millis),
                end,
            })
        };
        let (team, token) = (Tenant(7), Sha256Hash::of(b"a"));
        let members = vec![member("a", 7, 5_000), member("b", 8, 90_000)];
        put(&mut copy, QuotaSet::new(clock(100, 1_000), members), 1_000);
        // By itself: at its own end, by the clock that is ahead.
        assert_eq!(copy.left(team, None), left(4_098, 5_000));
        assert_eq!(copy.left(Tenant(9), Some(&token)), left(4_098, 5_000));
        assert_eq!(copy.left(Tenant(9), None), None);
        assert!(copy.ends(team, None, at(4_097)).is_some());
        assert!(copy.ends(team, None, at(4_098)).is_none());
        // Lifted: as of now, and no end before what Redis' clock shows can be that of its period.
        put(&mut copy, QuotaSet::new(clock(6_000, 7_000), vec![]), 6_500);
        assert_eq!(copy.left(team, None), left(6_500, 5_000));
        assert_eq!(copy.left(Tenant(8), None), left(6_500, 7_502));
        copy.refresh(&store, "q", at(96_499)).unwrap();
        assert!(copy.left(team, None).is_some());
        copy.refresh(&store, "q", at(96_500)).unwrap();
        assert_eq!(copy.left(team, None), None);
    }

    #[test]
    fn a_copy_follows_the_entry_and_survives_unreadable_bytes() {
        let store = MemoryStore::default();
        let mut copy = QuotaCopy::default();
        copy.refresh(&store, "q", at(0)).unwrap();
        assert!(copy.set().is_empty());
        let set = QuotaSet::new(clock(1, 2), vec![member("a", 7, 5_000)]);
        store.replace("q", &set.encode(), Cas::ABSENT).unwrap();
        copy.refresh(&store, "q", at(0)).unwrap();
        assert_eq!(copy.set(), &set);
        let cas = store.read("q").unwrap().cas;
        store.replace("q", b"nonsense", cas).unwrap();
        copy.refresh(&store, "q", at(0)).unwrap();
        assert_eq!(copy.set(), &set);
    }
}
