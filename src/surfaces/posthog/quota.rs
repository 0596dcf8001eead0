//! Teams over their quota, as PostHog lists them in Redis: they get 402.
//!
//! One VM of the process reads the list ([`reader`]) and puts a [`QuotaSet`] into one entry of shared data; every
//! worker keeps a [`QuotaCopy`], so that a request costs no host call. When Redis fails the last set stays, and
//! its members still end one by one at their own score.
//!
//! # Which clock?
//! Scores are Unix time, and the wall clock of an Envoy may be anything. So the set carries the time of Redis
//! together with the [`Monotonic`] instant at which the question was sent: counted from there "now" is never
//! behind Redis, and a 402 ends at its score or a round trip earlier, never later. The quota list and the
//! payloads may be in two Redis with two clocks; then the one that is ahead counts, because after an end by the
//! payloads' clock the team's ETag has its suffix (`definitions::latch`), and no 402 may follow that.
//!
//! # After a limit
//! A limit may end here before Redis' clock shows its end, by a round trip, or because it was lifted. Until an ETag
//! tells that the period is over, there is none for that team ([`QuotaCopy::left`], [`longest_pending`]).

mod copy;
mod job;
pub mod noticed;
pub mod reader;
mod scores;
pub mod settings;

pub use crate::surfaces::posthog::definitions::latch::QuotaEnd;
use std::cmp::Ordering;
use std::time::Duration;

pub use copy::QuotaCopy;
pub use job::QuotaJob;

use crate::hash::Sha256Hash;
use crate::records::{CorruptRecord, Reader as Input};
use crate::shared::Scope;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most members that are known; of more, those that end last are left out.
pub const MAX_MEMBERS: usize = 10_000;

/// What a time of Redis and the instant at which it is asked for lose, when each is rounded down to a millisecond.
const ROUNDED_OFF: u64 = 2;

/// What a read of a clock may take, in milliseconds: Redis may have looked that long after it was asked.
const READ_TAKES: u64 = 500;

/// For how long after a limit was lifted some Envoy may still answer 402: two reads, a tick for the command and one
/// for the workers' copies.
pub const fn grace(interval: Duration) -> Duration {
    interval.saturating_mul(2).saturating_add(MARGIN)
}

/// For how long at most a team that is limited no more gets no ETag: three intervals, or where that is longer the grace
/// and the time until a latch that a worker meets is ended. Then its end could not be written to Redis.
pub fn longest_pending(interval: Duration) -> Duration {
    let patient = grace(interval).saturating_add(MARGIN.saturating_mul(2));
    interval.saturating_mul(3).max(patient)
}

const MARGIN: Duration = Duration::from_secs(2);

/// One Redis' time at one instant of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// When the question for the time was sent: Redis looked at its clock then or later.
    pub asked_at: Monotonic,
    /// What it said, in milliseconds since 1970.
    pub millis: u64,
}

impl Clock {
    /// Redis' time, or a little more: never less.
    fn at(self, now: Monotonic) -> u64 {
        let since = now.as_millis().saturating_sub(self.asked_at.as_millis());
        self.millis
            .saturating_add(since)
            .saturating_add(ROUNDED_OFF)
    }

    /// When [`Clock::at`] reaches an end.
    fn reaches(self, end: QuotaEnd) -> Monotonic {
        let wait = end.as_millis().saturating_sub(self.millis);
        let wait = wait.saturating_sub(ROUNDED_OFF);
        self.asked_at.plus(Duration::from_millis(wait))
    }

    /// When Redis' clock shows an end, or a little later: never before.
    fn when(self, end: QuotaEnd) -> Monotonic {
        let wait = end.as_millis().saturating_sub(self.millis);
        self.asked_at
            .plus(Duration::from_millis(wait.saturating_add(READ_TAKES)))
    }
}

/// The entry that holds the set.
pub fn name(scope: &Scope) -> String {
    scope.name("quota")
}

/// The entry that tells the reader what workers noticed ([`noticed`]).
pub fn noticed_name(scope: &Scope) -> String {
    scope.name("quota_told")
}

