//! Counts that filters left in Redis are reported once, whatever happens between.

mod upstream;

use std::collections::BTreeMap;

use flag_definitions_filter::usage::batch::field_key;
use flag_definitions_publisher::sources::usage::UsageAnswer;
use flag_definitions_publisher::watch::status::UsageFigures;

use crate::instance::eventually;
use crate::support::Redis;
use upstream::{Upstream, count, hash, hour, kept, rows};

const BATCH: &str = "flag_definitions:reported:flagsmith:batch";
const NUMBERS: &str = "flag_definitions:reported:flagsmith:numbers";
const TENANTS: &str = "flag_definitions:reported:flagsmith:tenants";

#[test]
fn a_batch_is_sent_as_it_is_until_it_is_taken_and_counts_that_came_since_are_the_next() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    count(&mut redis, now, 1, 0, 5);
    count(&mut redis, now, 2, 2, 7);
    let upstream = Upstream::of(&redis);
    // Nothing is taken before it is known who is reported.
    upstream.nothing_comes();
    upstream.report(&[(1, "one"), (2, "two")]);
    let batch = upstream.next();
    let all = [(hash("one"), 0, 5), (hash("two"), 2, 7)];
    assert_eq!((rows(&batch), batch.hour), (all.to_vec(), now));
    count(&mut redis, now, 1, 0, 3);
    upstream.answer(&batch, kept());
    assert_eq!(upstream.next(), batch);
    upstream.answer(&batch, UsageAnswer::Taken);
    let later = upstream.next();
    assert_ne!(later.id, batch.id);
    assert_eq!(rows(&later), [(hash("one"), 0, 3)]);
    upstream.answer(&later, UsageAnswer::Taken);
    // A late answer is not counted again.
    upstream.answer(&batch, UsageAnswer::Taken);
    upstream.nothing_comes();
    upstream.figures(UsageFigures {
        sent: 15,
        ..UsageFigures::default()
    });
    let keys = redis.keys();
    let counts = |key: &&String| key.contains("usage:flagsmith") || key.ends_with(":batch");
    assert_eq!(keys.iter().find(counts), None);
    upstream.instance.stop();
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused");
}

#[test]
fn counts_that_come_back_with_an_older_state_of_redis_come_under_the_id_that_they_had() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let report = |redis: &mut Redis, hour, requests| {
        count(redis, hour, 1, 0, requests);
        let batch = upstream.next();
        upstream.answer(&batch, UsageAnswer::Taken);
        assert_eq!((batch.hour, batch.requests()), (hour, requests));
        batch.id
    };
    let first = report(&mut redis, now, 1);
    let before: BTreeMap<String, String> = redis.command("HGETALL", &[NUMBERS]);
    let second = report(&mut redis, now, 5);
    let third = report(&mut redis, now - 1, 6);
    // The state before the second one is back, and five requests with it.
    let _: i64 = redis.command("DEL", &[NUMBERS]);
    for (field, value) in before {
        let _: i64 = redis.command("HSET", &[NUMBERS, &field, &value]);
    }
    assert_eq!(report(&mut redis, now, 5), second);
    // It costs no more than what the same hours reported since.
    assert_eq!(report(&mut redis, now - 1, 2), third);
    let mut ids = vec![first, second, third];
    ids.extend([now, now - 1, now - 2].map(|hour| report(&mut redis, hour, 1)));
    // Another Redis has other ids.
    let mut other = Redis::start_with_users();
    count(&mut other, now, 1, 0, 1);
    let of_other = Upstream::of(&other);
    of_other.report(&[(1, "one")]);
    ids.push(of_other.next().id);
    for id in &ids {
        let mut places = id.bytes().enumerate();
        let is_right = |(place, byte): (usize, u8)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'5',
            19 => byte == b'8',
            _ => byte.is_ascii_hexdigit(),
        };
        assert!(id.len() == 36 && places.all(is_right), "{id}");
    }
    let once: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(once.len(), 7);
    // Numbers of hours that nobody reports any more are forgotten.
    let old = (now - 400).to_string();
    let _: i64 = redis.command("HSET", &[NUMBERS, &old, "7"]);
    report(&mut redis, now - 3, 1);
    assert!(
        !redis
            .command::<Vec<String>>("HKEYS", &[NUMBERS])
            .contains(&old)
    );
}

