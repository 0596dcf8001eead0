//! A database that lacks more than it should, or holds odd rows: what an operator is told.

use serde_json::Value;

use crate::database::{Postgres, TRIGGERS};
use crate::support::{Redis, run_with_environment};
use crate::watcher::Watcher;

const TEAMS: &str = "
    INSERT INTO posthog_team (id, api_token, secret_api_token)
    SELECT n, 'phc_' || n, 'phs_' || n FROM generate_series(1, 4) n;
";

#[test]
fn an_emptied_table_is_held_back_and_diff_says_so() {
    let mut postgres = Postgres::posthog();
    postgres.sql(TRIGGERS);
    postgres.sql(TEAMS);
    let mut redis = Redis::start();
    let (database, url) = (postgres.url(), redis.url());
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &url),
        ("FLAG_DEFINITIONS_DIFF_INTERVAL", "200ms"),
    ];
    let watcher = Watcher::start(&variables);
    watcher.wait_for("records{kind=\"team_secret\"}", |secrets| secrets == 4.0);
    watcher.wait_for("listening", |listening| listening == 1.0);

    // It announces a full read. Neither row by row nor as a whole does anybody lose a key.
    postgres.sql("TRUNCATE posthog_team CASCADE");
    watcher.wait_for("held_back_removals", |removals| removals == 8.0);
    let outcome = run_with_environment(&["diff"], b"", &variables[..2]).expect(3);
    let line = "none of the 4 published teams is left: `watch` would hold 8 removals back";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
    watcher.wait_for("records{kind=\"team\"}", |teams| teams == 4.0);
    postgres.sql(TEAMS);
    watcher.wait_for("held_back_removals", |removals| removals == 0.0);

    // Another table in its place, as of a restore under way. Nothing announces that, nor does a restart help.
    postgres.sql(
        "ALTER TABLE posthog_team RENAME TO posthog_team_old;
         CREATE TABLE posthog_team (LIKE posthog_team_old INCLUDING ALL)",
    );
    watcher.wait_for("held_back_removals", |removals| removals == 8.0);
    let log = watcher.end();
    assert!(
        log.contains("none of the 4 published teams is left"),
        "{log}"
    );
    let watcher = Watcher::start(&variables);
    watcher.wait_for("held_back_removals", |removals| removals == 8.0);
    watcher.wait_for("records{kind=\"team\"}", |teams| teams == 4.0);

    // What is deleted row by row goes out, whatever it is.
    postgres.sql("DROP TABLE posthog_team; ALTER TABLE posthog_team_old RENAME TO posthog_team");
    watcher.wait_for("held_back_removals", |removals| removals == 0.0);
    watcher.wait_for("listening", |listening| listening == 1.0);
    drop(watcher);
    let () = redis.command("DEL", &["flag_definitions:lock"]);
    let slow = [
        variables[0],
        variables[1],
        ("FLAG_DEFINITIONS_DIFF_INTERVAL", "10m"),
    ];
    let watcher = Watcher::start(&slow);
    watcher.wait_for("listening", |listening| listening == 1.0);
    watcher.wait_for("last_read_age_seconds", |_| true);
    postgres.sql("DELETE FROM posthog_team");
    watcher.wait_for("records{kind=\"team\"}", |teams| teams == 0.0);
    watcher.wait_for("records{kind=\"team_secret\"}", |secrets| secrets == 0.0);
}

#[test]
fn rows_left_out_are_named_once() {
    let mut postgres = Postgres::posthog();
    postgres.sql(TEAMS);
    postgres.sql(
        "ALTER TABLE posthog_team DROP CONSTRAINT posthog_team_api_token_key;
         INSERT INTO posthog_team (id, api_token) VALUES (8, ''), (9, '');
         INSERT INTO posthog_user (id, email, is_active) VALUES (1, 'a', TRUE);
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES
             ('old', '', 'pbkdf2_sha256$260000$posthog_personal_api_key$abc=', 1)",
    );
    let redis = Redis::start();
    let (database, url) = (postgres.url(), redis.url());
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &url),
        ("FLAG_DEFINITIONS_DIFF_INTERVAL", "100ms"),
    ];
    let watcher = Watcher::start(&variables);
    watcher.wait_for("skipped_rows{reason=\"malformed\"}", |rows| rows == 2.0);
    watcher.wait_for("skipped_rows{reason=\"pbkdf2\"}", |rows| rows == 1.0);
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (10, '')");
    watcher.wait_for("skipped_rows{reason=\"malformed\"}", |rows| rows == 3.0);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let log = watcher.end();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let warned: Vec<[String; 3]> = lines
        .iter()
        .filter(|line| line["reason"].is_string() && line["level"] == "WARN")
        .map(|line| ["reason", "rows", "ids"].map(|field| line[field].to_string().replace('"', "")))
        .collect();
    let expected = [
        ["pbkdf2", "1", "posthog_personalapikey old"],
        ["malformed", "2", "posthog_team 8, posthog_team 9"],
        [
            "malformed",
            "3",
            "posthog_team 8, posthog_team 9, posthog_team 10",
        ],
    ];
    assert_eq!(warned, expected, "{log}");
    assert!(!log.contains("abc="), "{log}");

    let outcome = run_with_environment(&["diff"], b"", &variables[..2]).expect(0);
    let line = "warning: rows hashed with PBKDF2 are left out: 1 (posthog_personalapikey old)";
    assert!(outcome.stderr.contains(line), "{}", outcome.stderr);
}
