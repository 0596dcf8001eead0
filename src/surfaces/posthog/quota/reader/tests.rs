use super::*;
use crate::shared::MemoryStore;
use crate::surfaces::posthog::quota::QuotaCopy;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ENTRY: &str = "q";
const TIME: u64 = 1_763_728_000;

struct World {
    store: MemoryStore,
    reader: QuotaReader,
    copy: QuotaCopy,
    now: u64,
    knows_teams: bool,
    events: Vec<QuotaEvent>,
}

fn reader() -> QuotaReader {
    QuotaReader::new(
        ENTRY.to_owned(),
        "fd:".to_owned(),
        Definitions::default(),
        Duration::from_secs(10),
        true,
    )
}

/// Token `t7` is team 7's.
fn team_of(hash: &Sha256Hash) -> Option<Tenant> {
    (1..3_000)
        .map(Tenant)
        .find(|team| Sha256Hash::of(format!("t{team}").as_bytes()) == *hash)
}

impl World {
    fn new() -> Self {
        Self {
            store: MemoryStore::default(),
            reader: reader(),
            copy: QuotaCopy::default(),
            now: 5_000,
            knows_teams: true,
            events: Vec::new(),
        }
    }

    fn tick(&mut self) -> Option<(Target, Command)> {
        let now = Monotonic::from_millis(self.now);
        let knows = self.knows_teams;
        let team_of = |hash: &_| team_of(hash).filter(|_| knows);
        self.reader
            .tick(&self.store, now, team_of, &mut self.events)
    }

    fn reply(&mut self, reply: Result<Reply<'_>, Failure>) {
        self.reader.reply(&self.store, reply, &mut self.events);
    }

    /// The list as of Redis' time `TIME + seconds`; members are token and end relative to `TIME`.
    fn list(&mut self, seconds: u64, members: &[(&str, u64)]) {
        let packed: String = members
            .iter()
            .map(|(token, end)| format!("{}:{token}{}\n", token.len(), TIME + end))
            .collect();
        let seconds = (TIME + seconds).to_string();
        let parts = vec![&b"quota"[..], seconds.as_bytes(), b"0", packed.as_bytes()];
        self.reply(Ok(Reply::array(parts)));
    }

    fn latched(&mut self, seconds: u64) {
        let seconds = (TIME + seconds).to_string();
        let parts = vec![&b"latch"[..], seconds.as_bytes(), b"0", b"1"];
        self.reply(Ok(Reply::array(parts)));
    }

    /// A round up to the first latch command: team, end relative to `TIME`, and whether it is gone.
    fn round(&mut self, seconds: u64, members: &[(&str, u64)]) -> Vec<(u32, u64, bool)> {
        assert_eq!(self.tick().map(|(target, _)| target), Some(Target::Quota));
        self.list(seconds, members);
        let mut command = None;
        while self.reader.is_busy() && command.is_none() {
            command = self.tick();
        }
        command.map(|command| limits(&command)).unwrap_or_default()
    }

    fn limited(&mut self, team: u32) -> bool {
        let now = Monotonic::from_millis(self.now);
        self.copy.refresh(&self.store, ENTRY, now).unwrap();
        self.copy.set().ends(Tenant(team), None, now).is_some()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds * 1_000;
    }

    fn events(&mut self) -> Vec<QuotaEvent> {
        std::mem::take(&mut self.events)
    }
}

fn limits((target, command): &(Target, Command)) -> Vec<(u32, u64, bool)> {
    let parts = command.words();
    assert_eq!(*target, Target::Definitions);
    let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
    let keys: usize = text(parts[2]).parse().unwrap();
    assert_eq!(parts[3 + keys], b"22000", "the grace");
    let limits = parts[3..3 + keys].iter().zip(parts[4 + keys..].chunks(3));
    limits
        .map(|(key, arguments)| {
            let team = text(key).replace("fd:quota_end:", "");
            let end: u64 = text(arguments[1]).parse().unwrap();
            let gone = arguments[0] == b"gone";
            (team.parse().unwrap(), end / 1_000 - TIME, gone)
        })
        .collect()
}

#[test]
fn the_list_reaches_every_worker_and_the_latches() {
    let mut world = World::new();
    let latches = world.round(0, &[("t7", 100), ("stranger", 200)]);
    assert_eq!(latches, [(7, 100, false)]);
    assert!(world.limited(7) && !world.limited(8));
    world.latched(0);
    assert!(!world.reader.is_busy());
    assert_eq!(world.events(), [QuotaEvent::Read]);
    assert_eq!(world.store.len(), 1);
    world.wait(9);
    assert_eq!(world.tick(), None);
    world.wait(1);
    assert_eq!(world.tick(), Some((Target::Quota, scores::command())));
}

