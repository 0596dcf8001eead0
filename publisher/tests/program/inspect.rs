//! `inspect`.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::snapshot::change::Watermark;
use flag_definitions_filter::surfaces::posthog::directory::{Record, etag_hash};
use flag_definitions_filter::tenant::Tenant;
use serde_json::{Value, json};

use crate::support::{Outcome, Redis, change, hash, publish, run, run_with_environment, short};

const OURS: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const THEIRS: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

/// A Redis with two teams and every kind of credential.
fn start() -> Redis {
    let redis = Redis::start();
    let personal = |token: &str, organization: &str| json!({"sha256": hash(token), "user_active": true, "organization_ids": [organization]});
    let mut inactive = personal("phx_inactive", OURS);
    inactive["user_active"] = json!(false);
    let mut unscoped = personal("phx_unscoped", OURS);
    unscoped["scopes"] = json!(["insight:read"]);
    let document = json!({
        "format": 1,
        "teams": [
            {"id": 7, "api_token": "phc_a", "organization_id": OURS, "secret_token_sha256": [hash("phs_a")]},
            {"id": 8, "api_token": "phc_b", "organization_id": THEIRS},
        ],
        "project_secret_keys": [
            {"sha256": hash("phs_p"), "team_id": 7, "scopes": ["feature_flag:read"]},
            {"sha256": hash("phs_q"), "team_id": 7, "scopes": []},
        ],
        "personal_keys": [personal("phx_a", OURS), personal("phx_b", THEIRS), inactive, unscoped],
    });
    publish(&redis.url(), &document).expect(0);
    redis
}

