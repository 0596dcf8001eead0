//! ETags as clients see them, found by looking and by hints.

use std::time::Duration;

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::posthog::directory::{Record, etag_hash};
use flag_definitions_filter::tenant::Tenant;

use crate::instance::{Instance, Memory, eventually, settings};
use crate::published::Published;
use crate::support::Redis;

fn key(team: u32) -> String {
    format!("posthog:1:cache/teams/{team}/feature_flags/flags_with_cohorts.json:etag")
}

/// As Python's pickle protocol 4 writes a string.
fn pickled(text: &str) -> Vec<u8> {
    let length = text.len() as u8;
    let mut bytes = vec![0x80, 4, 0x95, length + 4, 0, 0, 0, 0, 0, 0, 0, 0x8c, length];
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&[0x94, 0x2e]);
    bytes
}

fn etag(redis: &mut Redis, team: u32) -> Option<String> {
    match Published::read(redis).records.get(&etag_hash(Tenant(team))) {
        Some(Record::ETag(etag)) => Some(String::from_utf8(etag.as_bytes().to_vec()).unwrap()),
        _ => None,
    }
}

#[test]
fn pickled_etags_with_the_suffix_of_a_quota_period() {
    let mut redis = Redis::start();
    let set = |redis: &mut Redis, key: &str, value: &[u8]| {
        let () = redis.command("SET", &[key.as_bytes(), value]);
    };
    set(&mut redis, &key(1), &pickled("ccbb299897f0a689"));
    set(&mut redis, &key(2), b"plain");
    set(&mut redis, &key(3), b"no etag");
    let source = Memory::with_teams(5);
    let instance = Instance::start(settings(&redis.url()), &source);
    let figures = instance.wait_until_live();
    assert_eq!(figures.etags_known, 2);
    assert_eq!(etag(&mut redis, 1).unwrap(), "ccbb299897f0a689");
    assert_eq!(etag(&mut redis, 2).unwrap(), "plain");
    assert_eq!(etag(&mut redis, 3), None);
    // In the first snapshot already.
    assert_eq!(Published::read(&mut redis).counts().etags, 2);

    let (seconds, _): (u64, u64) = redis.command("TIME", &[""; 0]);
    let end = (seconds + 3) * 1_000;
    set(
        &mut redis,
        "flag_definitions:quota_end:2",
        format!("{end}:zz9:plain").as_bytes(),
    );
    set(
        &mut redis,
        "flag_definitions:quota_end:1",
        format!("{end}:zz9:other").as_bytes(),
    );
    // Before the end there is none: a 304 would leave clients without flags that were told 402.
    let mut seen = false;
    loop {
        let shown = etag(&mut redis, 2);
        let (seconds, micros): (u64, u64) = redis.command("TIME", &[""; 0]);
        if seconds * 1_000 + micros / 1_000 >= end {
            break;
        }
        assert!(shown.is_none() || !seen, "{shown:?}");
        seen |= shown.is_none() && etag(&mut redis, 1).is_none();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(seen, "the ETags were not taken back");
    eventually("the end of the period", || {
        etag(&mut redis, 2).as_deref() == Some("plain-zz9")
    });
    let (seconds, _): (u64, u64) = redis.command("TIME", &[""; 0]);
    assert!(seconds * 1_000 >= end);
    eventually("the end for another document", || {
        etag(&mut redis, 1).as_deref() == Some("ccbb299897f0a689")
    });

    set(&mut redis, &key(2), b"next");
    eventually("the next document", || {
        etag(&mut redis, 2).unwrap() == "next"
    });
    let () = redis.command("DEL", &[key(2)]);
    eventually("its removal", || etag(&mut redis, 2).is_none());
}

#[test]
fn a_watermark_follows_what_its_sweep_found() {
    let mut redis = Redis::start();
    let source = Memory::with_teams(200);
    let instance = Instance::start(settings(&redis.url()), &source);
    instance.wait_until_live();
    for round in 0..20 {
        let team = round * 7 + 1;
        let () = redis.command("SET", &[key(team), format!("v{round}")]);
        let (seconds, micros): (u64, u64) = redis.command("TIME", &[""; 0]);
        let written = seconds * 1_000 + micros / 1_000;
        eventually("a watermark from after that", || {
            let published = Published::read(&mut redis);
            let covers = published
                .watermarks()
                .iter()
                .any(|mark| mark.etags_at > written);
            if covers {
                let expected = ETag::new(format!("v{round}").as_bytes()).map(Record::ETag);
                assert_eq!(
                    published.records.get(&etag_hash(Tenant(team))),
                    expected.as_ref()
                );
            }
            covers
        });
    }
}

#[test]
fn redis_itself_names_what_changed() {
    let mut redis = Redis::start();
    let () = redis.command("CONFIG", &["SET", "notify-keyspace-events", "K$"]);
    let source = Memory::with_teams(50);
    let mut slow = settings(&redis.url());
    slow.sweep_interval = Duration::from_secs(600);
    let instance = Instance::start(slow, &source);
    instance.wait_until_live();
    eventually("the subscription", || {
        let count: u64 = redis.command("PUBSUB", &["NUMPAT"]);
        count == 1
    });
    for n in 0..5 {
        let () = redis.command("SET", &[key(33), format!("n{n}")]);
        // Sooner than a sweep would bring it.
        eventually("the hint", || etag(&mut redis, 33) == Some(format!("n{n}")));
    }
    // Of teams that are not ours nothing is told.
    let () = redis.command("SET", &[&*key(99), "x"]);
    instance.wait("all hints", |figures| figures.hints == 6);
    assert_eq!(etag(&mut redis, 99), None);
}

#[test]
fn etags_come_from_the_redis_of_the_definitions() {
    let mut redis = Redis::start();
    let mut definitions = Redis::start();
    let () = definitions.command("SET", &[&*key(1), "there"]);
    let source = Memory::with_teams(5);
    let here = settings(&redis.url());
    let instance = Instance::start_with_definitions(here, &definitions.url(), &source);
    instance.wait_until_live();
    assert_eq!(etag(&mut redis, 1).unwrap(), "there");

    // Away: no watermark, but changes of records go out.
    definitions.pause();
    instance.wait("failures", |figures| figures.errors.definitions_redis > 0);
    let marks = Published::read(&mut redis).watermarks().len();
    source.put("phs_new", Some(&Record::TeamSecret(Tenant(1))));
    instance.wait("a change", |figures| figures.upserts == 1);
    assert_eq!(Published::read(&mut redis).watermarks().len(), marks);
    assert!(instance.status.figures().active);
    definitions.go_on();
    eventually("watermarks", || {
        Published::read(&mut redis).watermarks().len() > marks
    });
}

#[test]
fn what_counts_as_an_etag_is_what_the_filters_script_takes_for_one() {
    const SCRIPT: &str = concat!(
        include_str!("../../../src/surfaces/posthog/definitions/tag.lua"),
        "local o={} for i,v in ipairs(ARGV) do o[i]=tag(v) end return o"
    );
    let mut redis = Redis::start();
    let whole = [
        pickled("ccbb299897f0a689"),
        b"\x80\x03X\x03\0\0\0abcq\0.".to_vec(),
    ];
    let mut values: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"\x80".to_vec(),
        vec![b'x'; 50],
        vec![b'x'; 51],
    ];
    for value in &whole {
        for cut in 0..value.len() {
            values.push(value[..cut].to_vec());
            values.push([&value[..cut], b"."].concat());
            for byte in [0, 1, 4, 46, 88, 128, 140, 149, 255] {
                let mut other = value.clone();
                other[cut] = byte;
                values.push(other);
            }
        }
    }
    let mut arguments: Vec<Vec<u8>> = vec![SCRIPT.into(), b"0".to_vec()];
    arguments.extend(values.iter().cloned());
    let tags: Vec<Vec<u8>> = redis.command("EVAL", &arguments);
    for (value, tag) in values.iter().zip(tags) {
        let ours = flag_definitions_publisher::sources::posthog::etags::stored::stored(value);
        assert_eq!(ours, ETag::new(&tag), "{value:?}");
    }
}
