//! What goes wrong leaves the snapshot as it was, and says what to do.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{
    AtManifest, Gate, NOBODYS_PORT, PUBLISHER_PASSWORD, Redis, large_document, publish, run,
    small_document,
};

#[test]
fn a_bad_document_writes_nothing_and_is_named() {
    let mut redis = Redis::start();
    for (document, message) in [
        (
            json!({"format": 1, "teams": [{"id": 1, "api_token": "a"}, {"id": 2}]}),
            "error: -: teams[1]: missing field `api_token`",
        ),
        (
            json!({"format": 1, "teams": [{"id": 1, "api_token": "a", "secret_token_sha256": ["phs_x"]}]}),
            "error: -: teams[0].secret_token_sha256[0]: must be 64 hexadecimal digits",
        ),
        (json!([]), "error: -: document: "),
    ] {
        let outcome = publish(&redis.url(), &document).expect(2);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
        let keys: u64 = redis.command("DBSIZE", &[""; 0]);
        assert_eq!(keys, 0);
    }
}

#[test]
fn a_file_that_is_not_there_is_bad_usage() {
    let arguments = [
        "publish",
        "--file",
        "/nowhere.json",
        "--redis-url",
        "redis://127.0.0.1:1",
    ];
    let outcome = run(&arguments, b"").expect(2);
    assert!(
        outcome.stderr.contains("cannot read /nowhere.json"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_manifest_that_came_meanwhile_is_not_overwritten() {
    let mut redis = Redis::start();
    let gate = Gate::before(&redis, AtManifest::Hold);
    let url = gate.url();
    let slow = std::thread::spawn(move || publish(&url, &large_document()));
    gate.wait_until_reached();
    // As if it had been paused until its lock expired.
    let () = redis.command("DEL", &["flag_definitions:lock"]);
    publish(&redis.url(), &small_document()).expect(0);
    gate.open();

    let outcome = slow.join().unwrap().expect(1);
    assert!(
        outcome.stderr.contains("another publisher took over"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stdout.is_empty());
    assert_eq!(redis.manifest().generation, 2);
    assert_eq!(redis.records().len(), 2);
    // Its pages expire: they were among those that the other one found left.
    let ttl = redis.ttl("flag_definitions:snapshot:1:0");
    assert!((1..=600).contains(&ttl), "{ttl}");
}

#[test]
fn a_stream_id_that_came_meanwhile_is_not_rolled_back() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let gate = Gate::before(&redis, AtManifest::Hold);
    let url = gate.url();
    let slow = std::thread::spawn(move || publish(&url, &small_document()));
    gate.wait_until_reached();
    let mut manifest = redis.manifest();
    manifest.stream_id = "9000000000000-0".parse().unwrap();
    let json = serde_json::to_string(&manifest).unwrap();
    let () = redis.command("SET", &["flag_definitions:snapshot", &json]);
    gate.open();

    slow.join().unwrap().expect(1);
    assert_eq!(redis.manifest(), manifest);
}

#[test]
fn a_connection_lost_at_the_manifest_leaves_the_pages_for_the_next_publish() {
    let mut redis = Redis::start();
    let gate = Gate::before(&redis, AtManifest::Close);
    let outcome = publish(&gate.url(), &small_document()).expect(1);
    assert!(
        outcome
            .stderr
            .contains("Generation 1 may or may not be published: publish again"),
        "{}",
        outcome.stderr
    );
    // Had Redis carried the command out, removing its pages would break the snapshot.
    assert_eq!(redis.ttl("flag_definitions:snapshot:1:0"), -1);
    // The lock too could not be given back: it expires.
    let ttl = redis.ttl("flag_definitions:lock");
    assert!(ttl != -1 && ttl <= 5, "{ttl}");
    let () = redis.command("DEL", &["flag_definitions:lock"]);
    publish(&redis.url(), &small_document()).expect(0);
    assert!(redis.ttl("flag_definitions:snapshot:1:0") > 0);
}

#[test]
fn a_failure_in_the_middle_removes_what_was_written() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let before = redis.manifest();
    let info: String = redis.command("INFO", &["memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let limit = used.unwrap().trim().parse::<u64>().unwrap() + (600 << 10);
    let () = redis.command("CONFIG", &["SET", "maxmemory", &limit.to_string()]);

    let outcome = publish(&redis.url(), &large_document()).expect(1);
    assert!(
        outcome.stderr.contains("wrote page 1 of 6"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("raise its maxmemory"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stderr
            .contains("the current snapshot was not touched")
    );
    assert_eq!(redis.manifest(), before);
    assert_eq!(
        redis.keys(),
        [
            "flag_definitions:fence",
            "flag_definitions:generation",
            "flag_definitions:snapshot",
            "flag_definitions:snapshot:1:0"
        ]
    );
}

#[test]
fn redis_away() {
    let url = format!("redis://publisher:hunter2@127.0.0.1:{NOBODYS_PORT}");
    let outcome = publish(&url, &small_document()).expect(1);
    assert!(
        outcome.stderr.contains("Connection refused"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("check that it runs"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("redis://publisher:hunter2@127.0.0.1:{port}");
    let outcome = publish(&url, &small_document()).expect(1);
    assert!(
        outcome.stderr.contains("no answer within 5 s"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
}

#[test]
fn a_wrong_password() {
    let mut redis = Redis::start_with_users();
    let url = format!("redis://publisher:hunter2@127.0.0.1:{}", redis.port);
    let outcome = publish(&url, &small_document()).expect(1);
    assert!(
        outcome.stderr.contains("user or password refused"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    assert!(redis.keys().is_empty());
}

#[test]
fn a_prefix_beyond_the_permissions() {
    let mut redis = Redis::start_with_users();
    let url = format!(
        "redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{}",
        redis.port
    );
    let arguments = [
        "publish",
        "--file",
        "-",
        "--redis-url",
        &url,
        "--prefix",
        "other:",
    ];
    let outcome = run(&arguments, small_document().to_string().as_bytes()).expect(1);
    assert!(
        outcome.stderr.contains("permissions of `publisher`"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains(PUBLISHER_PASSWORD));
    assert!(redis.keys().is_empty());
}
