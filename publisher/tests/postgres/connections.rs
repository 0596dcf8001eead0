//! Logging in, TLS, replicas, and servers that go away.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_definitions_publisher::sources::posthog::database::Database;
use flag_definitions_publisher::sources::{Heard, Source};

use crate::ear::Ear;
use crate::support::{PASSWORD, Postgres, hash, own};

#[track_caller]
fn problem(url: &str) -> String {
    let database = Database::parse(url, None, None).unwrap();
    database.read_all(&mut |_| ()).unwrap_err().to_string()
}

#[test]
fn a_refused_login_names_the_server_and_no_password() {
    let mut postgres = Postgres::posthog();
    let at = format!("127.0.0.1:{}/postgres", postgres.port);
    let text = problem(&format!("postgres://posthog:hunter2@{at}"));
    let start = format!("Postgres at {at}: user or password refused; check");
    assert!(
        text.starts_with(&start) && !text.contains("hunter2"),
        "{text}"
    );

    let text = problem(&format!("{}x", postgres.url()));
    assert!(
        text.contains("database \"postgresx\" does not exist")
            && text.contains("check the database name"),
        "{text}"
    );
    assert!(!text.contains(PASSWORD), "{text}");

    let text = problem(&format!("postgres://posthog@{at}"));
    assert!(
        text.contains("put user and password into the URL"),
        "{text}"
    );

    // A user of the publisher's own needs nothing but these rights.
    postgres.sql(
        "CREATE USER publisher PASSWORD 'hunter2';
         GRANT SELECT ON posthog_team, posthog_personalapikey, posthog_projectsecretapikey, posthog_user TO publisher",
    );
    let url = format!("postgres://publisher:hunter2@{at}");
    let text = problem(&url);
    assert!(
        text.contains("permission denied for table posthog_organizationmembership"),
        "{text}"
    );
    assert!(text.contains("GRANT SELECT"), "{text}");
    postgres.sql(
        "GRANT SELECT (user_id, organization_id) ON posthog_organizationmembership TO publisher",
    );
    assert!(
        Database::parse(&url, None, None)
            .unwrap()
            .read_all(&mut |_| ())
            .is_ok()
    );

    // Hidden rows must not look like removed ones.
    postgres.sql("ALTER TABLE posthog_team ENABLE ROW LEVEL SECURITY");
    assert!(
        problem(&url).contains("row-level security"),
        "{}",
        problem(&url)
    );
}

