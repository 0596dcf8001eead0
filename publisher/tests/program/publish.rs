//! What a publish leaves in Redis.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::{PersonalKey, Record};
use flag_definitions_filter::tenant::Tenant;
use serde_json::json;

use crate::support::{
    PUBLISHER_PASSWORD, Redis, hash, large_document, publish, run, run_with_environment,
    small_document,
};

const ORGANIZATION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[test]
fn what_is_published_reads_back() {
    let mut redis = Redis::start();
    let document = json!({
        "format": 1,
        "teams": [{
            "id": 7, "api_token": "phc_a", "organization_id": ORGANIZATION,
            "secret_token_sha256": [hash("phs_a"), hash("phs_b")],
        }],
        "project_secret_keys": [
            {"sha256": hash("phs_p"), "team_id": 7, "scopes": ["feature_flag:read"]},
        ],
        "personal_keys": [
            {"sha256": hash("phx_a"), "user_active": true, "organization_ids": [ORGANIZATION]},
        ],
    });
    let outcome = publish(&redis.url(), &document).expect(0);

    let manifest = redis.manifest();
    let bytes = manifest.pages[0].bytes;
    assert_eq!(
        outcome.stdout,
        format!(
            "published generation 1 (1 teams, 2 team secrets, 1 project secret keys, 1 personal keys; \
             1 page, {bytes} bytes) as of {}\n",
            manifest.stream_id
        )
    );
    assert_eq!(manifest.generation, 1);
    assert_eq!(manifest.stream_id.sequence, 0);
    assert!(!manifest.etags_watched);
    let (seconds, _): (u64, u64) = redis.command("TIME", &[""; 0]);
    assert!(seconds - manifest.stream_id.millis / 1_000 < 60);

    let records = redis.records();
    assert_eq!(records.len(), 5);
    let record = |token: &str| {
        let hash = Sha256Hash::of(token.as_bytes());
        let found = records.iter().find(|(candidate, _)| *candidate == hash);
        &found.unwrap().1
    };
    assert!(matches!(record("phc_a"), Record::Team(team) if team.id == Tenant(7)));
    assert_eq!(*record("phs_b"), Record::TeamSecret(Tenant(7)));
    assert!(matches!(
        record("phs_p"),
        Record::ProjectSecret {
            reads_flags: true,
            ..
        }
    ));
    assert!(matches!(
        record("phx_a"),
        Record::Personal(PersonalKey {
            user_active: true,
            ..
        })
    ));

    // No terminal: lines, and no control characters.
    assert!(
        outcome.stderr.contains("wrote page 1 of 1\n"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains(['\u{1b}', '\r']));
}

#[test]
fn a_large_snapshot_takes_several_pages() {
    let mut redis = Redis::start();
    let outcome = publish(&redis.url(), &large_document()).expect(0);
    assert!(outcome.stdout.contains("; 6 pages, "), "{}", outcome.stdout);
    assert_eq!(redis.records().len(), 20_001);
}

#[test]
fn the_next_publish_goes_up_and_lets_the_old_pages_expire() {
    let mut redis = Redis::start();
    publish(&redis.url(), &large_document()).expect(0);
    let first = redis.manifest();
    publish(&redis.url(), &small_document()).expect(0);
    let second = redis.manifest();
    assert_eq!(second.generation, 2);
    assert!(second.stream_id > first.stream_id);
    for page in 0..first.pages.len() {
        let ttl = redis.ttl(&format!("flag_definitions:snapshot:1:{page}"));
        assert!((1..=600).contains(&ttl), "page {page}: {ttl}");
    }
    assert_eq!(redis.records().len(), 2);
}

#[test]
fn ids_go_up_when_the_clock_went_back() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let mut manifest = redis.manifest();
    manifest.stream_id = "9000000000000-5".parse().unwrap();
    let json = serde_json::to_string(&manifest).unwrap();
    let () = redis.command("SET", &["flag_definitions:snapshot", &json]);

    let outcome = publish(&redis.url(), &small_document()).expect(0);
    assert!(
        outcome.stderr.contains("warning: the clock of Redis"),
        "{}",
        outcome.stderr
    );
    assert_eq!(redis.manifest().stream_id.to_string(), "9000000000001-0");
}

#[test]
fn a_lost_counter_goes_on_above_the_manifest() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let mut manifest = redis.manifest();
    manifest.generation = 41;
    let json = serde_json::to_string(&manifest).unwrap();
    let () = redis.command("SET", &["flag_definitions:snapshot", &json]);
    let () = redis.command("DEL", &["flag_definitions:generation"]);

    publish(&redis.url(), &small_document()).expect(0);
    assert_eq!(redis.manifest().generation, 42);
    let counter: u64 = redis.command("GET", &["flag_definitions:generation"]);
    assert_eq!(counter, 42);
}

#[test]
fn a_manifest_that_cannot_be_read_is_replaced() {
    let mut redis = Redis::start();
    for broken in ["", "{", "null", "[]", r#"{"generation":"99"}"#, "\u{0}"] {
        let () = redis.command("SET", &["flag_definitions:snapshot", broken]);
        publish(&redis.url(), &small_document()).expect(0);
        assert_eq!(redis.records().len(), 2, "{broken:?}");
    }
}

