//! How fast, and with how much memory. Not run by default:
//! `CARGO_PROFILE_RELEASE_PANIC=unwind cargo test --release -p flag-definitions-publisher --test watch scale:: -- --ignored --nocapture --test-threads 1`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flag_definitions_filter::directory::{
    OrganizationId, PersonalKey, Record, Sha256Hash, Team, TeamId,
};
use flag_definitions_filter::snapshot::change::{self, Change, Content};
use flag_definitions_publisher::postgres::{Lsn, Reading, Records};
use flag_definitions_publisher::watch::source::{Heard, Source};

use crate::instance::{Instance, reading, settings};
use crate::support::Redis;

/// Made up anew at each read, so that the watcher alone holds them.
struct MadeUp {
    teams: u32,
    keys: u32,
}

impl Source for MadeUp {
    fn read_all(&self, _: &mut dyn FnMut(u64)) -> Result<Reading, String> {
        let mut records = Records::new();
        for id in 1..=self.teams {
            let organization = Some(OrganizationId([(id % 251) as u8; 16]));
            let team = Record::Team(Team {
                id: TeamId(id),
                organization,
            });
            let hash = Sha256Hash::of(format!("phc_{id}").as_bytes());
            records.insert(hash, team.encode().unwrap().into());
        }
        for n in 0..self.keys {
            let key = PersonalKey {
                user_active: true,
                reads_flags: true,
                organizations: vec![OrganizationId([(n % 251) as u8; 16]); 1 + n as usize % 2],
                ..PersonalKey::default()
            };
            let hash = Sha256Hash::of(format!("phx_{n}").as_bytes());
            records.insert(hash, Record::Personal(key).encode().unwrap().into());
        }
        Ok(reading(records, Lsn(1)))
    }

    fn listen(&self, stop: &AtomicBool, _: &mut dyn FnMut(Heard)) {
        while !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn key(team: u32) -> String {
    format!("posthog:1:cache/teams/{team}/feature_flags/flags_with_cohorts.json:etag")
}

fn write_etags(redis: &mut Redis, teams: u32) {
    for first in (1..=teams).step_by(1_000) {
        let mut pipe = redis::pipe();
        for team in first..(first + 1_000).min(teams + 1) {
            pipe.set(key(team), format!("{team:016x}")).ignore();
        }
        let () = pipe.query(&mut redis.connection).unwrap();
    }
}

/// Most memory this process has had, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1_000
}

#[test]
#[ignore = "takes minutes; run it optimized"]
fn a_million_credentials() {
    let mut redis = Redis::start();
    write_etags(&mut redis, 100_000);
    let source = Arc::new(MadeUp {
        teams: 100_000,
        keys: 1_000_000,
    });
    let mut often = settings(&redis.url());
    often.sweep_interval = Duration::from_secs(1);
    often.diff_interval = Duration::from_secs(10);
    let began = Instant::now();
    let instance = Instance::start(often, &source);
    instance.wait("the snapshot", |figures| figures.lineages == 1);
    println!(
        "first snapshot after {:?}, peak {} MB",
        began.elapsed(),
        peak()
    );
    instance.wait_until_live();
    let read = instance.status.figures().last_read;
    // Another full read, compared with what is published.
    instance.wait("a second full read", |figures| figures.last_read != read);
    println!("after a second full read peak {} MB", peak());
    let () = redis.command("DEL", &["flag_definitions:snapshot:1:7"]);
    let began = Instant::now();
    instance.wait("a second snapshot", |figures| figures.snapshots == 2);
    println!(
        "second snapshot after {:?}, peak {} MB",
        began.elapsed(),
        peak()
    );
    instance.stop();
    let mut often = settings(&redis.url());
    often.diff_interval = Duration::from_secs(60);
    let began = Instant::now();
    let instance = Instance::start(often, &source);
    instance.wait_until_live();
    println!("restored after {:?}, peak {} MB", began.elapsed(), peak());
    assert_eq!(instance.status.figures().lineages, 0);
    assert!(peak() < 500);
}

#[test]
#[ignore = "takes a minute; run it optimized"]
fn a_hundred_thousand_teams() {
    let mut redis = Redis::start();
    write_etags(&mut redis, 100_000);
    let source = Arc::new(MadeUp {
        teams: 100_000,
        keys: 10_000,
    });
    let mut every_second = settings(&redis.url());
    every_second.sweep_interval = Duration::from_secs(1);
    every_second.diff_interval = Duration::from_secs(30);
    let instance = Instance::start(every_second, &source);
    let figures = instance.wait_until_live();
    assert_eq!(figures.etags_known, 100_000);

    // Entries as they come, and when.
    let client = redis::Client::open(redis.url()).unwrap();
    let (seen, arrived) = std::sync::mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        type Entry = (Vec<u8>, Vec<Vec<u8>>);
        let mut connection = client.get_connection().unwrap();
        let mut last = "$".to_owned();
        while !stopped.load(Ordering::SeqCst) {
            let reply: Option<Vec<(String, Vec<Entry>)>> = redis::cmd("XREAD")
                .arg(&[
                    "BLOCK",
                    "1000",
                    "STREAMS",
                    "flag_definitions:changes",
                    &last,
                ])
                .query(&mut connection)
                .unwrap();
            let now = Instant::now();
            for (id, fields) in reply.into_iter().flatten().flat_map(|(_, entries)| entries) {
                let change =
                    Change::parse(&id, &fields[1], &fields[3], &fields[5], &fields[7]).unwrap();
                last = String::from_utf8(id).unwrap();
                let Content::Records(bytes) = change.content else {
                    continue;
                };
                let mut cursor = change::records(bytes).unwrap();
                while let Some((_, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                    if let Record::ETag(etag) = Record::decode(record).unwrap() {
                        seen.send((etag.as_bytes().to_vec(), now)).unwrap();
                    }
                    cursor.seek(next);
                }
            }
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut written = std::collections::BTreeMap::new();
    for n in 0..2_000u32 {
        let team = n.wrapping_mul(7_919) % 100_000 + 1;
        let etag = format!("new{n}");
        written.insert(etag.clone().into_bytes(), Instant::now());
        let () = redis.command("SET", &[key(team), etag]);
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs(4));
    stop.store(true, Ordering::SeqCst);
    reader.join().unwrap();
    let mut delays: Vec<Duration> = arrived
        .try_iter()
        .filter_map(|(etag, at)| Some(at - *written.get(&etag)?))
        .collect();
    delays.sort();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "{} of 2000 new ETags seen; p50 {:?}, p99 {:?}, most {:?}; a sweep takes {:?}; peak {} MB",
        delays.len(),
        at(50),
        at(99),
        at(100),
        instance.status.figures().sweep.unwrap(),
        peak()
    );
    assert!(delays.len() == 2_000 && at(99) < Duration::from_millis(1_300));
}
