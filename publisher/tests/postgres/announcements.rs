//! A change in PostHog's tables is announced with the record as it is now.

use std::collections::BTreeMap;
use std::time::Instant;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::{Record, Team};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::Heard;

use crate::ear::Ear;
use crate::reading::{OURS, THEIRS, organization, people};
use crate::support::{Postgres, hash, secure};

type Changes = BTreeMap<Sha256Hash, Option<Record>>;

fn gone(tokens: &[&str]) -> Changes {
    tokens.iter().map(|token| (hash(token), None)).collect()
}

fn with(mut changes: Changes, token: &str, record: Record) -> Changes {
    changes.insert(hash(token), Some(record));
    changes
}

fn team(organization_id: Option<&str>) -> Record {
    Record::Team(Team {
        id: Tenant(7),
        organization: organization_id.map(organization),
    })
}

const SECRET: Record = Record::TeamSecret(Tenant(7));

#[test]
fn a_team() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    let ear = Ear::listening(&postgres);
    postgres.sql(
        "INSERT INTO posthog_team (id, api_token, secret_api_token) VALUES (7, 'phc_a', 'phs_1')",
    );
    let inserted = with(with(gone(&[]), "phc_a", team(None)), "phs_1", SECRET);
    assert_eq!(ear.changes(), inserted);

    // Rotated: the old secret stays for a while as the backup.
    postgres.sql(
        "UPDATE posthog_team SET secret_api_token = 'phs_2', secret_api_token_backup = 'phs_1'",
    );
    let rotated = with(inserted, "phs_2", SECRET);
    assert_eq!(ear.changes(), rotated);

    postgres.sql("UPDATE posthog_team SET secret_api_token_backup = NULL");
    let dropped = with(with(gone(&["phs_1"]), "phc_a", team(None)), "phs_2", SECRET);
    assert_eq!(ear.changes(), dropped);

    postgres.sql(&format!(
        "UPDATE posthog_team SET api_token = 'phc_b', organization_id = '{OURS}'"
    ));
    let renamed = with(
        with(gone(&["phc_a"]), "phc_b", team(Some(OURS))),
        "phs_2",
        SECRET,
    );
    assert_eq!(ear.changes(), renamed);

    postgres.sql("UPDATE posthog_team SET id = 8");
    let moved = ear.changes();
    assert_eq!(
        moved.get(&hash("phs_2")),
        Some(&Some(Record::TeamSecret(Tenant(8))))
    );

    postgres.sql("DELETE FROM posthog_team");
    assert_eq!(ear.changes(), gone(&["phc_b", "phs_2"]));
}

#[test]
fn keys() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    let ear = Ear::listening(&postgres);
    postgres.sql(&format!(
        "INSERT INTO posthog_projectsecretapikey (id, label, secure_value, team_id) VALUES ('k', '', '{}', 7)",
        secure("phs_k")
    ));
    let key = |reads_flags| Record::ProjectSecret {
        team: Tenant(7),
        reads_flags,
    };
    assert_eq!(ear.changes(), with(gone(&[]), "phs_k", key(true)));
    postgres.sql("UPDATE posthog_projectsecretapikey SET scopes = '{}'");
    assert_eq!(ear.changes(), with(gone(&[]), "phs_k", key(false)));
    postgres.sql("DELETE FROM posthog_projectsecretapikey");
    assert_eq!(ear.changes(), gone(&["phs_k"]));

    postgres.sql(&format!(
        "INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('k', '', '{}', 1)",
        secure("phx_k")
    ));
    assert_eq!(ear.changes().len(), 1);
    postgres.sql("UPDATE posthog_personalapikey SET scopes = '{insight:read}'");
    assert!(
        matches!(&ear.changes()[&hash("phx_k")], Some(Record::Personal(key)) if !key.reads_flags)
    );
    postgres.sql("UPDATE posthog_personalapikey SET scoped_teams = '{9}'");
    assert!(
        matches!(&ear.changes()[&hash("phx_k")], Some(Record::Personal(key)) if key.scoped_teams == [Tenant(9)])
    );
    // Rolled: the same row holds another secret.
    postgres.sql(&format!(
        "UPDATE posthog_personalapikey SET secure_value = '{}'",
        secure("phx_l")
    ));
    let rolled = ear.changes();
    assert_eq!(rolled[&hash("phx_k")], None);
    assert!(rolled[&hash("phx_l")].is_some());
    // A row that is no record any more.
    postgres.sql("UPDATE posthog_personalapikey SET scoped_organizations = '{nonsense}'");
    assert_eq!(ear.changes(), gone(&["phx_l"]));
}