#[test]
fn a_manifest_of_another_format_is_not_rolled_back() {
    let mut redis = Redis::start();
    let other = r#"{"format":2,"generation":5,"stream_id":"9000000000000-0"}"#;
    let () = redis.command("SET", &["flag_definitions:snapshot", other]);
    publish(&redis.url(), &small_document()).expect(0);
    let manifest = redis.manifest();
    assert_eq!(manifest.generation, 6);
    assert_eq!(manifest.stream_id.to_string(), "9000000000001-0");
}

#[test]
fn what_an_interrupted_publish_left_expires() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let counter: u64 = redis.command("INCR", &["flag_definitions:generation"]);
    assert_eq!(counter, 2);
    for page in 0..3 {
        let key = format!("flag_definitions:snapshot:2:{page}");
        let () = redis.command("SET", &[key.as_str(), "left"]);
    }
    publish(&redis.url(), &small_document()).expect(0);
    for page in 0..3 {
        let ttl = redis.ttl(&format!("flag_definitions:snapshot:2:{page}"));
        assert!((1..=600).contains(&ttl), "page {page}: {ttl}");
    }
}

#[test]
fn the_publisher_needs_no_more_than_its_permissions() {
    let mut redis = Redis::start_with_users();
    let url = format!(
        "redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{}/0",
        redis.port
    );
    publish(&url, &large_document()).expect(0);
    publish(&url, &small_document()).expect(0);
    assert_eq!(redis.manifest().generation, 2);
    assert!(redis.ttl("flag_definitions:snapshot:1:0") > 0);
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused silently");
}

#[test]
fn ids_lie_above_all_changes_of_a_watcher() {
    let mut redis = Redis::start();
    let arguments = ["flag_definitions:changes", "9000000000000-3", "a", "b"];
    let () = redis.command("XADD", &arguments);
    publish(&redis.url(), &small_document()).expect(0);
    assert_eq!(redis.manifest().stream_id.to_string(), "9000000000001-0");
}

#[test]
fn another_publisher_at_work_is_not_disturbed() {
    let mut redis = Redis::start();
    let () = redis.command("SET", &["flag_definitions:lock", "somebody"]);
    let outcome = publish(&redis.url(), &small_document()).expect(1);
    assert!(
        outcome.stderr.contains("another publisher is at work"),
        "{}",
        outcome.stderr
    );
    assert_eq!(redis.keys(), ["flag_definitions:lock"]);
    let () = redis.command("DEL", &["flag_definitions:lock"]);
    publish(&redis.url(), &small_document()).expect(0);
    // Given back at the end.
    assert!(!redis.keys().contains(&"flag_definitions:lock".to_owned()));
}

#[test]
fn options_come_from_the_environment() {
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot.json");
    std::fs::write(&file, small_document().to_string()).unwrap();
    let variables = [
        ("FLAG_DEFINITIONS_FILE", file.to_str().unwrap()),
        ("REDIS_URL", &redis.url()),
        ("FLAG_DEFINITIONS_PREFIX", "other:"),
    ];
    run_with_environment(&["publish"], b"", &variables).expect(0);
    assert_eq!(
        redis.keys(),
        [
            "other:fence",
            "other:generation",
            "other:snapshot",
            "other:snapshot:1:0"
        ]
    );
}

#[test]
fn a_dry_run_needs_no_redis() {
    let document = small_document().to_string();
    let outcome = run(
        &["publish", "--file", "-", "--dry-run"],
        document.as_bytes(),
    )
    .expect(0);
    assert!(
        outcome
            .stdout
            .contains("would publish 1 teams, 1 team secrets")
    );
    assert!(
        outcome
            .stdout
            .contains("would replace flag_definitions:snapshot\n")
    );
}

#[test]
fn a_dry_run_touches_nothing() {
    let mut redis = Redis::start();
    let url = redis.url();
    let arguments = ["publish", "--file", "-", "--redis-url", &url, "--dry-run"];
    run(&arguments, small_document().to_string().as_bytes()).expect(0);
    run(&arguments, b"{}").expect(2);
    assert!(redis.keys().is_empty());
}

#[test]
fn a_document_without_teams_needs_a_word() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let (keys, manifest) = (redis.keys(), redis.manifest());
    let url = redis.url();
    let empty = br#"{"format":1,"teams":[]}"#;
    let arguments = ["publish", "--file", "-", "--redis-url", &url];
    for more in [&[][..], &["--dry-run"]] {
        let outcome = run(&[&arguments[..], more].concat(), empty).expect(2);
        for text in [
            "-: the document has no teams",
            "--allow-empty",
            "nothing was written",
        ] {
            assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
        }
    }
    run_with_environment(
        &arguments,
        empty,
        &[("FLAG_DEFINITIONS_ALLOW_EMPTY", "false")],
    )
    .expect(2);
    assert_eq!((redis.keys(), redis.manifest()), (keys, manifest));

    run(&[&arguments[..], &["--allow-empty"]].concat(), empty).expect(0);
    assert_eq!(redis.records().len(), 0);
    publish(&redis.url(), &small_document()).expect(0);
    run_with_environment(&arguments, empty, &[("FLAG_DEFINITIONS_ALLOW_EMPTY", "1")]).expect(0);
    assert_eq!(redis.records().len(), 0);
}
