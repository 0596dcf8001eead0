//! `watch` of flagd's definitions, and keys of OFREP in source documents.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::page::Cursor;
use flag_definitions_filter::surfaces::ofrep::records::{
    OfrepRecord, document_key, selection_hash, sources_hash,
};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::tenants::numbers;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::flagsmith_stub::{Flagsmith, Reply, eventually};
use crate::support::{NOBODYS_PORT, Redis, hash, publish, run, run_with_environment};

/// The program, which watches until this is dropped.
pub struct Watching {
    process: Child,
    directory: tempfile::TempDir,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Watching {
    pub fn start(
        redis: &Redis,
        directory: tempfile::TempDir,
        options: &[&str],
        uris: &str,
    ) -> Self {
        let program = env!("CARGO_BIN_EXE_flag-definitions-publisher");
        let process = Command::new(program)
            .args(["watch", "--listen", "off", "--snapshot-interval", "100ms"])
            .args(["--flagd-poll-interval", "100ms"])
            .args(options)
            .env_clear()
            .env("REDIS_URL", redis.url())
            .env("FLAGD_URI", uris)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    pub fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let mut kill = Command::new("kill");
        let status = kill.args([&format!("-{signal}"), &id]).status();
        assert!(status.unwrap().success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

/// The definitions of a selection, as filters would take them.
pub fn selected(redis: &mut Redis, selectors: &[&str], selector: &str) -> Option<Value> {
    let names = selectors.iter().map(|selector| selector.as_bytes());
    stored(redis, numbers("ofrep", names)[selector.as_bytes()])
}

/// Those of the selection of this number.
pub fn stored(redis: &mut Redis, selection: Tenant) -> Option<Value> {
    let key = document_key("flag_definitions:", selection);
    let fields: BTreeMap<String, Vec<u8>> = redis.command("HGETALL", &[key]);
    let mut text = Vec::new();
    let gzip = fields.get("text")?.as_slice();
    GzDecoder::new(gzip).read_to_end(&mut text).unwrap();
    assert_eq!(ETag::of_text(&text).as_bytes(), fields["version"]);
    Some(serde_json::from_slice(&text).unwrap())
}

/// By flag, the default variant's value.
pub fn values(selection: &Value) -> BTreeMap<String, Value> {
    let flags = selection["flags"].as_array().unwrap().iter();
    let value = |flag: &Value| flag["variants"][flag["defaultVariant"].as_str().unwrap()].clone();
    flags
        .map(|flag| (flag["key"].as_str().unwrap().to_owned(), value(flag)))
        .collect()
}

pub fn definitions(key: &str, value: &Value) -> Value {
    json!({"flags": {key: {"state": "ENABLED", "variants": {"v": value}, "defaultVariant": "v"}}})
}

pub fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The records of the current snapshot.
pub fn records(redis: &mut Redis) -> BTreeMap<Sha256Hash, OfrepRecord> {
    let manifest = redis.manifest();
    let mut records = BTreeMap::new();
    for index in 0..manifest.pages.len() {
        let key = format!("flag_definitions:snapshot:{}:{index}", manifest.generation);
        let bytes: Vec<u8> = redis.command("GET", &[&key]);
        let mut cursor = Cursor::new(bytes).unwrap();
        while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
            records.extend(
                OfrepRecord::decode(record)
                    .ok()
                    .map(|record| (hash, record)),
            );
            cursor.seek(next);
        }
    }
    records
}

#[test]
fn uris_that_are_refused_are_bad_usage_and_show_no_secret() {
    let url = format!("redis://127.0.0.1:{NOBODYS_PORT}");
    for (uris, problem) in [
        (
            "ftp://u:hunter2@h/a",
            "--flagd-uri: number 1: expected file:PATH, http://… or https://…",
        ),
        (
            "http://u:hunter2@h/a http://h/a?key=hunter2",
            "--flagd-uri: number 2: an earlier one is called http://h/a, too",
        ),
    ] {
        let variables = [("REDIS_URL", url.as_str()), ("FLAGD_URI", uris)];
        let outcome = run_with_environment(&["watch"], b"", &variables).expect(2);
        assert!(outcome.stderr.contains(problem), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }
    let variables = [("REDIS_URL", url.as_str()), ("FLAGD_URI", "file:/a")];
    let arguments = ["watch", "--flagd-poll-interval", "1ms"];
    let outcome = run_with_environment(&arguments, b"", &variables).expect(2);
    assert!(
        outcome.stderr.contains("is out of range"),
        "{}",
        outcome.stderr
    );
}

/// As a mounted ConfigMap does it: the file is a link through `..data`, which is swapped.
#[test]
fn a_swapped_file_is_published_and_a_bad_one_is_named_and_changes_nothing() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let swap = |folder: &str, text: &str| {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("flags.yaml"), text).unwrap();
        symlink(folder, at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
    };
    let yaml = |value: &str| {
        format!("flags:\n  banner:\n    variants: {{on: {value}}}\n    defaultVariant: on\n")
    };
    swap("..1", &yaml("1"));
    symlink("..data/flags.yaml", at("flags.yaml")).unwrap();
    let path: PathBuf = at("flags.yaml");
    let (uri, source) = (
        format!("file:{}", path.display()),
        format!("source={}", path.display()),
    );
    let selectors = ["", "flagSetId=", source.as_str()];
    let watching = Watching::start(&redis, directory, &[], &uri);
    let at = |name: &str| watching.directory.path().join(name);
    let swap = |folder: &str, text: &str| {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("flags.yaml"), text).unwrap();
        symlink(folder, at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
    };
    let mut wait_for = |value: i32| {
        eventually(&format!("a banner of {value}"), || {
            let mut all = selectors.iter();
            all.all(|selector| {
                let selection = selected(&mut redis, &selectors, selector);
                selection.is_some_and(|it| values(&it)["banner"] == value)
            })
            .then_some(())
        });
    };
    wait_for(1);
    swap("..2", &yaml("2"));
    wait_for(2);
    swap(
        "..3",
        &yaml("3").replace("defaultVariant: on", "defaultVariant: hunter2"),
    );
    let refused = eventually("a word of the problem", || {
        let log = watching.log();
        let line = log
            .lines()
            .find(|line| line.contains("\"flag\":\"banner\""));
        line.map(str::to_owned)
    });
    for word in [
        uri.as_str(),
        "\"member\":\"defaultVariant\"",
        "is none of its variants",
    ] {
        assert!(refused.contains(word), "{refused}");
    }
    wait_for(2);
    swap("..4", &yaml("4"));
    wait_for(4);
    let log = watching.log();
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(log.matches("are not taken").count(), 1, "once: {log}");
    eventually("a snapshot", || {
        let is_there = redis
            .keys()
            .iter()
            .any(|key| key == "flag_definitions:snapshot");
        is_there.then_some(())
    });
    assert_eq!(redis.manifest().surfaces, ["ofrep"]);
}

#[test]
fn a_later_source_wins_and_an_outage_at_the_start_takes_nothing_away() {
    let answer = Arc::new(Mutex::new(Reply::status(503)));
    let answering = Arc::clone(&answer);
    let server = Flagsmith::start(move |request| match request.header("if-none-match") {
        Some("\"v1\"") => Reply::status(304),
        _ => answering.lock().unwrap().clone(),
    });
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.json");
    write(&path, &definitions("a", &json!(1)).to_string());
    let http = format!("http://u:hunter2@{}/flags.json?key=hunter2", server.address);
    let uris = format!("file:{} {http}", path.display());
    let sources = [
        format!("source={}", path.display()),
        format!("source=http://{}/flags.json", server.address),
    ];
    let selectors = ["", "flagSetId=", sources[0].as_str(), sources[1].as_str()];
    let watching = Watching::start(&redis, directory, &[], &uris);
    eventually("two polls", || (server.requests().len() >= 2).then_some(()));
    let keys = redis.keys();
    assert!(!keys.iter().any(|key| key.contains("ofrep")), "{keys:?}");

    let mut both = definitions("b", &json!(2));
    both["flags"]["a"] = definitions("a", &json!(3))["flags"]["a"].clone();
    *answer.lock().unwrap() = Reply::json(&both).with("ETag", "\"v1\"");
    let mut all = |selector: &str| {
        let expected = [("a", 3), ("b", 2)].map(|(key, value)| (key.to_owned(), json!(value)));
        eventually("the flags of both", || {
            let selection = selected(&mut redis, &selectors[..], selector)?;
            (values(&selection) == BTreeMap::from(expected.clone())).then_some(())
        });
    };
    all("");
    all(&sources[1]);
    let before = server.requests().len();
    eventually("conditional polls", || {
        let requests = server.requests().split_off(before);
        let conditional = requests
            .iter()
            .filter(|request| request.header("if-none-match").is_some());
        (conditional.count() >= 2).then_some(())
    });
    let log = watching.log();
    assert!(
        log.contains("answered 503") && !log.contains("hunter2"),
        "{log}"
    );

    // The publisher is another one now, and one of its sources is away: what is published stays.
    drop(watching);
    *answer.lock().unwrap() = Reply::status(500);
    server.answer(|_| Reply::status(500));
    let published = redis.keys();
    let path = tempfile::tempdir().unwrap();
    let second = Watching::start(&redis, path, &[], &uris);
    eventually("the lock", || {
        second.log().contains("holding the lock").then_some(())
    });
    let before = server.requests().len();
    eventually("polls of the second", || {
        (server.requests().len() >= before + 3).then_some(())
    });
    let is_document = |key: &&String| key.contains(":ofrep:");
    let documents =
        |keys: &[String]| -> Vec<String> { keys.iter().filter(is_document).cloned().collect() };
    assert_eq!(documents(&redis.keys()), documents(&published));
    assert!(!documents(&published).is_empty());
}

#[test]
fn keys_come_with_a_source_document_that_is_followed_and_with_publish() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let (flags, document) = (
        directory.path().join("flags.json"),
        directory.path().join("document.json"),
    );
    write(&flags, &definitions("a", &json!(1)).to_string());
    let keys = |selector: &Value| {
        let bound = json!({"sha256": hash("hunter2"), "selector": selector});
        let free = json!({"sha256": hash("hunter3"), "selector": null});
        json!({"format": 1, "ofrep_keys": [bound, free]})
    };
    write(&document, &keys(&json!("flagSetId=shop")).to_string());
    let uri = format!("file:{}", flags.display());
    let options = ["--file", document.to_str().unwrap()];
    let watching = Watching::start(&redis, directory, &options, &uri);
    let key = |token: &str| Sha256Hash::of(token.as_bytes());
    let mut wait_for = |bound: &str| {
        eventually(bound, || {
            let is_there = redis
                .keys()
                .iter()
                .any(|key| key == "flag_definitions:snapshot");
            let records = is_there.then(|| records(&mut redis))?;
            let expected = OfrepRecord::Key(Some(selection_hash(bound)));
            (records.get(&key("hunter2")) == Some(&expected)).then_some(records)
        })
    };
    let published = wait_for("flagSetId=shop");
    assert_eq!(published[&key("hunter3")], OfrepRecord::Key(None));
    let manifest = redis.manifest();
    assert_eq!(manifest.surfaces, ["posthog", "ofrep_keys", "ofrep"]);
    assert_eq!(manifest.records.of("ofrep_keys"), 2);
    // Flags are there as well, whichever came first.
    eventually("selections", || {
        let records = records(&mut redis);
        let knows = match records.get(&sources_hash())? {
            OfrepRecord::Sources(state) => state.knows_selections,
            other => panic!("{other:?}"),
        };
        (knows && records.contains_key(&selection_hash("flagSetId="))).then_some(())
    });
    write(&document, &keys(&json!("team=hunter4")).to_string());
    let problem = "ofrep_keys[0].selector: must be flagSetId=… or source=…";
    eventually("a word of the problem", || {
        watching.log().contains(problem).then_some(())
    });
    write(&document, &keys(&json!("shop.json")).to_string());
    let mut wait_for = |bound: &str| {
        eventually(bound, || {
            let expected = OfrepRecord::Key(Some(selection_hash(bound)));
            (records(&mut redis).get(&key("hunter2")) == Some(&expected)).then_some(())
        });
    };
    wait_for("source=shop.json");
    let log = watching.log();
    assert!(!log.contains("hunter"), "{log}");
    drop(watching);

    let alone = Redis::start();
    let mut both = keys(&json!(null));
    both["teams"] = json!([{"id": 7, "api_token": "phc_a"}]);
    let outcome = publish(&alone.url(), &both).expect(0);
    assert!(
        outcome
            .stdout
            .contains("0 personal keys, 2 OFREP keys; 1 page"),
        "{}",
        outcome.stdout
    );
    let arguments = ["inspect", "token", "--redis-url", &alone.url()];
    let outcome = run(&arguments, b"hunter2").expect(0);
    let known = "OFREP key, every selection, as of ";
    assert!(outcome.stdout.contains(known), "{}", outcome.stdout);
    let arguments = ["diff", "--file", "-", "--redis-url", &alone.url()];
    run(&arguments, both.to_string().as_bytes()).expect(0);
    both["ofrep_keys"][0]["selector"] = json!("flagSetId=shop");
    let outcome = run(&arguments, both.to_string().as_bytes()).expect(3);
    let row = "OFREP keys                   0         1         0          1\n";
    assert!(outcome.stdout.contains(row), "{}", outcome.stdout);
    both["ofrep_keys"][0]["selector"] = json!("team=hunter2");
    let refused = publish(&alone.url(), &both).expect(2);
    assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}
