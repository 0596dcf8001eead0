//! Sources of flagd's definitions that are away, broken or not themselves, and publishers that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::ofrep::records::{
    OfrepRecord, selection_hash, sources_hash,
};
use flag_definitions_publisher::sources::tenants::numbers;
use serde_json::{Value, json};

use crate::flagd::{Watching, definitions, records, selected, stored, values, write};
use crate::flagsmith_stub::{Flagsmith, Reply, eventually};
use crate::support::Redis;

/// The hash of what the publisher keeps of its sources.
const KEPT: &str = "flag_definitions:flagd:sources";

/// A server whose answer can be changed.
fn serving(first: Reply) -> (Flagsmith, Arc<Mutex<Reply>>) {
    let answer = Arc::new(Mutex::new(first));
    let answering = Arc::clone(&answer);
    let server = Flagsmith::start(move |_| answering.lock().unwrap().clone());
    (server, answer)
}

fn polled(server: &Flagsmith, more: usize) {
    let before = server.requests().len();
    eventually("polls", || {
        (server.requests().len() >= before + more).then_some(())
    });
}

#[test]
fn a_page_in_the_place_of_definitions_says_nothing_of_flags() {
    let mut redis = Redis::start();
    let html = "<!doctype html><title>Sign in</title>";
    let (server, answer) = serving(Reply::text(html));
    let uri = format!("http://{}/flags.json", server.address);
    let source = format!("source={uri}");
    let selectors = ["", "flagSetId=", source.as_str()];
    let watching = Watching::start(&redis, tempfile::tempdir().unwrap(), &[], &uri);
    let is_told = |redis: &mut Redis| redis.keys().iter().any(|key| key.contains(":ofrep:"));
    for text in [html, "", r#"{"flags":{"k":{"#, "null"] {
        *answer.lock().unwrap() = Reply::text(text);
        polled(&server, 3);
        assert!(!is_told(&mut redis), "{text}");
    }
    *answer.lock().unwrap() = Reply::json(&definitions("k", &json!(1)));
    let mut flags = |value: i32| {
        eventually("flags", || {
            let selection = selected(&mut redis, &selectors, "")?;
            (values(&selection)["k"] == value).then_some(())
        });
    };
    flags(1);
    for answered in [
        Reply::text(html),
        Reply::text(""),
        Reply::status(500),
        Reply::status(404),
    ] {
        *answer.lock().unwrap() = answered;
        polled(&server, 2);
        flags(1);
    }
    *answer.lock().unwrap() = Reply::json(&definitions("k", &json!(2)));
    flags(2);
    assert!(watching.log().contains("is no JSON"), "{}", watching.log());
}

#[test]
fn a_source_that_is_away_or_broken_when_the_publisher_starts_holds_no_other_up() {
    let mut redis = Redis::start();
    let (server, answer) = serving(Reply::json(&definitions("b", &json!(1))));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.json");
    let own = |value: i32| write(&path, &definitions("a", &json!(value)).to_string());
    let names = [
        path.display().to_string(),
        format!("http://{}/flags.json", server.address),
    ];
    let uris = format!("file:{} {}", names[0], names[1]);
    let selectors = names.clone().map(|name| format!("source={name}"));
    let selectors = ["", "flagSetId=", &selectors[0], &selectors[1]];
    let start =
        |redis: &Redis, uris: &str| Watching::start(redis, tempfile::tempdir().unwrap(), &[], uris);
    let flags = |redis: &mut Redis, expected: &[(&str, i32)]| {
        let expected = expected.iter();
        let expected: BTreeMap<String, Value> = expected
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        eventually("these flags", || {
            let selection = selected(redis, &selectors, "")?;
            (values(&selection) == expected).then_some(())
        });
    };
    let kept = |redis: &mut Redis| -> BTreeSet<String> {
        let mut fields: BTreeSet<String> = redis.command("HKEYS", &[KEPT]);
        assert!(fields.remove("confirmed"));
        fields
    };
    let all = names
        .each_ref()
        .map(|name| Sha256Hash::of(name.as_bytes()).to_hex());
    own(1);
    let first = start(&redis, &uris);
    flags(&mut redis, &[("a", 1), ("b", 1)]);
    assert_eq!(kept(&mut redis), BTreeSet::from(all.clone()));
    drop(first);

    let refused = json!({"flags": {"b": {"variants": {}, "defaultVariant": "none"}}});
    for (value, broken) in [(2, Reply::status(500)), (3, Reply::json(&refused))] {
        *answer.lock().unwrap() = broken;
        own(value);
        let next = start(&redis, &uris);
        flags(&mut redis, &[("a", value), ("b", 1)]);
        own(value + 10);
        flags(&mut redis, &[("a", value + 10), ("b", 1)]);
        drop(next);
    }

    // What is read takes its place; what is not followed any more is kept no longer.
    *answer.lock().unwrap() = Reply::json(&definitions("b", &json!(2)));
    let both = start(&redis, &uris);
    flags(&mut redis, &[("a", 13), ("b", 2)]);
    drop(both);
    let alone = start(&redis, &format!("file:{}", names[0]));
    flags(&mut redis, &[("a", 13)]);
    assert_eq!(kept(&mut redis), BTreeSet::from([all[0].clone()]));
    drop(alone);
}