/// The lease of whoever reads the set.
pub fn lease_name(scope: &Scope) -> String {
    scope.name("quota_lease")
}

/// A token that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Of its text.
    pub hash: Sha256Hash,
    /// Its team, where the directory knows it.
    pub team: Option<Tenant>,
    /// When the limit ends.
    pub end: QuotaEnd,
}

/// In hash order; of one hash the later end first. Not inlined: sorting by an inlined comparison of hashes took 20 KB of
/// code.
#[inline(never)]
fn by_hash(one: &Member, other: &Member) -> Ordering {
    let hashes = one.hash.cmp(&other.hash);
    hashes.then_with(|| other.end.cmp(&one.end))
}

/// A team that is limited no more, which Redis has not been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub team: Tenant,
    /// When the limit was to end.
    pub end: QuotaEnd,
}

/// A limit that ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// When.
    pub at: Monotonic,
    /// No earlier end can be that of its period, by Redis' clock.
    pub end: QuotaEnd,
}

/// The limited teams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaSet {
    /// Clock of the Redis that holds the list; `None` before the first read.
    clock: Option<Clock>,
    /// Clock of the Redis that holds the payloads, as far as it was heard.
    definitions_clock: Option<Clock>,
    /// In hash order.
    members: Vec<Member>,
    /// Ends of the members whose team is known, in team order.
    teams: Vec<(Tenant, QuotaEnd)>,
    owed: Vec<Owed>,
}

impl QuotaSet {
    /// A set as it was read. Of a member that comes twice the later end counts.
    fn new(clock: Clock, mut members: Vec<Member>) -> Self {
        members.truncate(MAX_MEMBERS);
        members.sort_unstable_by(by_hash);
        members.dedup_by_key(|member| member.hash);
        let mut teams: Vec<_> = members
            .iter()
            .filter_map(|member| Some((member.team?, member.end)))
            .collect();
        teams.sort_unstable_by_key(|(team, end)| (*team, std::cmp::Reverse(*end)));
        teams.dedup_by_key(|(team, _)| *team);
        Self {
            clock: Some(clock),
            definitions_clock: None,
            members,
            teams,
            owed: Vec::new(),
        }
    }

    /// Until when a team is limited; `None` when it is not, or no longer. A request without a `token` parameter
    /// has no hash and is found by its team alone.
    pub fn ends(
        &self,
        team: Tenant,
        token: Option<&Sha256Hash>,
        now: Monotonic,
    ) -> Option<QuotaEnd> {
        // Nobody is limited: so it is nearly always.
        if self.members.is_empty() {
            return None;
        }
        let by_token = token.and_then(|hash| self.member(hash).map(|member| member.end));
        let end = by_token.max(self.team_ends(team))?;
        (end.as_millis() > self.redis_now(now)).then_some(end)
    }

    /// Number of members, ended ones included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is limited.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How old the set is: `None` before the first read.
    pub fn read_at(&self) -> Option<Monotonic> {
        self.clock.map(|clock| clock.asked_at)
    }

    /// When a limit that is still in the set ends here, and the end itself.
    fn ends_at(&self, team: Tenant, token: Option<&Sha256Hash>) -> Option<Left> {
        let by_token = token.and_then(|hash| self.member(hash).map(|member| member.end));
        let end = by_token.max(self.team_ends(team))?;
        let clocks = self.clock.into_iter().chain(self.definitions_clock);
        let at = clocks.map(|clock| clock.reaches(end)).min()?;
        Some(Left { at, end })
    }

    /// When a limit is over for sure, whichever clock counts; `None` for a team without one.
    fn over_at(&self, team: Tenant, token: Option<&Sha256Hash>) -> Option<Monotonic> {
        let by_token = token.and_then(|hash| self.member(hash).map(|member| member.end));
        let end = by_token.max(self.team_ends(team))?;
        let clocks = self.clock.into_iter().chain(self.definitions_clock);
        clocks.map(|clock| clock.when(end)).max()
    }

    fn member(&self, token: &Sha256Hash) -> Option<&Member> {
        let place = self
            .members
            .binary_search_by_key(token, |member| member.hash);
        self.members.get(place.ok()?)
    }

