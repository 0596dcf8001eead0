//! `diff`, and what a dry run shows.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use serde_json::{Value, json};

use crate::support::{
    NOBODYS_PORT, Outcome, PUBLISHER_PASSWORD, Redis, change, hash, large_document, publish, run,
    run_with_environment, short, small_document,
};

fn diff(url: &str, document: &Value, options: &[&str]) -> Outcome {
    let mut arguments = vec!["diff", "--file", "-", "--redis-url", url];
    arguments.extend(options);
    run(&arguments, document.to_string().as_bytes())
}

/// `small_document` with another secret, and another team.
fn other_document() -> Value {
    json!({
        "format": 1,
        "teams": [
            {"id": 7, "api_token": "phc_a", "secret_token_sha256": [hash("phs_b")]},
            {"id": 8, "api_token": "phc_b", "secret_token_sha256": []},
        ],
    })
}

#[test]
fn what_is_published_makes_no_difference() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let keys = redis.keys();
    let outcome = diff(&redis.url(), &small_document(), &[]).expect(0);
    assert!(
        outcome
            .stdout
            .starts_with("compared with generation 1 as of ")
    );
    assert!(
        outcome.stdout.ends_with("\nno difference\n"),
        "{}",
        outcome.stdout
    );
    assert_eq!(redis.keys(), keys);
}

#[test]
fn differences_are_counted_and_shown() {
    let redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let outcome = diff(&redis.url(), &other_document(), &[]).expect(3);
    for line in [
        "\nteams                        1         0         0          1\n".to_owned(),
        "\nteam secrets                 1         0         1          0\n".to_owned(),
        format!("\n+ {} team secret of team 7\n", short("phs_b")),
        format!("\n- {} team secret of team 7\n", short("phs_a")),
    ] {
        assert!(outcome.stdout.contains(&line), "{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("no difference"));
    let outcome = diff(&redis.url(), &other_document(), &["--examples", "0"]).expect(3);
    assert!(!outcome.stdout.contains("sha256"), "{}", outcome.stdout);
}

#[test]
fn the_changes_after_the_snapshot_count() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let start = redis.begin_lineage();
    let gone = change(Sha256Hash::of(b"phs_a"), &Record::Tombstone);
    let last = redis.add_changes(start, &[gone]);
    let outcome = diff(&redis.url(), &small_document(), &[]).expect(3);
    let head = format!("compared with generation 1 as of {last}\n");
    assert!(outcome.stdout.starts_with(&head), "{}", outcome.stdout);
    let line = "\nteam secrets                 1         0         0          0\n";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
}

#[test]
fn nothing_published_and_a_damaged_snapshot_are_said_to_be_so() {
    let mut redis = Redis::start();
    let outcome = diff(&redis.url(), &small_document(), &[]).expect(3);
    assert!(
        outcome
            .stdout
            .contains("nothing is published under this prefix")
    );
    publish(&redis.url(), &small_document()).expect(0);
    let () = redis.command("DEL", &["flag_definitions:snapshot:1:0"]);
    let outcome = diff(&redis.url(), &small_document(), &[]).expect(3);
    assert!(outcome.stdout.contains("page 0 of the snapshot is missing"));
    assert!(outcome.stdout.contains("is not whole"));
}

#[test]
fn many_removals_are_pointed_out() {
    let redis = Redis::start();
    publish(&redis.url(), &large_document()).expect(0);
    let outcome = diff(&redis.url(), &small_document(), &["--examples", "1"]).expect(3);
    assert!(outcome.stdout.contains("\nand 2000"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("more than 20 %"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn it_says_what_watch_would_hold_back() {
    let redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let text =
        |document: &Value, options: &[&str]| diff(&redis.url(), document, options).expect(3).stdout;
    let empty = json!({"format": 1, "teams": []});
    let emptied = text(&empty, &[]);
    let line = "\nnone of the 1 published teams is left: `watch` would hold 2 removals back, `publish` would not\n";
    assert!(emptied.contains(line), "{emptied}");
    assert!(
        emptied.contains("`publish` needs --allow-empty"),
        "{emptied}"
    );
    let trusted = text(&empty, &["--max-removal-percent", "100"]);
    assert!(!trusted.contains("`watch`"), "{trusted}");
    // The only key, revoked.
    let revoked = text(
        &json!({"format": 1, "teams": [{"id": 7, "api_token": "phc_a"}]}),
        &[],
    );
    assert!(
        !revoked.contains("`watch`") && !revoked.contains("--allow-empty"),
        "{revoked}"
    );
}

#[test]
fn a_dry_run_shows_the_difference_where_redis_is_named() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let url = redis.url();
    let keys = redis.keys();
    let arguments = ["publish", "--file", "-", "--dry-run", "--redis-url", &url];
    let outcome = run(&arguments, other_document().to_string().as_bytes()).expect(0);
    assert!(outcome.stdout.contains("\n+ sha256:"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("dry run, nothing was written\n"));
    assert_eq!(redis.keys(), keys);
    assert_eq!(redis.manifest().generation, 1);
}

#[test]
fn it_needs_no_more_than_the_publishers_permissions() {
    let mut redis = Redis::start_with_users();
    let url = format!(
        "redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{}",
        redis.port
    );
    publish(&url, &small_document()).expect(0);
    let start = redis.begin_lineage();
    redis.add_changes(start, &[change(Sha256Hash::of(b"x"), &Record::Tombstone)]);
    diff(&url, &small_document(), &[]).expect(0);
    let arguments = ["inspect", "team", "7", "--redis-url", &url];
    run(&arguments, b"").expect(0);
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused silently");
}

#[test]
fn failures() {
    let url = format!("redis://publisher:hunter2@127.0.0.1:{NOBODYS_PORT}");
    let outcome = diff(&url, &small_document(), &[]).expect(1);
    assert!(outcome.stderr.contains("check that it runs"));
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    diff(&url, &json!({}), &[]).expect(2);
    let variables = [("REDIS_URL", url.as_str())];
    run_with_environment(&["diff"], b"", &variables).expect(2);

    let port = NOBODYS_PORT;
    let database = format!("postgres://posthog:hunter2@127.0.0.1:{port}/posthog");
    let variables = [("REDIS_URL", url.as_str()), ("DATABASE_URL", &database)];
    let outcome = run_with_environment(&["diff"], b"", &variables).expect(1);
    let named = format!("Postgres at 127.0.0.1:{port}/posthog: ");
    assert!(outcome.stderr.contains(&named), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    let outcome = run_with_environment(&["diff", "--file", "-"], b"{}", &variables).expect(2);
    assert!(outcome.stderr.contains("unset one"), "{}", outcome.stderr);
}