fn inspect(redis: &Redis, arguments: &[&str], input: &str) -> Outcome {
    let url = redis.url();
    let arguments = [&["inspect"], arguments, &["--redis-url", &url]].concat();
    let outcome = run(&arguments, input.as_bytes());
    for line in input.lines().filter(|line| !line.is_empty()) {
        assert!(!outcome.stdout.contains(line), "{}", outcome.stdout);
        assert!(!outcome.stderr.contains(line), "{}", outcome.stderr);
    }
    outcome
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn a_team() {
    let mut redis = start();
    let outcome = inspect(&redis, &["team", "7"], "").expect(0);
    for part in [
        &format!("team 7, organization {OURS}\n"),
        &format!("  project token       {}, as of ", short("phc_a")),
        &format!("  team secret         {}, as of ", short("phs_a")),
        "scopes do not read flags\n",
        "  personal keys that may read: 1\n",
        "  no ETag is published",
        "generation 1 as of ",
        "no watermark",
    ] {
        assert!(outcome.stdout.contains(part), "{}", outcome.stdout);
    }

    let start = redis.begin_lineage();
    let (seconds, _): (u64, u64) = redis.command("TIME", &[""; 0]);
    let watermark = Watermark {
        etags_at: seconds * 1_000,
        records_at: None,
    };
    let etag = Record::ETag(ETag::new(b"0123abcd").unwrap());
    let changes = [change(etag_hash(Tenant(7)), &etag), watermark.written()];
    let last = redis.add_changes(start, &changes);
    let outcome = inspect(&redis, &["team", "7"], "").expect(0);
    assert!(outcome.stdout.contains("  ETag 0123abcd, as of "));
    let view = json(&inspect(&redis, &["team", "7", "--json"], "").expect(0));
    assert_eq!(view["team"], 7);
    assert_eq!(view["organization"], OURS);
    assert_eq!(view["etag"]["value"], "0123abcd");
    assert_eq!(view["project_secret_keys"].as_array().unwrap().len(), 2);
    assert_eq!(view["published"]["generation"], 1);
    assert_eq!(view["published"]["stream_id"], last.to_string());
    assert!(view["published"]["watermark_age_ms"].as_u64().unwrap() < 60_000);
    assert_eq!(view["published"]["fault"], Value::Null);
}

#[test]
fn a_team_that_is_not_published() {
    let redis = start();
    let outcome = inspect(&redis, &["team", "9"], "").expect(3);
    assert!(outcome.stdout.starts_with("team 9 is not published\n"));
    let empty = Redis::start();
    let outcome = inspect(&empty, &["team", "7"], "").expect(3);
    assert!(
        outcome.stdout.contains("nothing is published"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_token_alone() {
    let mut redis = start();
    let first = redis.begin_lineage();
    redis.add_changes(
        first,
        &[change(Sha256Hash::of(b"phs_gone"), &Record::Tombstone)],
    );
    for (token, code, kind, part) in [
        ("phc_a", 0, Some("team"), "team 7, organization"),
        (
            "phs_a",
            0,
            Some("team secret"),
            "allowed: reads the definitions of team 7 (secret_api_key)",
        ),
        (
            "phs_p",
            0,
            Some("project secret key"),
            "allowed: reads the definitions of team 7 (project_secret_api_key)",
        ),
        (
            "phs_q",
            3,
            Some("project secret key"),
            "refused: 401 secret_invalid: Secret API token is invalid.",
        ),
        (
            "phx_a",
            0,
            Some("personal key"),
            "user active, scopes read flags, member of 0189",
        ),
        ("phx_inactive", 0, Some("personal key"), "user inactive"),
        ("phs_gone", 3, Some("removed"), ": removed, as of "),
        ("phs_unknown", 3, None, ": nothing is known of it"),
    ] {
        let outcome = inspect(&redis, &["token"], token).expect(code);
        assert!(outcome.stdout.contains(part), "{token}: {}", outcome.stdout);
        let prefix = short(token);
        assert!(outcome.stdout.contains(&prefix), "{}", outcome.stdout);
        let view = json(&inspect(&redis, &["token", "--json"], token).expect(code));
        assert_eq!(view["token"]["kind"].as_str(), kind, "{token}");
        assert_eq!(view["token"]["sha256"], prefix);
    }
}

#[test]
fn a_token_with_a_credential() {
    let redis = start();
    for (token, bearer, code, reason, unknown) in [
        ("phc_a", "phs_a", 200, "definitions", false),
        ("phc_a", "phs_p", 200, "definitions", false),
        ("phc_a", "phx_a", 200, "definitions", false),
        ("", "phs_a", 200, "definitions", false),
        ("", "phx_a", 400, "token_required", false),
        ("phc_b", "phs_a", 401, "secret_invalid", false),
        ("phc_a", "phs_q", 401, "secret_invalid", false),
        ("phc_a", "phs_unknown", 401, "secret_invalid", true),
        ("phc_a", "phx_b", 401, "personal_invalid", false),
        ("phc_a", "phx_inactive", 401, "personal_invalid", false),
        ("phc_a", "phx_unscoped", 403, "scope_missing", false),
        ("phc_a", "phc_a", 401, "personal_invalid", false),
        ("phc_unknown", "phs_a", 401, "token_invalid", true),
        ("phs_a", "phs_a", 401, "token_invalid", false),
    ] {
        let input = format!("{token}\n{bearer}\n");
        let expected = if code == 200 { 0 } else { 3 };
        let arguments = ["token", "--credential", "--json"];
        let view = json(&inspect(&redis, &arguments, &input).expect(expected));
        let decision = &view["decision"];
        assert_eq!(decision["status"], code, "{token} {bearer}");
        assert_eq!(decision["reason"], reason, "{token} {bearer}");
        assert_eq!(decision["allowed"], code == 200);
        assert_eq!(decision["unknown"], unknown, "{token} {bearer}");
    }
    let outcome = inspect(&redis, &["token", "--credential"], "phc_a\nphx_unscoped\n").expect(3);
    for part in [
        "token       sha256:",
        "credential  sha256:",
        "scopes do not read flags",
        "refused: 403 scope_missing: Personal API key lacks required scopes",
    ] {
        assert!(outcome.stdout.contains(part), "{}", outcome.stdout);
    }
}

#[test]
fn bad_input() {
    let redis = start();
    for (arguments, input) in [
        (&["token"][..], ""),
        (&["token"], "phc_a\nphs_a\n"),
        (&["token", "--credential"], "phc_a\n"),
        (&["token", "--credential"], "phc_a\nphs_a\nphs_b\n"),
        (&["token", "phs_argument"], "phc_a"),
        (&["team"], ""),
        (&["team", "phs_argument"], ""),
        (&["team", "-1"], ""),
        (&[], ""),
    ] {
        let outcome = inspect(&redis, arguments, input).expect(2);
        assert!(outcome.stdout.is_empty());
        assert!(
            !outcome.stderr.contains("phs_argument"),
            "{}",
            outcome.stderr
        );
    }
    let long = "a".repeat((128 << 10) + 1);
    inspect(&redis, &["token"], &long).expect(2);
}

#[test]
fn options_come_from_the_environment() {
    let redis = start();
    let url = redis.url();
    let variables = [("REDIS_URL", url.as_str()), ("FLAG_DEFINITIONS_JSON", "1")];
    let outcome = run_with_environment(&["inspect", "team", "7"], b"", &variables).expect(0);
    assert_eq!(json(&outcome)["team"], 7);
}