    fn team_of(&self, token: &Sha256Hash) -> Option<Tenant> {
        self.member(token)?.team
    }

    fn team_ends(&self, team: Tenant) -> Option<QuotaEnd> {
        let place = self.teams.binary_search_by_key(&team, |(id, _)| *id);
        self.teams.get(place.ok()?).map(|(_, end)| *end)
    }

    /// The later of the clocks, in milliseconds since 1970.
    fn redis_now(&self, now: Monotonic) -> u64 {
        let clocks = self.clock.into_iter().chain(self.definitions_clock);
        clocks.map(|clock| clock.at(now)).max().unwrap_or(u64::MAX)
    }

    /// Reads [`QuotaSet::encode`]'s bytes; absent bytes are the set before the first read.
    fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut input = Input(bytes);
        let clock = read_clock(&mut input)?.ok_or(CorruptRecord)?;
        let definitions_clock = read_clock(&mut input)?;
        let mut members = Vec::with_capacity(read_count(&mut input)?);
        for _ in 0..members.capacity() {
            members.push(Member {
                hash: Sha256Hash::from_bytes(input.array()?),
                team: Some(input.u32()?).filter(|id| *id != 0).map(Tenant),
                end: QuotaEnd::from_millis(input.u64()?),
            });
        }
        let mut owed = Vec::with_capacity(read_count(&mut input)?);
        for _ in 0..owed.capacity() {
            owed.push(Owed {
                team: Tenant(input.u32()?),
                end: QuotaEnd::from_millis(input.u64()?),
            });
        }
        if !input.is_empty() {
            return Err(CorruptRecord);
        }
        Ok(Self {
            definitions_clock,
            owed,
            ..Self::new(clock, members)
        })
    }

    /// Little-endian: two clocks (`u64` asked at, `u64` milliseconds; all 0 when not heard), `u32` count and
    /// members (hash, `u32` team or 0, `u64` end), `u32` count and owed teams (`u32` team, `u64` end).
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40 + self.members.len() * 44 + self.owed.len() * 12);
        for clock in [self.clock, self.definitions_clock] {
            let (asked_at, millis) =
                clock.map_or((0, 0), |clock| (clock.asked_at.as_millis(), clock.millis));
            bytes.extend_from_slice(&asked_at.to_le_bytes());
            bytes.extend_from_slice(&millis.to_le_bytes());
        }
        // Lossless: both lists are bounded by MAX_MEMBERS.
        bytes.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        for member in &self.members {
            bytes.extend_from_slice(member.hash.as_bytes());
            bytes.extend_from_slice(&member.team.map_or(0, |team| team.0).to_le_bytes());
            bytes.extend_from_slice(&member.end.as_millis().to_le_bytes());
        }
        bytes.extend_from_slice(&(self.owed.len() as u32).to_le_bytes());
        for owed in &self.owed {
            bytes.extend_from_slice(&owed.team.0.to_le_bytes());
            bytes.extend_from_slice(&owed.end.as_millis().to_le_bytes());
        }
        bytes
    }
}

fn read_clock(input: &mut Input<'_>) -> Result<Option<Clock>, CorruptRecord> {
    let asked_at = Monotonic::from_millis(input.u64()?);
    let millis = input.u64()?;
    Ok((millis != 0).then_some(Clock { asked_at, millis }))
}