#[test]
fn a_redis_that_lost_everything_has_ids_that_nobody_had() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let mut ids = std::collections::BTreeSet::new();
    for requests in 1..4 {
        count(&mut redis, now, 1, 0, requests);
        let batch = upstream.next();
        upstream.answer(&batch, UsageAnswer::Taken);
        assert_eq!((batch.hour, batch.requests()), (now, requests));
        assert!(ids.insert(batch.id), "an id is another's");
        let () = redis.command("FLUSHALL", &[""; 0]);
    }
}

#[test]
fn the_next_publisher_sends_what_the_last_one_took_under_the_same_id() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    count(&mut redis, now, 1, 1, 5);
    let first = Upstream::of(&redis);
    first.report(&[(1, "one")]);
    let batch = first.next();
    let second = Upstream::of(&redis);
    second.report(&[(1, "one")]);
    count(&mut redis, now, 1, 1, 2);
    // One that waits for the lock sends nothing.
    second.nothing_comes();
    first.instance.stop();
    assert_eq!(second.next(), batch);
    second.answer(&batch, UsageAnswer::Taken);
    let later = second.next();
    assert_eq!(rows(&later), [(hash("one"), 1, 2)]);
}

#[test]
fn what_the_upstream_refuses_is_dropped_and_counted() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    count(&mut redis, now, 1, 0, 5);
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let batch = upstream.next();
    let refused = UsageAnswer::Refused("answered 400".to_owned());
    upstream.answer(&batch, refused);
    upstream.nothing_comes();
    upstream.figures(UsageFigures {
        refused: 5,
        ..UsageFigures::default()
    });
    count(&mut redis, now, 1, 0, 1);
    upstream.answer(&upstream.next(), UsageAnswer::Taken);
    upstream.figures(UsageFigures {
        refused: 5,
        sent: 1,
        ..UsageFigures::default()
    });
}

#[test]
fn what_could_not_be_sent_for_a_day_is_dropped_and_counted() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    // Whole hours after the one in which they were counted: 24 are sent, 25 are too many.
    for (age, requests) in [(0, 1), (24, 10), (25, 100), (168, 1_000)] {
        count(&mut redis, now - age, 1, 0, requests);
    }
    let pending = format!("an-id {}\n{} 0 10000", now - 25, hash("one").to_hex());
    let () = redis.command("SET", &[BATCH, &pending]);
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    for (age, requests) in [(24, 10), (0, 1)] {
        let batch = upstream.next();
        assert_eq!((batch.hour, batch.requests()), (now - age, requests));
        upstream.answer(&batch, UsageAnswer::Taken);
    }
    upstream.nothing_comes();
    upstream.figures(UsageFigures {
        sent: 11,
        expired: 11_100,
        ..UsageFigures::default()
    });
}

#[test]
fn a_number_never_stands_for_two() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one"), (2, "two")]);
    eventually("names", || {
        redis
            .command::<BTreeMap<String, String>>("HGETALL", &[TENANTS])
            .len()
            == 3
    });
    // The number of `one` becomes another's, and `two` goes; nobody ever had 3.
    upstream.report(&[(1, "another")]);
    let another = hash("another").to_hex();
    eventually("the other's name", || {
        let name: String = redis.command("HGET", &[TENANTS, "1"]);
        name.starts_with(&another)
    });
    for (tenant, requests) in [(1, 1), (3, 100)] {
        count(&mut redis, now, tenant, 0, requests);
    }
    // What was counted for one before, or by a filter that does not know yet, is not the other's.
    upstream.figures(UsageFigures {
        unknown: 101,
        ..UsageFigures::default()
    });
    upstream.nothing_comes();
    // A day later the number counts again. Here that day is over.
    let name = format!("{another} {now} {now}");
    let _: i64 = redis.command("HSET", &[TENANTS, "1", &name]);
    count(&mut redis, now, 1, 0, 7);
    let batch = upstream.next();
    assert_eq!(rows(&batch), [(hash("another"), 0, 7)]);
    // Who was not named for two days is forgotten.
    let old = format!("{} 0 {}", hash("two").to_hex(), now - 49);
    let _: i64 = redis.command("HSET", &[TENANTS, "2", &old]);
    upstream.answer(&batch, UsageAnswer::Taken);
    upstream.report(&[(1, "another")]);
    eventually("its end", || {
        let mut names = redis.command::<Vec<String>>("HKEYS", &[TENANTS]);
        names.sort();
        // The first is nobody's.
        names == ["-", "1"]
    });
}

