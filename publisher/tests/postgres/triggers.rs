//! The triggers themselves: PostHog must not notice them.

use std::time::Duration;

use crate::ear::Ear;
use crate::reading::people;
use crate::support::{DROP_TRIGGERS, Postgres, TRIGGERS, hash, secure};

#[test]
fn they_may_be_installed_again_and_taken_away() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(TRIGGERS);
    let count = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'flag_definitions%'";
    assert_eq!(
        postgres
            .client
            .query_one(count, &[])
            .unwrap()
            .get::<_, i64>(0),
        10
    );
    postgres.sql(DROP_TRIGGERS);
    postgres.sql(DROP_TRIGGERS);
    assert_eq!(
        postgres
            .client
            .query_one(count, &[])
            .unwrap()
            .get::<_, i64>(0),
        0
    );
}

#[test]
fn an_old_database_has_fewer() {
    let mut postgres = Postgres::posthog();
    postgres.sql("DROP TABLE posthog_projectsecretapikey");
    postgres.sql(TRIGGERS);
    let ear = Ear::listening(&postgres);
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    assert_eq!(ear.changes().len(), 1);
}

#[test]
fn a_fault_in_them_fails_no_transaction_and_blocks_no_migration() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    postgres.sql(
        "ALTER TABLE posthog_team ALTER api_token TYPE text;
         ALTER TABLE posthog_team DROP secret_api_token_backup;
         UPDATE posthog_team SET api_token = 'phc_b';
         DELETE FROM posthog_team;",
    );
    let rows = postgres
        .client
        .query("SELECT FROM posthog_team", &[])
        .unwrap();
    assert!(rows.is_empty());
}

#[test]
fn a_payload_holds_no_secret_and_stays_short() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    postgres.sql("LISTEN flag_definitions");
    let long = "s".repeat(190);
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, api_token, secret_api_token) VALUES (7, 'phc_clear', '{long}');
         UPDATE posthog_team SET secret_api_token = NULL;
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('old', '', 'pbkdf2_sha256$x', 1),
             ('new', '', '{}', 1);
         DELETE FROM posthog_personalapikey;",
        secure("phx_k")
    ));
    let mut payloads = Vec::new();
    let mut notifications = postgres.client.notifications();
    // Patiently for as many as there should be, and then for more.
    let mut patience = Duration::from_secs(60);
    while let Some(notification) = postgres::fallible_iterator::FallibleIterator::next(
        &mut notifications.timeout_iter(patience),
    )
    .unwrap()
    {
        payloads.push(notification.payload().to_owned());
        if payloads.len() == 6 {
            patience = Duration::from_millis(500);
        }
    }
    let hex = |token: &str| hash(token).to_hex();
    assert_eq!(
        payloads,
        [
            r#"{"read" : "team", "id" : "7"}"#.to_owned(),
            format!(
                r#"{{"read" : "team", "id" : "7", "held" : ["{}","{}"]}}"#,
                hex("phc_clear"),
                hex(&long)
            ),
            r#"{"read" : "personal_key", "id" : "old"}"#.to_owned(),
            r#"{"read" : "personal_key", "id" : "new"}"#.to_owned(),
            r#"{"read" : "personal_key", "id" : "old", "held" : []}"#.to_owned(),
            format!(
                r#"{{"read" : "personal_key", "id" : "new", "held" : ["{}"]}}"#,
                hex("phx_k")
            ),
        ],
        "{payloads:#?}"
    );
}