#[test]
fn the_last_set_stays_when_redis_fails_and_ends_by_itself() {
    let mut world = World::new();
    world.round(0, &[("t7", 30)]);
    world.latched(0);
    for _ in 0..2 {
        world.wait(10);
        world.tick().unwrap();
        world.reply(Err(Failure::Unavailable));
        assert!(world.limited(7));
        assert_eq!(world.tick(), None, "not before the next interval");
    }
    world.now += 9_997;
    assert!(world.limited(7));
    world.now += 1;
    assert!(!world.limited(7));
    assert_eq!(
        world.events(),
        [
            QuotaEvent::Read,
            QuotaEvent::ReadFailed,
            QuotaEvent::ReadFailed
        ]
    );
}

#[test]
fn a_team_that_is_not_known_any_more_is_still_limited_and_not_lifted() {
    let mut world = World::new();
    assert_eq!(world.round(0, &[("t7", 30)]), [(7, 30, false)]);
    world.latched(0);
    world.knows_teams = false;
    for seconds in [10, 20] {
        world.wait(10);
        assert_eq!(world.round(seconds, &[("t7", 30)]), [(7, 30, false)]);
        world.latched(seconds);
        assert!(world.limited(7));
    }
    world.wait(10);
    assert_eq!(world.round(30, &[]), [(7, 30, true)]);
}

#[test]
fn a_token_that_only_requests_know_the_team_of_gets_a_latch() {
    let mut world = World::new();
    world.knows_teams = false;
    let nobodys = [];
    assert_eq!(world.round(0, &[("t7", 30)]), nobodys);
    let owner = (Sha256Hash::of(b"t7"), Tenant(7));
    // Of another token no more is heard.
    let other = (Sha256Hash::of(b"t8"), Tenant(8));
    world.reader.learn([owner, other]);
    assert_eq!(world.round(1, &[("t7", 30)]), [(7, 30, false)], "at once");
    world.latched(1);
    assert!(world.limited(7));
    world.wait(10);
    assert_eq!(world.round(11, &[("t7", 30), ("t8", 30)]), [(7, 30, false)]);
    world.latched(11);
    world.wait(10);
    assert_eq!(world.round(21, &[("t8", 30)]), [(7, 30, true)]);
}

#[test]
fn a_first_read_that_fails_is_tried_again_after_a_second() {
    let mut world = World::new();
    world.tick().unwrap();
    world.reply(Err(Failure::NotSent));
    world.now += 999;
    assert_eq!(world.tick(), None);
    world.now += 1;
    assert!(world.tick().is_some());
    world.reply(Ok(Reply::Nil));
    assert_eq!(
        world.events(),
        [QuotaEvent::ReadFailed, QuotaEvent::ReadMalformed]
    );
}

#[test]
fn a_lost_reply_does_not_stop_reading() {
    let mut world = World::new();
    world.tick().unwrap();
    world.wait(35);
    assert_eq!(world.tick(), None);
    // The driver gives up the wait.
    world.reply(Err(Failure::Timeout));
    world.now += 1;
    assert!(world.tick().is_some());
    assert_eq!(world.events(), [QuotaEvent::ReadFailed]);
    world.list(36, &[("t7", 100)]);
    assert!(world.reader.is_busy(), "the new read goes on");
}

#[test]
fn a_team_that_left_the_list_is_told_until_redis_heard_it() {
    let mut world = World::new();
    world.round(0, &[("t7", 100), ("t8", 100)]);
    world.latched(0);
    world.wait(10);
    assert_eq!(
        world.round(10, &[("t8", 100)]),
        [(7, 100, true), (8, 100, false)]
    );
    assert!(!world.limited(7));
    world.reply(Err(Failure::Timeout));
    world.wait(10);
    // The VM vanished; another one goes on.
    world.reader = reader();
    assert_eq!(
        world.round(20, &[("t8", 100)]),
        [(7, 100, true), (8, 100, false)]
    );
    world.latched(20);
    world.wait(10);
    assert_eq!(world.round(30, &[("t8", 100)]), [(8, 100, false)]);
    assert_eq!(world.events().last(), Some(&QuotaEvent::Read));
}

fn end(seconds: u64) -> QuotaEnd {
    QuotaEnd::from_millis((TIME + seconds) * 1_000)
}

#[test]
fn a_latch_that_nobody_here_can_explain_is_told_as_gone_by_the_next_list() {
    // Members of the next list; what is told. Another Envoy limited team 7, and is gone.
    for (members, expected) in [
        (&[][..], &[(7, 100, true)][..]),
        (&[("t8", 200)], &[(7, 100, true), (8, 200, false)]),
        // It was limited a moment ago.
        (&[("t7", 100)], &[(7, 100, false)]),
        // It may be the team of that token.
        (&[("stranger", 200)], &[]),
    ] {
        let mut world = World::new();
        world.round(0, &[]);
        world.wait(1);
        world.reader.notice([(Tenant(7), end(100))]);
        // Until Redis heard it.
        for seconds in [1, 11] {
            assert_eq!(world.round(seconds, members), expected, "{members:?}");
            world.reply(Err(Failure::Timeout));
            world.wait(10);
        }
        world.round(21, members);
        world.latched(21);
        world.wait(10);
        let told = world.round(31, members);
        assert!(!told.contains(&(7, 100, true)), "{members:?}");
    }
}