/// It read an older text, and cannot read now.
#[test]
fn a_standby_that_takes_over_publishes_nothing_older_than_the_leader_did() {
    let mut redis = Redis::start();
    let (server, answer) = serving(Reply::json(&definitions("b", &json!(1))));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.json");
    let own = |value: i32| write(&path, &definitions("a", &json!(value)).to_string());
    let url = format!("http://{}/flags.json", server.address);
    let uris = format!("file:{} {url}", path.display());
    let selectors = [path.display().to_string(), url.clone()].map(|name| format!("source={name}"));
    let selectors = ["", "flagSetId=", &selectors[0], &selectors[1]];
    let start = |redis: &Redis| Watching::start(redis, tempfile::tempdir().unwrap(), &[], &uris);
    let published = |redis: &mut Redis| Some(values(&selected(redis, &selectors, "")?));
    let flags = |redis: &mut Redis, a: i32, b: i32| {
        let expected = [("a", a), ("b", b)].map(|(key, value)| (key.to_owned(), json!(value)));
        eventually("these flags", || {
            (published(redis)? == BTreeMap::from(expected.clone())).then_some(())
        });
    };
    let kept = |redis: &mut Redis| -> Vec<u8> {
        redis.command("HGET", &[KEPT, &Sha256Hash::of(url.as_bytes()).to_hex()])
    };
    own(1);
    let leader = start(&redis);
    flags(&mut redis, 1, 1);
    let standby = start(&redis);
    eventually("a standby", || {
        standby
            .log()
            .contains("waiting for it to end")
            .then_some(())
    });
    polled(&server, 6);
    standby.signal("STOP");
    *answer.lock().unwrap() = Reply::json(&definitions("b", &json!(2)));
    flags(&mut redis, 1, 2);
    let newest = kept(&mut redis);
    *answer.lock().unwrap() = Reply::status(500);
    polled(&server, 2);
    drop(leader);
    standby.signal("CONT");
    eventually("the lock", || {
        let b = published(&mut redis)?["b"].clone();
        assert_eq!(b, 2, "older flags");
        standby.log().contains("holding the lock").then_some(())
    });
    // What it publishes of others goes with what the leader read.
    own(3);
    flags(&mut redis, 3, 2);
    assert_eq!(kept(&mut redis), newest);
    // What it knew is what it reads again.
    *answer.lock().unwrap() = Reply::json(&definitions("b", &json!(1)));
    flags(&mut redis, 3, 1);
    eventually("its text", || (kept(&mut redis) != newest).then_some(()));
}