#[test]
fn a_batch_is_bounded_and_the_rest_comes_at_once() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    let tenants: Vec<(u32, String)> = (0..1_001).map(|n| (n, format!("name {n}"))).collect();
    for (tenant, _) in &tenants {
        count(&mut redis, now, *tenant, 0, 1);
    }
    let upstream = Upstream::of(&redis);
    let tenants: Vec<_> = tenants
        .iter()
        .map(|(n, name)| (*n, name.as_str()))
        .collect();
    upstream.report(&tenants);
    for expected in [1_000, 1] {
        let batch = upstream.next();
        assert_eq!(batch.rows.len(), expected);
        upstream.answer(&batch, UsageAnswer::Taken);
    }
    upstream.figures(UsageFigures {
        sent: 1_001,
        ..UsageFigures::default()
    });
}

#[test]
fn what_redis_refuses_is_not_sent_and_holds_nothing_else_up() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    count(&mut redis, now, 1, 0, 5);
    let () = redis.command("ACL", &["SETUSER", "publisher", "-hdel"]);
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let instance = &upstream.instance;
    instance.wait("refusals", |figures| figures.errors.redis > 2);
    upstream.nothing_comes();
    assert!(instance.status.figures().active);
    assert!(!redis.keys().contains(&BATCH.to_owned()));
    let () = redis.command("ACL", &["SETUSER", "publisher", "+hdel"]);
    assert_eq!(rows(&upstream.next()), [(hash("one"), 0, 5)]);
}

#[test]
fn a_key_that_redis_denies_holds_nothing_else_up() {
    let mut redis = Redis::start_with_users();
    count(&mut redis, hour(), 1, 0, 5);
    let acl = |redis: &mut Redis, patterns: &[&str]| {
        let () = redis.command(
            "ACL",
            &[&["SETUSER", "publisher", "resetkeys"], patterns].concat(),
        );
    };
    let own = [
        "snapshot*",
        "changes",
        "lock",
        "fence",
        "generation",
        "flagsmith:*",
    ];
    let own = own.map(|key| format!("~flag_definitions:{key}"));
    acl(&mut redis, &own.each_ref().map(String::as_str));
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let instance = &upstream.instance;
    instance.wait("refusals", |figures| figures.errors.redis > 2);
    assert!(instance.status.figures().active);
    acl(&mut redis, &["~flag_definitions:*"]);
    assert_eq!(rows(&upstream.next()), [(hash("one"), 0, 5)]);
}

#[test]
fn names_that_redis_lost_are_told_again_before_anything_is_taken() {
    let mut redis = Redis::start_with_users();
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    eventually("the names", || redis.keys().contains(&TENANTS.to_owned()));
    let () = redis.command("DEL", &[TENANTS]);
    count(&mut redis, hour(), 1, 0, 5);
    assert_eq!(rows(&upstream.next()), [(hash("one"), 0, 5)]);
    assert_eq!(upstream.instance.status.figures().usage.unknown, 0);
}

#[test]
fn what_no_filter_wrote_stops_no_report() {
    let mut redis = Redis::start_with_users();
    let now = hour();
    count(&mut redis, now, 1, 0, 5);
    let key = field_key("flag_definitions:", "flagsmith", now);
    for field in ["1:999", "1:1000", "x"] {
        let () = redis.command("HINCRBY", &[&key, field, "3"]);
    }
    let before = field_key("flag_definitions:", "flagsmith", now - 1);
    let () = redis.command("SET", &[&before, "no hash"]);
    let upstream = Upstream::of(&redis);
    upstream.report(&[(1, "one")]);
    let batch = upstream.next();
    assert_eq!(rows(&batch), [(hash("one"), 0, 5)]);
    upstream.figures(UsageFigures {
        unknown: 9,
        ..UsageFigures::default()
    });
    upstream.answer(&batch, UsageAnswer::Taken);
    eventually("its end", || !redis.keys().contains(&BATCH.to_owned()));
    // A batch that is none.
    let () = redis.command("SET", &[BATCH, "what else"]);
    eventually("its end", || !redis.keys().contains(&BATCH.to_owned()));
}
