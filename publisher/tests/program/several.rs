//! What commands make of a snapshot with records of another surface, and of the options that name sources.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::change;
use flag_definitions_filter::surfaces::flagsmith::records::{FlagsmithRecord, version_hash};
use flag_definitions_filter::tenant::Tenant;
use serde_json::{Value, json};

use crate::support::{NOBODYS_PORT, Redis, publish, run, run_with_environment, small_document};

/// A document's snapshot, and after it two keys and a version of another surface.
fn start() -> Redis {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let environment = Tenant(7);
    let server = FlagsmithRecord::ServerKey {
        environment,
        expires_at: 0,
    };
    let version = FlagsmithRecord::Version(ETag::new(b"v1").unwrap());
    let changes: Vec<_> = [
        (
            Sha256Hash::of(b"client"),
            FlagsmithRecord::ClientKey(environment),
        ),
        (Sha256Hash::of(b"server"), server),
        (version_hash(environment), version),
    ]
    .iter()
    .flat_map(|(hash, record)| change::split([(*hash, record.encode().as_slice())]))
    .collect();
    let first = redis.begin_lineage();
    redis.add_changes(first, &changes);
    redis
}

#[test]
fn inspect_counts_them_by_kind_and_knows_nothing_more_of_them() {
    let redis = start();
    let url = redis.url();
    let inspect = |arguments: &[&str], input: &str, code| {
        let arguments = [&["inspect"], arguments, &["--redis-url", &url]].concat();
        run(&arguments, input.as_bytes()).expect(code).stdout
    };
    let text = inspect(&["team", "7"], "", 0);
    let line = "\nflagsmith: 1 client-side keys, 1 server-side keys, 0 rounds of the source, \
                0 states of environments, 0 lists of polls, 1 documents\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("no ETag is published"), "{text}");
    let view: Value = serde_json::from_str(&inspect(&["team", "7", "--json"], "", 0)).unwrap();
    assert_eq!(view["published"]["others"]["flagsmith"]["client_keys"], 1);
    assert_eq!(view["published"]["fault"], Value::Null);
    let text = inspect(&["token"], "client", 3);
    assert!(text.contains("nothing is known of it"), "{text}");
    let alone = Redis::start();
    publish(&alone.url(), &small_document()).expect(0);
    let outcome = run(&["inspect", "team", "7", "--redis-url", &alone.url()], b"").expect(0);
    assert!(!outcome.stdout.contains("flagsmith"), "{}", outcome.stdout);
}

#[test]
fn diff_of_a_document_leaves_them_alone_and_publish_starts_over() {
    let redis = start();
    let url = redis.url();
    let document = small_document().to_string();
    let arguments = ["diff", "--file", "-", "--redis-url", &url];
    let outcome = run(&arguments, document.as_bytes()).expect(0);
    assert!(
        outcome.stdout.contains("no difference"),
        "{}",
        outcome.stdout
    );
    let empty = json!({"format": 1, "teams": []}).to_string();
    let outcome = run(&arguments, empty.as_bytes()).expect(3);
    assert!(
        outcome.stdout.contains("hold 2 removals back"),
        "{}",
        outcome.stdout
    );
    publish(&url, &small_document()).expect(0);
    let outcome = run(&["inspect", "team", "7", "--redis-url", &url], b"").expect(0);
    assert!(!outcome.stdout.contains("flagsmith"), "{}", outcome.stdout);
}

#[test]
fn watch_needs_a_source_that_it_can_read() {
    let url = format!("redis://127.0.0.1:{NOBODYS_PORT}");
    let watch = |variables: &[(&str, &str)]| {
        let variables = [&[("REDIS_URL", url.as_str())], variables].concat();
        run_with_environment(&["watch"], b"", &variables)
            .expect(2)
            .stderr
    };
    let nothing = watch(&[]);
    for option in [
        "--postgres-url (DATABASE_URL)",
        "--file (FLAG_DEFINITIONS_FILE)",
    ] {
        assert!(nothing.contains(option), "{nothing}");
    }
    let file = "FLAG_DEFINITIONS_FILE";
    let missing = watch(&[(file, "/nowhere.json")]);
    assert!(missing.contains("cannot read /nowhere.json"), "{missing}");
    let stdin = watch(&[(file, "-")]);
    assert!(stdin.contains("--file: standard input"), "{stdin}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("document.json");
    std::fs::write(&path, r#"{"format":1,"teams":[{"id":7}]}"#).unwrap();
    let broken = watch(&[(file, path.to_str().unwrap())]);
    assert!(broken.contains("document.json: "), "{broken}");
    assert!(broken.contains("teams"), "{broken}");
    // A cache of definitions alone says nothing of who may read.
    let cache = watch(&[("DEFINITIONS_REDIS_URL", &url)]);
    assert!(cache.contains("--postgres-url"), "{cache}");
}

#[test]
fn watch_of_a_file_alone_publishes_it_and_tells_each_problem_once() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = (
        directory.path().join("a.json"),
        directory.path().join("log"),
    );
    let document = small_document().to_string();
    std::fs::write(&path, &document).unwrap();
    let process = Watching::start(&redis, &path, &log, &[]);
    wait_for(&log, "published a snapshot");
    let manifest = redis.manifest();
    assert_eq!(manifest.surfaces, ["posthog", "ofrep_keys"]);
    assert!(!manifest.etags_watched);
    for broken in ["{", "[]"] {
        std::fs::write(&path, broken).unwrap();
        // Longer than to the first new attempt.
        sleep(Duration::from_millis(2_500));
    }
    std::fs::write(&path, document.replace("phc_a", "phc_b")).unwrap();
    wait_for(&log, "the source document changed");
    process.end();
    let log = std::fs::read_to_string(&log).unwrap();
    let told = log.matches("the source document cannot be read").count();
    assert_eq!(told, 2, "{log}");
    for secret in ["phc_a", "phc_b", "phs_a", "the database"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn etags_are_watched_beside_a_file_where_their_redis_is_named() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = (
        directory.path().join("a.json"),
        directory.path().join("log"),
    );
    std::fs::write(&path, small_document().to_string()).unwrap();
    let etag = "posthog:1:cache/teams/7/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[etag, "abc"]);
    let url = redis.url();
    let process = Watching::start(&redis, &path, &log, &[("DEFINITIONS_REDIS_URL", &url)]);
    wait_for(&log, "published a snapshot");
    let manifest = redis.manifest();
    assert!(manifest.etags_watched && manifest.records.of("etags") == 1);
    process.end();
}

/// `watch` of a file. Killed when dropped.
struct Watching(Child);

impl Watching {
    fn start(redis: &Redis, file: &Path, log: &Path, variables: &[(&str, &str)]) -> Self {
        let program = env!("CARGO_BIN_EXE_flag-definitions-publisher");
        let process = Command::new(program)
            .args(["watch", "--diff-interval", "100ms", "--listen", "off"])
            .env_clear()
            .env("REDIS_URL", redis.url())
            .env("FLAG_DEFINITIONS_FILE", file)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        Self(process)
    }

    fn end(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_for(log: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let log = std::fs::read_to_string(log).unwrap();
        if log.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "{text}: {log}");
        sleep(Duration::from_millis(50));
    }
}