fn read_count(input: &mut Input<'_>) -> Result<usize, CorruptRecord> {
    let count = usize::try_from(input.u32()?).map_err(|_| CorruptRecord)?;
    (count <= MAX_MEMBERS).then_some(count).ok_or(CorruptRecord)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TEAM: Tenant = Tenant(7);

    pub(super) fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    pub(super) fn clock(asked_at: u64, millis: u64) -> Clock {
        Clock {
            asked_at: at(asked_at),
            millis,
        }
    }

    pub(super) fn member(token: &str, team: u32, end: u64) -> Member {
        Member {
            hash: Sha256Hash::of(token.as_bytes()),
            team: (team != 0).then_some(Tenant(team)),
            end: QuotaEnd::from_millis(end),
        }
    }

    #[test]
    fn a_team_is_found_by_its_token_or_by_its_id() {
        let set = QuotaSet::new(
            clock(0, 1_000),
            vec![member("a", 7, 5_000), member("b", 0, 6_000)],
        );
        let (a, b) = (Sha256Hash::of(b"a"), Sha256Hash::of(b"b"));
        let ends = |team, token| {
            set.ends(Tenant(team), token, at(0))
                .map(QuotaEnd::as_millis)
        };
        assert_eq!(ends(7, Some(&a)), Some(5_000));
        assert_eq!(ends(7, None), Some(5_000));
        assert_eq!(ends(8, Some(&b)), Some(6_000));
        assert_eq!(ends(8, None), None, "the directory does not know it");
        assert_eq!(ends(0, None), None);
        assert_eq!(ends(8, Some(&Sha256Hash::of(b"c"))), None);
    }

    #[test]
    fn a_member_ends_at_its_own_score_without_another_read() {
        let set = QuotaSet::new(
            clock(100, 1_000),
            vec![member("a", 7, 5_000), member("b", 8, 5_001)],
        );
        assert!(set.ends(TEAM, None, at(4_097)).is_some());
        assert!(set.ends(TEAM, None, at(4_098)).is_none());
        assert!(set.ends(Tenant(8), None, at(4_098)).is_some());
        assert!(set.ends(TEAM, None, at(u64::MAX)).is_none());
        assert!(QuotaSet::default().ends(TEAM, None, at(0)).is_none());
    }

    #[test]
    fn the_clock_that_is_ahead_ends_a_limit() {
        let mut set = QuotaSet::new(clock(0, 1_000), vec![member("a", 7, 5_000)]);
        set.definitions_clock = Some(clock(0, 3_000));
        assert!(set.ends(TEAM, None, at(1_997)).is_some());
        assert!(set.ends(TEAM, None, at(1_998)).is_none());
        set.definitions_clock = Some(clock(0, 500));
        assert!(set.ends(TEAM, None, at(3_997)).is_some());
        assert!(set.ends(TEAM, None, at(3_998)).is_none());
    }

    #[test]
    fn of_two_tokens_of_a_team_the_later_end_counts() {
        let set = QuotaSet::new(
            clock(0, 1_000),
            vec![member("a", 7, 5_000), member("b", 7, 6_000)],
        );
        let ends = |token: &[u8]| set.ends(TEAM, Some(&Sha256Hash::of(token)), at(0));
        assert_eq!(ends(b"a"), Some(QuotaEnd::from_millis(6_000)));
        assert_eq!(ends(b"other"), Some(QuotaEnd::from_millis(6_000)));
    }

    #[test]
    fn a_count_beyond_the_bound_is_refused_before_anything_is_allocated() {
        let set = QuotaSet::new(clock(1, 2), Vec::new());
        let mut bytes = set.encode();
        bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(QuotaSet::decode(&bytes), Err(CorruptRecord));
    }

    proptest! {
        #[test]
        fn sets_survive_shared_data(
            members in prop::collection::vec((any::<[u8; 32]>(), any::<u32>(), any::<u64>()), 0..20),
            owed in prop::collection::vec((any::<u32>(), any::<u64>()), 0..5),
            definitions in prop::option::of((any::<u64>(), 1..u64::MAX)),
        ) {
            let members = members.into_iter().map(|(hash, team, end)| Member {
                hash: Sha256Hash::from_bytes(hash),
                team: (team != 0).then_some(Tenant(team)),
                end: QuotaEnd::from_millis(end),
            });
            let mut set = QuotaSet::new(clock(3, 4), members.collect());
            set.definitions_clock = definitions.map(|(asked_at, millis)| clock(asked_at, millis));
            set.owed = owed
                .into_iter()
                .map(|(team, end)| Owed { team: Tenant(team), end: QuotaEnd::from_millis(end) })
                .collect();
            prop_assert_eq!(QuotaSet::decode(&set.encode()), Ok(set));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = QuotaSet::decode(&bytes);
        }
    }
}