#[test]
fn a_server_that_is_not_there_or_never_answers() {
    // Nobody listens on that port, nor will.
    let text = problem("postgres://u:hunter2@127.0.0.1:1/db");
    assert!(
        text.contains("Connection refused") && text.contains("check that it runs"),
        "{text}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let began = Instant::now();
    let text = problem(&format!("postgres://u:hunter2@127.0.0.1:{port}/db"));
    assert!(text.contains("no answer within 5 s"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20));

    // Listening stops at once even then.
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/db");
    Ear::expect_to_stop_at_once(|| {
        let ear = Ear::new(Database::parse(&url, None, None).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        ear
    });
}

#[test]
fn a_debug_text_shows_the_addresses_alone() {
    let database = Database::parse(
        "postgres://u:hunter2@h/db",
        Some("postgres://u:hunter3@g/db"),
        None,
    )
    .unwrap();
    let text = format!("{database:?}");
    assert!(
        text.contains("h:5432/db") && text.contains("g:5432/db") && !text.contains("hunter"),
        "{text}"
    );
    assert_eq!(database.address(), "h:5432/db");
}

#[test]
fn listening_ends_at_once() {
    let postgres = Postgres::with_triggers();
    Ear::expect_to_stop_at_once(|| Ear::listening(&postgres));
    Ear::expect_to_stop_at_once(|| {
        let ear = Ear::new(Database::parse("postgres://u@127.0.0.1:1/db", None, None).unwrap());
        assert!(ear.problem().contains("Connection refused"));
        ear
    });
}

#[test]
fn without_triggers_nobody_claims_to_listen() {
    let mut postgres = Postgres::posthog();
    let ear = Ear::new(postgres.database());
    let text = ear.problem();
    assert!(
        text.contains("no enabled trigger flag_definitions_row") && text.contains("triggers.sql"),
        "{text}"
    );
    postgres.sql(crate::support::TRIGGERS);
    while let Heard::NotListening(_) = ear.next() {}
    assert_eq!(ear.next(), Heard::Overflow);
}

#[test]
fn a_server_that_comes_back_is_listened_to_again() {
    let postgres = Postgres::with_triggers();
    let ear = Ear::listening(&postgres);
    let mut postgres = postgres.restart(&[]);
    ear.problem();
    while let Heard::NotListening(_) = ear.next() {}
    assert_eq!(ear.next(), Heard::Overflow);
    postgres.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    assert!(ear.changes()[&hash("phc_a")].is_some());
}

#[test]
fn a_replica_is_read_while_its_primary_is_listened_to() {
    let mut primary = Postgres::with_triggers();
    primary.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    let replica = primary.replica();
    let ear = Ear::new(replica.database());
    let text = ear.problem();
    assert!(
        text.contains("this is a read replica") && text.contains("primary"),
        "{text}"
    );

    let database = Database::parse(&replica.url(), Some(&primary.url()), None).unwrap();
    let ear = Ear::new(database);
    ear.expect_listening();
    primary.sql("INSERT INTO posthog_team (id, api_token) VALUES (8, 'phc_b')");
    let announcement = ear.announcement();
    // More WAL, so that the replica gets past the announcement.
    primary.sql("INSERT INTO posthog_organization VALUES (gen_random_uuid(), 'x')");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let reading = replica.read();
        if reading.position >= announcement.position {
            assert!(reading.records.contains_key(&hash("phc_b")));
            return;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_read_waits_for_a_replica_that_lacks_what_went_unheard() {
    let mut primary = Postgres::with_triggers();
    let mut replica = primary.replica();
    replica.sql("SELECT pg_wal_replay_pause()");
    primary.sql("INSERT INTO posthog_team (id, api_token) VALUES (7, 'phc_a')");
    let ear = Ear::new(Database::parse(&replica.url(), Some(&primary.url()), None).unwrap());
    ear.expect_listening();
    let database = Arc::clone(&ear.database);
    let reading = std::thread::spawn(move || database.read_all(&mut |_| ()).unwrap());
    std::thread::sleep(Duration::from_secs(1));
    assert!(!reading.is_finished());
    replica.sql("SELECT pg_wal_replay_resume()");
    let reading = reading.join().unwrap();
    assert!(reading.records.contains_key(&hash("phc_a")));
}

#[test]
fn a_canceled_statement_names_its_timeout_beside_the_replica() {
    let mut postgres = Postgres::posthog();
    postgres.sql("BEGIN; LOCK TABLE posthog_team IN ACCESS EXCLUSIVE MODE");
    let database = postgres.database();
    let reading =
        std::thread::spawn(move || database.read_all(&mut |_| ()).unwrap_err().to_string());
    // What the server does itself after 60 s.
    let cancel =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while postgres.client.query(cancel, &[]).unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
        // What is seen of others stays as it is within a transaction.
        postgres.sql("SELECT pg_stat_clear_snapshot()");
    }
    let text = reading.join().unwrap();
    for named in ["(57014); ", "statement_timeout", "hot_standby_feedback"] {
        assert!(text.contains(named), "{text}");
    }
}

/// Writes a certificate authority, and a certificate of it for the host.
fn certificates(directory: &Path, host: &str) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    for (name, pem) in [
        ("ca.pem", authority_pem),
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, pem).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        own(&path);
    }
}

#[test]
fn what_each_sslmode_accepts() {
    let postgres = Postgres::posthog();
    let without_tls = problem(&format!("{}?sslmode=require", postgres.url()));
    assert!(without_tls.contains("check sslmode"), "{without_tls}");
    certificates(&postgres.data(), "other.example");
    let other = tempfile::tempdir().unwrap();
    certificates(other.path(), "127.0.0.1");
    let postgres = postgres.restart(&["ssl=on"]);
    let ca = postgres.data().join("ca.pem");
    let foreign = other.path().join("ca.pem");
    let read = |mode: &str, ca: Option<&Path>| {
        let url = format!("{}?sslmode={mode}", postgres.url());
        let database = Database::parse(&url, None, ca).unwrap();
        database
            .read_all(&mut |_| ())
            .map(|_| ())
            .map_err(|problem| problem.to_string())
    };
    for (mode, ca, accepted) in [
        ("disable", None, true),
        ("prefer", None, true),
        ("require", None, true),
        ("require", Some(ca.as_path()), true),
        ("require", Some(foreign.as_path()), false),
        ("verify-ca", None, false),
        ("verify-ca", Some(ca.as_path()), true),
        ("verify-full", Some(ca.as_path()), false),
    ] {
        assert_eq!(
            read(mode, ca).is_ok(),
            accepted,
            "{mode} {ca:?} {:?}",
            read(mode, ca)
        );
    }

    certificates(&postgres.data(), "127.0.0.1");
    let postgres = postgres.restart(&["ssl=on"]);
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        postgres.url(),
        ca.display()
    );
    assert!(
        Database::parse(&url, None, None)
            .unwrap()
            .read_all(&mut |_| ())
            .is_ok()
    );
}
