//! What a full read makes of PostHog's rows.

use std::time::Instant;

use flag_definitions_filter::surfaces::posthog::directory::{
    OrganizationId, PersonalKey, Record, Team,
};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::left_out::{LeftOutReason, Skipped};
use flag_definitions_publisher::sources::{Reading, Source};

use crate::support::{Postgres, hash, record, secure};

pub const OURS: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
pub const THEIRS: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

pub fn organization(text: &str) -> OrganizationId {
    OrganizationId::parse(text).unwrap()
}

/// Two organizations; user 1 belongs to both, user 2 is inactive, user 3 belongs to none.
pub fn people() -> String {
    format!(
        "INSERT INTO posthog_organization (id, name) VALUES ('{OURS}', 'ours'), ('{THEIRS}', 'theirs');
         INSERT INTO posthog_user (id, email, is_active) VALUES (1, 'a', TRUE), (2, 'b', FALSE), (3, 'c', TRUE);
         INSERT INTO posthog_organizationmembership (id, level, organization_id, user_id) VALUES
             (gen_random_uuid(), 1, '{THEIRS}', 1), (gen_random_uuid(), 1, '{OURS}', 1),
             (gen_random_uuid(), 1, '{OURS}', 2);"
    )
}

fn personal(reading: &Reading, token: &str) -> PersonalKey {
    match record(reading, token) {
        Some(Record::Personal(key)) => key,
        other => panic!("{token}: {other:?}"),
    }
}

#[test]
fn teams() {
    let mut postgres = Postgres::posthog();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, organization_id, api_token, secret_api_token, secret_api_token_backup) VALUES
         (12, '{OURS}', 'phc_a', 'phs_a', 'phs_old'), (7, NULL, 'phc_b', NULL, ''),
         (8, '{OURS}', '', 'phs_orphan', NULL), (9, NULL, 'phc_é', 'phs_a', 'phs_same')"
    )
    .replace("'phs_a', 'phs_same'", "'phs_same', NULL"));
    let reading = postgres.read();
    let team = |id, organization| {
        Some(Record::Team(Team {
            id: Tenant(id),
            organization,
        }))
    };
    assert_eq!(
        record(&reading, "phc_a"),
        team(12, Some(organization(OURS)))
    );
    assert_eq!(record(&reading, "phc_b"), team(7, None));
    assert_eq!(record(&reading, "phc_é"), team(9, None));
    assert_eq!(
        record(&reading, "phs_a"),
        Some(Record::TeamSecret(Tenant(12)))
    );
    assert_eq!(
        record(&reading, "phs_old"),
        Some(Record::TeamSecret(Tenant(12)))
    );
    assert_eq!(record(&reading, ""), None);
    assert_eq!(record(&reading, "phs_orphan"), None);
    assert_eq!(reading.records.len(), 6);
    assert_eq!((reading.counts.teams, reading.counts.team_secrets), (3, 3));
    assert_eq!(reading.team_ids, [Tenant(7), Tenant(9), Tenant(12)]);
    assert_eq!(
        reading.skipped,
        Skipped {
            malformed: 1,
            ..Skipped::default()
        }
    );
}

#[test]
fn project_secret_keys() {
    let mut postgres = Postgres::posthog();
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    for (token, scopes, reads_flags) in [
        ("phs_null", "NULL", true),
        ("phs_none", "'{}'", false),
        ("phs_read", "'{insight:read,feature_flag:read}'", true),
        ("phs_any", "'{*}'", true),
        ("phs_other", "'{insight:read}'", false),
        ("phs_null_in_it", "'{NULL}'", false),
    ] {
        postgres.sql(&format!(
            "INSERT INTO posthog_projectsecretapikey (id, label, secure_value, scopes, team_id)
             VALUES ('{token}', '', '{}', {scopes}, 7)",
            secure(token)
        ));
        let expected = Record::ProjectSecret {
            team: Tenant(7),
            reads_flags,
        };
        assert_eq!(record(&postgres.read(), token), Some(expected), "{token}");
    }
    assert_eq!(postgres.read().counts.project_secret_keys, 6);
}