/// Each document is whole, and the next publisher writes those that are left.
#[test]
fn a_publisher_that_is_killed_while_it_writes_documents_leaves_whole_ones() {
    const SETS: usize = 600;
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.json");
    let set = |number: usize| format!("flagSetId={number}");
    let document = |value: i32| {
        let flag = |number: usize| {
            let metadata = json!({"flagSetId": number.to_string()});
            json!({"key": format!("k{number}"), "variants": {"v": value}, "defaultVariant": "v", "metadata": metadata})
        };
        let flags: Vec<Value> = (0..SETS).map(flag).collect();
        json!({"flags": flags}).to_string()
    };
    let sets: Vec<String> = (0..SETS).map(set).collect();
    let source = format!("source={}", path.display());
    let mut selectors: Vec<&str> = sets.iter().map(String::as_str).collect();
    selectors.extend(["", &source]);
    let tenants = numbers("ofrep", selectors.iter().map(|name| name.as_bytes()));
    // How many sets have this value.
    let having = |redis: &mut Redis, value: i32| {
        let mut sets = sets.iter().enumerate();
        let has = |(number, set): (usize, &String)| {
            let selection = stored(redis, tenants[set.as_bytes()]);
            let values = selection
                .map(|selection| values(&selection))
                .unwrap_or_default();
            values.get(&format!("k{number}")) == Some(&json!(value))
        };
        sets.by_ref().map(has).filter(|has| *has).count()
    };
    write(&path, &document(1));
    let uri = format!("file:{}", path.display());
    let start = |redis: &Redis| Watching::start(redis, tempfile::tempdir().unwrap(), &[], &uri);
    let first = start(&redis);
    eventually("all sets", || (having(&mut redis, 1) == SETS).then_some(()));
    write(&path, &document(2));
    // The first of them in the order of their numbers.
    let count = |redis: &mut Redis| -> u64 {
        let stats: String = redis.command("INFO", &["commandstats"]);
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_hset:calls="));
        let calls = line.and_then(|line| line.split(['=', ',']).nth(1));
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    let before = count(&mut redis);
    eventually("some of them", || {
        (count(&mut redis) > before + 20).then_some(())
    });
    drop(first);
    let written = having(&mut redis, 2);
    assert!(
        written > 0 && written < SETS,
        "killed too late or too early: {written}"
    );
    assert_eq!(having(&mut redis, 1), SETS - written, "each is whole");
    let second = start(&redis);
    eventually("the others", || {
        (having(&mut redis, 2) == SETS).then_some(())
    });
    drop(second);
}

/// The publisher is started again while the document does not fit: what the one before it published stays.
#[test]
fn a_bad_document_at_the_start_takes_nothing_away_that_was_published() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.json");
    let uri = format!("file:{}", path.display());
    let source = format!("source={}", path.display());
    let selectors = ["", "flagSetId=", source.as_str()];
    let bad = json!({"flags": {"k": {"variants": {"v": 1}, "defaultVariant": "none"}}}).to_string();
    let start = |redis: &Redis| Watching::start(redis, tempfile::tempdir().unwrap(), &[], &uri);
    let refused = |watching: &Watching| {
        eventually("a word of the problem", || {
            watching.log().contains("are not taken").then_some(())
        });
    };
    let number = numbers("ofrep", selectors.map(str::as_bytes))[source.as_bytes()];
    let selections = |redis: &mut Redis| {
        let is_there = redis
            .keys()
            .iter()
            .any(|key| key == "flag_definitions:snapshot");
        let records = if is_there {
            records(redis)
        } else {
            Default::default()
        };
        let knows = match records.get(&sources_hash()) {
            Some(OfrepRecord::Sources(state)) => Some(state.knows_selections),
            _ => None,
        };
        (knows, records.get(&selection_hash(&source)).cloned())
    };

    // Where nothing was published there are no flags, and that is known.
    write(&path, &bad);
    let first = start(&redis);
    refused(&first);
    eventually("a snapshot without flags", || {
        (selections(&mut redis) == (Some(true), None)).then_some(())
    });
    write(&path, &definitions("k", &json!(1)).to_string());
    let selection = Some(OfrepRecord::Selection(number));
    eventually("flags", || {
        (selections(&mut redis) == (Some(true), selection.clone())).then_some(())
    });
    drop(first);
    // Who starts where nothing is kept of the source.
    let kept: u32 = redis.command("DEL", &[KEPT]);
    assert_eq!(kept, 1);

    // The lock of a killed publisher lasts for five seconds.
    write(&path, &bad);
    let second = start(&redis);
    refused(&second);
    eventually("what is known is doubted", || {
        (selections(&mut redis) == (Some(false), selection.clone())).then_some(())
    });
    let published = selected(&mut redis, &selectors, &source).unwrap();
    assert_eq!(values(&published)["k"], 1);
    write(&path, &definitions("k", &json!(2)).to_string());
    eventually("the next flags", || {
        let published = selected(&mut redis, &selectors, &source)?;
        (values(&published)["k"] == 2).then_some(())
    });
    eventually("all is known again", || {
        (selections(&mut redis) == (Some(true), selection.clone())).then_some(())
    });
    drop(second);
}