#[test]
fn a_list_that_was_asked_for_before_does_not_say_that_a_latch_has_no_reason() {
    let mut world = World::new();
    world.tick().unwrap();
    world.reader.notice([(Tenant(7), end(100))]);
    world.list(0, &[]);
    assert_eq!(world.tick(), None);
    assert_eq!(world.events(), [QuotaEvent::Read]);
    // At once, not after the interval.
    assert_eq!(world.round(1, &[]), [(7, 100, true)]);
}

#[test]
fn a_team_that_is_limited_again_is_not_gone() {
    let mut world = World::new();
    world.round(0, &[("t7", 100)]);
    world.reply(Err(Failure::Timeout));
    world.wait(10);
    assert_eq!(world.round(10, &[]), [(7, 100, true)]);
    world.reply(Err(Failure::Timeout));
    world.wait(10);
    assert_eq!(world.round(20, &[("t7", 300)]), [(7, 300, false)]);
}

#[test]
fn a_limit_that_was_shortened_is_told_as_gone_until_redis_heard_it_and_its_new_end_last() {
    let mut world = World::new();
    world.round(0, &[("t7", 100)]);
    world.reply(Err(Failure::Timeout));
    world.wait(10);
    for seconds in [10, 20] {
        let told = world.round(seconds, &[("t7", 50)]);
        assert_eq!(told, [(7, 100, true), (7, 50, false)]);
        match seconds {
            10 => world.reply(Err(Failure::Timeout)),
            _ => world.latched(20),
        }
        world.wait(10);
    }
    assert_eq!(world.round(30, &[("t7", 50)]), [(7, 50, false)]);
}

#[test]
fn a_latch_that_would_have_expired_is_not_owed() {
    let mut world = World::new();
    world.round(0, &[("t7", 100)]);
    world.reply(Err(Failure::Timeout));
    world.wait(8 * 24 * 3_600);
    assert_eq!(world.round(8 * 24 * 3_600, &[]), []);
}

#[test]
fn the_clock_of_the_payloads_redis_ends_a_limit_when_it_is_ahead() {
    let mut world = World::new();
    world.round(0, &[("t7", 100)]);
    world.latched(90);
    world.now += 9_997;
    assert!(world.limited(7));
    world.now += 1;
    assert!(!world.limited(7));
    // It is remembered by the sets that follow.
    world.now += 2;
    world.round(10, &[("t7", 100)]);
    assert!(!world.limited(7));
}

#[test]
fn an_older_read_does_not_replace_a_newer_set() {
    let mut world = World::new();
    world.tick().unwrap();
    world.list(0, &[("t7", 100)]);
    let mut held_up = std::mem::replace(&mut world.reader, reader());
    world.wait(1);
    world.round(1, &[("t8", 100)]);
    let now = Monotonic::from_millis(world.now);
    let mut events = Vec::new();
    assert_eq!(held_up.tick(&world.store, now, team_of, &mut events), None);
    assert_eq!(events, []);
    assert!(world.limited(8) && !world.limited(7));
}

#[test]
fn many_teams_take_several_slices_and_several_commands() {
    let mut world = World::new();
    let tokens: Vec<String> = (1..=1_100).map(|team| format!("t{team}")).collect();
    let members: Vec<(&str, u64)> = tokens.iter().map(|token| (token.as_str(), 100)).collect();
    world.tick().unwrap();
    world.list(0, &members);
    assert_eq!(world.tick(), None);
    assert_eq!(world.events(), [], "one slice is not all");
    assert_eq!(world.tick(), None);
    assert_eq!(world.events(), [QuotaEvent::Read]);
    let mut told = Vec::new();
    while world.reader.is_busy() {
        let batch = limits(&world.tick().unwrap());
        assert!(batch.len() <= latch::BATCH);
        told.extend(batch.into_iter().map(|(team, ..)| team));
        world.latched(0);
    }
    assert!(told.into_iter().eq(1..=1_100));
}

#[test]
fn without_free_latch_nothing_is_written_to_redis() {
    let mut world = World::new();
    world.reader.free_latch = false;
    assert_eq!(world.round(0, &[("t7", 100)]), []);
    assert!(world.limited(7) && !world.reader.is_busy());
    world.wait(10);
    assert_eq!(world.round(10, &[]), []);
    assert!(!world.limited(7));
}

#[test]
fn a_reader_that_stopped_begins_anew() {
    let mut world = World::new();
    world.tick().unwrap();
    world.reader.stop();
    world.list(0, &[("t7", 100)]);
    assert!(!world.reader.is_busy());
    assert!(world.tick().is_some());
}