#[test]
fn personal_keys() {
    let mut postgres = Postgres::posthog();
    postgres.sql(&people());
    let mut insert = |id: &str, stored: &str, user: i32, columns: &str, values: &str| {
        postgres.sql(&format!(
            "INSERT INTO posthog_personalapikey (id, label, secure_value, user_id{columns})
             VALUES ('{id}', '', {stored}, {user}{values})"
        ));
    };
    let mut key = |token: &str, user, columns: &str, values: &str| {
        insert(
            token,
            &format!("'{}'", secure(token)),
            user,
            columns,
            values,
        );
    };
    let restrictions = ", scopes, scoped_teams, scoped_organizations";
    key("phx_null", 1, "", "");
    key("phx_empty", 1, restrictions, ", '{}', '{}', '{}'");
    let values = format!(", '{{feature_flag:write}}', '{{7,-1,9}}', '{{{THEIRS},nonsense}}'");
    key("phx_full", 1, restrictions, &values);
    key("phx_inactive", 2, "", "");
    key("phx_alone", 3, "", "");
    key("phx_team_nonsense", 1, ", scoped_teams", ", '{-1}'");
    key(
        "phx_organization_nonsense",
        1,
        ", scoped_organizations",
        ", '{x}'",
    );
    key("phx_nested", 1, ", scoped_teams", ", '{{1,2},{3,4}}'");
    insert(
        "old",
        "'pbkdf2_sha256$260000$posthog_personal_api_key$abc='",
        1,
        "",
        "",
    );
    insert(
        "older",
        "'pbkdf2_sha256$390000$posthog_personal_api_key$abc='",
        1,
        "",
        "",
    );
    insert("null", "NULL", 1, "", "");
    insert("odd", "'sha1$abc'", 1, "", "");

    let reading = postgres.read();
    let both = vec![organization(OURS), organization(THEIRS)];
    let plain = PersonalKey {
        user_active: true,
        reads_flags: true,
        organizations: both.clone(),
        ..PersonalKey::default()
    };
    assert_eq!(personal(&reading, "phx_null"), plain);
    let empty = PersonalKey {
        reads_flags: false,
        ..plain.clone()
    };
    assert_eq!(personal(&reading, "phx_empty"), empty);
    let full = PersonalKey {
        scoped_teams: vec![Tenant(7), Tenant(9)],
        scoped_organizations: vec![organization(THEIRS)],
        ..plain
    };
    assert_eq!(personal(&reading, "phx_full"), full);
    let inactive = personal(&reading, "phx_inactive");
    assert!(!inactive.user_active);
    assert_eq!(inactive.organizations, [organization(OURS)]);
    assert!(personal(&reading, "phx_alone").organizations.is_empty());
    // What lifted a restriction would be worse than what is not there.
    for token in [
        "phx_team_nonsense",
        "phx_organization_nonsense",
        "phx_nested",
    ] {
        assert_eq!(record(&reading, token), None, "{token}");
    }
    assert_eq!(reading.counts.personal_keys, 5);
    let skipped = Skipped {
        pbkdf2: 2,
        malformed: 5,
        ..Skipped::default()
    };
    assert_eq!(reading.skipped, skipped);
}

#[test]
fn odd_rows_are_counted() {
    let mut postgres = Postgres::posthog();
    postgres.sql(&people());
    postgres.sql(&format!(
        "ALTER TABLE posthog_team DROP CONSTRAINT posthog_team_secret_api_token_key;
         INSERT INTO posthog_team (id, api_token, secret_api_token, secret_api_token_backup) VALUES
             (7, 'phc_a', 'phs_x', 'phs_x'), (8, 'phc_b', 'phs_x', NULL);
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('a', '', '{}', 1);
         INSERT INTO posthog_organization (id, name)
             SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '' FROM generate_series(1, 5000) n;
         INSERT INTO posthog_organizationmembership (id, level, organization_id, user_id)
             SELECT gen_random_uuid(), 1, id, 3 FROM posthog_organization;
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES ('b', '', '{}', 3);",
        secure("phs_x"),
        secure("phx_everywhere")
    ));
    let reading = postgres.read();
    // The first team's secret and backup are the same record; the other team and the personal key contradict.
    assert_eq!(
        record(&reading, "phs_x"),
        Some(Record::TeamSecret(Tenant(7)))
    );
    let skipped = Skipped {
        conflicting: 2,
        oversized: 1,
        ..Skipped::default()
    };
    assert_eq!(reading.skipped, skipped);
    assert_eq!(reading.records.len(), 3);
}

