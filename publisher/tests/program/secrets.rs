//! Whatever the program is told and whatever goes wrong, no token, secret or password is shown.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use serde_json::json;

use crate::support::{Redis, change, free_port, hash, publish, run_with_environment};

const PROJECT: &str = "phc_projecttoken111";
const SECRET: &str = "phs_secrettoken222";
const PERSONAL: &str = "phx_personalkey333";
const PASSWORD: &str = "hunter2hunter2";

/// Every command in every state of Redis; the output of all of them must not have any of the secrets.
#[test]
fn nothing_secret_is_shown() {
    let document = json!({
        "format": 1,
        "teams": [{"id": 7, "api_token": PROJECT, "secret_token_sha256": [hash(SECRET)]}],
        "personal_keys": [{"sha256": hash(PERSONAL), "user_active": true, "organization_ids": []}],
    });
    let bad = json!({"format": 1, "teams": [{"id": 7, "api_token": PROJECT, (SECRET): PERSONAL}]});
    let mut redis = Redis::start();
    let () = redis.command("CONFIG", &["SET", "requirepass", PASSWORD]);
    let good_url = format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port);
    let wrong_url = format!("redis://:{PASSWORD}x@127.0.0.1:{}", redis.port);
    let dead_url = format!("rediss://:{PASSWORD}@127.0.0.1:{}", free_port());
    let two = format!("{PROJECT}\n{SECRET}\n");
    let inputs = [
        document.to_string(),
        bad.to_string(),
        PERSONAL.to_owned(),
        two,
    ];
    let commands = [
        &["diff", "--file", "-"][..],
        &["publish", "--file", "-", "--dry-run"],
        &["publish", "--file", "-"],
        &["inspect", "team", "7"],
        &["inspect", "team", "7", "--json"],
        &["inspect", "token"],
        &["inspect", "token", "--json"],
        &["inspect", "token", "--credential"],
        &["inspect", "token", "--credential", "--json"],
        &["inspect", "token", SECRET],
        &["inspect", SECRET],
        &["hash"],
        &["completions", SECRET],
        &["completions", "bash"],
        &["--help"],
        &["inspect", "team", "--help"],
    ];
    let run_all = |when: &str| {
        for url in [&good_url, &wrong_url, &dead_url] {
            for command in commands {
                for input in &inputs {
                    let variables = [("REDIS_URL", url.as_str())];
                    let outcome = run_with_environment(command, input.as_bytes(), &variables);
                    let output = outcome.stdout + &outcome.stderr;
                    for secret in [PROJECT, SECRET, PERSONAL, PASSWORD] {
                        assert!(!output.contains(secret), "{when}: {command:?}: {output}");
                        // Nor the hash as PostHog's cache is keyed by it, but for `hash` itself.
                        let full = hash(secret);
                        let shown = command != ["hash"] && output.contains(&full);
                        assert!(!shown, "{when}: {command:?}: {output}");
                    }
                }
            }
        }
    };
    run_all("empty");
    publish(&good_url, &document).expect(0);
    run_all("published");
    let start = redis.begin_lineage();
    let gone = change(Sha256Hash::of(SECRET.as_bytes()), &Record::Tombstone);
    redis.add_changes(start, &[gone]);
    run_all("changed");
    let () = redis.command("DEL", &["flag_definitions:snapshot:1:0"]);
    run_all("damaged");
}
