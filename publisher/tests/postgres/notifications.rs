//! Anybody with access to the database can notify. Whatever they say, only what rows hold is announced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::tenant::Tenant;

use flag_definitions_publisher::sources::posthog::database::Database;

use crate::ear::Ear;
use crate::reading::people;
use crate::support::{Postgres, hash, secure};

#[test]
fn foreign_notifications_remove_nothing() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, api_token, secret_api_token, secret_api_token_backup)
             VALUES (7, 'phc_a', 'phs_a', 'phs_b');
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('k', '', '{}', 1);
         INSERT INTO posthog_projectsecretapikey (id, label, secure_value, team_id) VALUES ('k', '', '{}', 7)",
        secure("phx_k"),
        secure("phs_k")
    ));
    let ear = Ear::listening(&postgres);
    let tokens = ["phc_a", "phs_a", "phs_b", "phx_k", "phs_k"];
    let held: Vec<String> = tokens
        .iter()
        .map(|token| format!("\"{}\"", hash(token).to_hex()))
        .collect();
    let held = held.join(",");
    for subject in ["team", "user", "personal_key", "project_secret_key"] {
        let payload = format!(r#"{{"read":"{subject}","id":"999","held":[{held}]}}"#);
        postgres.sql(&format!("NOTIFY flag_definitions, '{payload}'"));
        let changes = ear.changes();
        assert_eq!(changes.len(), 5, "{subject}");
        assert!(
            changes.values().all(Option::is_some),
            "{subject}: {changes:?}"
        );
        assert_eq!(changes[&hash("phs_b")], Some(Record::TeamSecret(Tenant(7))));
    }
    assert_eq!(ear.database.ignored_notifications(), 0);
}

#[test]
fn what_is_not_the_triggers_is_ignored() {
    let mut postgres = Postgres::with_triggers();
    let ear = Ear::listening(&postgres);
    let deep = "[".repeat(7_900);
    let payloads = [
        "",
        "{",
        "null",
        &deep,
        r#"{"read":"team","id":"0 OR 1=1"}"#,
        r#"{"read":"team","id":"99999999999999999999"}"#,
        r#"{"read":"personal_key","id":"\u0000"}"#,
        r#"{"read":"team","id":"1","held":["x"]}"#,
        r#"{"read":"everything"}"#,
    ];
    for payload in payloads {
        postgres
            .client
            .execute("SELECT pg_notify('flag_definitions', $1)", &[&payload])
            .unwrap();
    }
    // Unknown rows, and other channels, are no complaint.
    postgres.sql(
        r#"NOTIFY flag_definitions, '{"read":"team","id":"1"}';
           NOTIFY flag_definitions, '{"read":"personal_key","id":"'';DROP TABLE posthog_team;--"}';
           NOTIFY flag_definitions, '{"read":"user","id":"-5"}';
           NOTIFY another, '{'"#,
    );
    ear.expect_silence();
    // What comes after them is told after them.
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    assert!(ear.changes()[&hash("phc_a")].is_some());
    assert_eq!(ear.database.ignored_notifications(), payloads.len() as u64);
}

#[test]
fn a_flood_keeps_nobody_from_stopping() {
    let mut postgres = Postgres::with_triggers();
    let database = postgres.url();
    let done = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                postgres.sql(&format!(
                    r#"NOTIFY flag_definitions, '{{"read":"team","id":"{sent}"}}'"#
                ));
                sent += 1;
            }
        }
    });
    Ear::expect_to_stop_at_once(|| {
        let ear = Ear::new(Database::parse(&database, None, None).unwrap());
        ear.expect_listening();
        std::thread::sleep(Duration::from_millis(1_500));
        ear
    });
    done.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}