#[test]
fn rows_left_out_are_named() {
    let mut postgres = Postgres::posthog();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_team (id, api_token, secret_api_token) VALUES (7, 'phc_a', 'phs_x'), (8, '', NULL);
         INSERT INTO posthog_personalapikey (id, label, secure_value, user_id) VALUES
             ('k1', '', 'pbkdf2_sha256$260000$posthog_personal_api_key$abc=', 1), ('k2', '', NULL, 1), ('k3', '', '{}', 1);",
        secure("phs_x")
    ));
    let reading = postgres.read();
    let named = |reason| reading.left_out.of(reason).map(|rows| rows.to_string());
    let expected = |text: &str| Some(text.to_owned());
    assert_eq!(
        named(LeftOutReason::Pbkdf2),
        expected("posthog_personalapikey k1")
    );
    assert_eq!(
        named(LeftOutReason::Malformed),
        expected("posthog_team 8, posthog_personalapikey k2")
    );
    assert_eq!(
        named(LeftOutReason::Conflicting),
        expected("posthog_personalapikey k3")
    );
    assert_eq!(named(LeftOutReason::Oversized), None);
    for reason in LeftOutReason::ALL {
        let count = reading.left_out.of(reason).map_or(0, |rows| rows.count);
        assert_eq!(count, reading.skipped.of(reason));
    }
    assert!(!reading.lacks_project_keys);
    postgres.sql("DROP TABLE posthog_projectsecretapikey");
    assert!(postgres.read().lacks_project_keys);
}

#[test]
fn other_versions_of_posthog() {
    let mut postgres = Postgres::posthog();
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    postgres.sql("DROP TABLE posthog_projectsecretapikey");
    assert_eq!(postgres.read().records.len(), 1);

    // Types of keys and arrays differ.
    postgres.sql(
        "ALTER TABLE posthog_team ALTER id TYPE bigint;
         DROP TABLE posthog_personalapikey;
         CREATE TABLE posthog_personalapikey (id uuid PRIMARY KEY, secure_value text, scopes text[],
             scoped_teams bigint[], scoped_organizations uuid[], user_id integer);
         INSERT INTO posthog_personalapikey SELECT gen_random_uuid(), 'sha256$' || encode(sha256(n::text::bytea), 'hex')
             FROM generate_series(1, 25000) n;"
    );
    let reading = postgres.read();
    assert_eq!(reading.counts.personal_keys, 25_000);
    assert!(!personal(&reading, "25000").user_active);

    for (change, message) in [
        (
            "DROP TABLE posthog_organizationmembership",
            "there is no table posthog_organizationmembership",
        ),
        (
            "ALTER TABLE posthog_personalapikey RENAME scoped_teams TO x",
            "table posthog_personalapikey has no column scoped_teams",
        ),
        ("DROP TABLE posthog_team", "there is no table posthog_team"),
    ] {
        postgres.sql(change);
        let problem = postgres.problem();
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn many_rows() {
    const ROWS: u64 = 100_000;
    let mut postgres = Postgres::posthog();
    postgres.sql(&people());
    postgres.sql(&format!(
        "INSERT INTO posthog_personalapikey (id, label, secure_value, user_id)
             SELECT md5(n::text), '', 'sha256$' || encode(sha256(n::text::bytea), 'hex'), 1 + n % 3
             FROM generate_series(1, {ROWS}) n;
         INSERT INTO posthog_team (id, api_token, secret_api_token, organization_id)
             SELECT n, 'phc_' || n, 'phs_' || n, '{OURS}' FROM generate_series(1, {ROWS}) n;
         ANALYZE;"
    ));
    let mut told = Vec::new();
    let began = Instant::now();
    let reading = postgres
        .database()
        .read_all(&mut |rows| told.push(rows))
        .unwrap();
    let took = began.elapsed();
    println!("read {} rows in {took:.1?}", 2 * ROWS);
    assert!(took.as_secs() < 120, "{took:?}");
    assert_eq!(reading.records.len() as u64, 3 * ROWS);
    assert_eq!(reading.counts.personal_keys, ROWS);
    assert_eq!(told.last(), Some(&(2 * ROWS)));
    assert!(
        told.windows(2)
            .all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 10_000)
    );
    assert!(reading.records.contains_key(&hash("phs_100000")));
}
