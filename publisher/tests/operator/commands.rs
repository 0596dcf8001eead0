//! What is published is what the database says, and every command shows the same of it.

use serde_json::Value;

use crate::certificates::Certificates;
use crate::database::{ENCODED_PASSWORD, PASSWORD, Postgres};
use crate::support::{Outcome, hash, run_with_environment};
use crate::watcher::Watcher;

const TEAMS: &str = "
    INSERT INTO posthog_organization (id, name) VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'a');
    INSERT INTO posthog_team (id, organization_id, api_token, secret_api_token)
    VALUES (7, '01890a5d-ac96-774b-bcce-b302099a8057', 'phc_operator', 'phs_operator');
";

/// Everything that is secret here.
const SECRETS: [&str; 4] = ["phc_operator", "phs_operator", PASSWORD, ENCODED_PASSWORD];

#[track_caller]
fn assert_nothing_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{text}");
        assert!(!text.contains(&hash(secret)), "{text}");
    }
}

fn run(arguments: &[&str], input: &str, variables: &[(&str, &str)]) -> Outcome {
    let outcome = run_with_environment(arguments, input.as_bytes(), variables);
    assert_nothing_secret(&outcome.stdout);
    assert_nothing_secret(&outcome.stderr);
    outcome
}

#[test]
fn watch_diff_and_inspect_agree() {
    let mut postgres = Postgres::posthog();
    postgres.sql(TEAMS);
    let certificates = Certificates::of("127.0.0.1");
    let (mut redis, tls_port) = certificates.redis();
    let etag = "posthog:1:cache/teams/7/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[etag, "0123456789abcdef"]);
    let (database, secure) = (postgres.url(), format!("rediss://127.0.0.1:{tls_port}"));
    let ca = certificates.path("ca.pem");
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &secure),
        ("REDIS_CA_FILE", ca.to_str().unwrap()),
    ];

    // Before anything is published.
    let outcome = run(&["diff"], "", &variables).expect(3);
    let line = "\nteams                        1         0         0          0\n";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);

    let watcher = Watcher::start(&variables);
    watcher.wait_for("active", |active| active == 1.0);
    watcher.wait_for("records{kind=\"team\"}", |teams| teams == 1.0);
    watcher.wait_for("records{kind=\"etag\"}", |etags| etags == 1.0);
    watcher.wait_for("watermark_age_seconds", |age| age < 10.0);
    let (head, health) = watcher.health();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(health["status"], "active");
    assert_eq!(health["generation"], health["lineage"]);

    let outcome = run(&["diff"], "", &variables).expect(0);
    assert!(
        outcome.stdout.ends_with("\nno difference\n"),
        "{}",
        outcome.stdout
    );
    let outcome = run(&["inspect", "team", "7", "--json"], "", &variables).expect(0);
    let view: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(view["etag"]["value"], "0123456789abcdef");
    assert!(view["published"]["watermark_age_ms"].as_u64().unwrap() < 10_000);
    let both = "phc_operator\nphs_operator\n";
    let outcome = run(&["inspect", "token", "--credential"], both, &variables).expect(0);
    assert!(
        outcome
            .stdout
            .contains("allowed: reads the definitions of team 7 (secret_api_key)"),
        "{}",
        outcome.stdout
    );

    // A publish does not take over from a watcher, but may tell what it would change.
    let document = r#"{"format":1,"teams":[{"id":8,"api_token":"phc_b"}]}"#;
    let arguments = ["publish", "--file", "-"];
    run(&arguments, document, &variables).expect(1);
    let dry = [&arguments[..], &["--dry-run"]].concat();
    let outcome = run(&dry, document, &variables).expect(0);
    let line = "\nteam secrets                 0         0         1          0\n";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);

    let (_, metrics) = watcher.get("/metrics").unwrap();
    assert_nothing_secret(&metrics);
    let log = watcher.end();
    assert_nothing_secret(&log);
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }

    // What changes while nobody watches.
    postgres.sql("UPDATE posthog_team SET secret_api_token = NULL");
    let outcome = run(&["diff"], "", &variables).expect(3);
    assert!(outcome.stdout.contains("\n- sha256:"), "{}", outcome.stdout);
}