#[test]
fn what_decides_of_a_user() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    for (id, user) in [("phx_1", 1), ("phx_2", 1), ("phx_3", 3)] {
        postgres.sql(&format!(
            "INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('{id}', '', '{}', {user})",
            secure(id)
        ));
    }
    let ear = Ear::listening(&postgres);
    let both = |check: fn(&Record) -> bool| {
        let changes = ear.changes();
        assert_eq!(changes.len(), 2);
        for token in ["phx_1", "phx_2"] {
            let record = changes[&hash(token)].as_ref().unwrap();
            assert!(check(record), "{record:?}");
        }
    };
    postgres.sql("UPDATE posthog_user SET is_active = FALSE WHERE id = 1");
    both(|record| matches!(record, Record::Personal(key) if !key.user_active));
    postgres.sql("UPDATE posthog_user SET is_active = TRUE WHERE id = 1");
    both(|record| matches!(record, Record::Personal(key) if key.user_active));
    postgres.sql(&format!(
        "DELETE FROM posthog_organizationmembership WHERE user_id = 1 AND organization_id = '{THEIRS}'"
    ));
    both(
        |record| matches!(record, Record::Personal(key) if key.organizations == [organization(OURS)]),
    );
    postgres.sql(&format!(
        "UPDATE posthog_organizationmembership SET organization_id = '{THEIRS}' WHERE user_id = 1"
    ));
    both(
        |record| matches!(record, Record::Personal(key) if key.organizations == [organization(THEIRS)]),
    );
    postgres.sql(&format!(
        "INSERT INTO posthog_organizationmembership (id, level, organization_id, user_id)
         VALUES (gen_random_uuid(), 1, '{OURS}', 1)"
    ));
    both(|record| matches!(record, Record::Personal(key) if key.organizations.len() == 2));
}

#[test]
fn what_another_row_holds_is_not_gone() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, api_token, secret_api_token) VALUES (6, 'phc_6', 'phs_6'), (7, 'phc_7', NULL);
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('a', '', '{}', 1)",
        secure("phx_k")
    ));
    let ear = Ear::listening(&postgres);
    // Each statement tells of the row that lost the secret; the row that has it now is found by the secret alone.
    postgres.sql(
        "ALTER TABLE posthog_team DISABLE TRIGGER flag_definitions_row;
         UPDATE posthog_team SET secret_api_token_backup = 'phs_6' WHERE id = 7;
         ALTER TABLE posthog_team ENABLE TRIGGER flag_definitions_row;
         UPDATE posthog_team SET secret_api_token = NULL WHERE id = 6;",
    );
    assert_eq!(ear.changes()[&hash("phs_6")], Some(SECRET));
    postgres.sql("UPDATE posthog_personalapikey SET id = 'b'");
    assert!(ear.changes()[&hash("phx_k")].is_some());
}

#[test]
fn a_reading_that_may_be_older_has_a_lower_position() {
    let mut postgres = Postgres::with_triggers();
    let before = postgres.read();
    let ear = Ear::listening(&postgres);
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    let announcement = ear.announcement();
    assert!(before.position < announcement.position);
    postgres.sql("INSERT INTO posthog_organization VALUES (gen_random_uuid(), 'x')");
    let after = postgres.read();
    assert!(after.position >= announcement.position);
    assert_eq!(
        after.records[&hash("phc_a")],
        announcement.changed[0].1.clone().unwrap()
    );
}

#[test]
fn what_changes_nothing_is_silent() {
    let mut postgres = Postgres::with_triggers();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a');
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('k', '', '{}', 1);
         INSERT INTO posthog_projectsecretapikey (id, label, secure_value, team_id) VALUES ('k', '', '{}', 7)",
        secure("phx_k"),
        secure("phs_k")
    ));
    let ear = Ear::listening(&postgres);
    // Django writes all columns back.
    postgres.sql(
        "UPDATE posthog_team SET api_token = api_token, secret_api_token = secret_api_token, name = 'x';
         UPDATE posthog_user SET is_active = is_active, last_login = now();
         UPDATE posthog_personalapikey SET last_used_at = now(), scopes = scopes;
         UPDATE posthog_projectsecretapikey SET last_used_at = now(), label = 'x';
         UPDATE posthog_organizationmembership SET level = 8;",
    );
    postgres.sql("BEGIN; DELETE FROM posthog_personalapikey; UPDATE posthog_team SET api_token = 'x'; ROLLBACK");
    ear.expect_silence();
    // Only now is something told, so nothing before it was.
    postgres.sql("DELETE FROM posthog_projectsecretapikey");
    assert_eq!(ear.changes(), gone(&["phs_k"]));
    assert_eq!(ear.database.ignored_notifications(), 0);
}

#[test]
fn many_changes_at_once_ask_for_a_full_read() {
    let mut postgres = Postgres::with_triggers();
    let ear = Ear::listening(&postgres);
    let insert = |from, to| {
        format!(
            "INSERT INTO posthog_team (id, api_token) SELECT n, 'phc_' || n FROM generate_series({from}, {to}) n"
        )
    };
    postgres.sql(&insert(1, 900));
    // On a busy machine they arrive in more than one burst.
    let mut announced = 0;
    while announced < 900 {
        announced += ear.changes().len();
    }
    postgres.sql(&insert(10_000, 60_000));
    // The first of them may have come alone.
    while ear.next() != Heard::Overflow {}
    let mut overflows = 1;
    while let Ok(heard) = ear.wait_a_moment() {
        overflows += usize::from(heard == Heard::Overflow);
    }
    assert!((1..50).contains(&overflows), "{overflows}");
    postgres.sql("TRUNCATE posthog_team CASCADE");
    assert_eq!(ear.next(), Heard::Overflow);
}

#[test]
fn it_says_up_to_when_everything_was_told() {
    let postgres = Postgres::with_triggers();
    let ear = Ear::listening(&postgres);
    let first = ear.up_to();
    assert!(first <= Instant::now());
    let second = ear.up_to();
    assert!(second > first && second <= Instant::now());
}
