//! Redis behind TLS.

use std::net::TcpListener;
use std::path::Path;

use crate::certificates::Certificates;
use crate::support::{Outcome, Redis, run, run_with_environment, small_document};

fn publish(url: &str, ca: &Path) -> Outcome {
    let arguments = [
        "publish",
        "--file",
        "-",
        "--redis-url",
        url,
        "--redis-ca-file",
        ca.to_str().unwrap(),
    ];
    run(&arguments, small_document().to_string().as_bytes())
}

#[track_caller]
fn assert_says(outcome: &Outcome, text: &str) {
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
}

#[test]
fn a_snapshot_is_published_over_tls() {
    let certificates = Certificates::of("127.0.0.1");
    let (mut redis, port) = certificates.redis();
    let url = format!("rediss://127.0.0.1:{port}");
    publish(&url, &certificates.path("ca.pem")).expect(0);
    assert_eq!(redis.records().len(), 2);

    let ca = certificates.path("ca.pem");
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_CA_FILE", ca.to_str().unwrap()),
    ];
    let document = small_document().to_string();
    run_with_environment(&["publish", "--file", "-"], document.as_bytes(), &variables).expect(0);
    assert_eq!(redis.manifest().generation, 2);
}

#[test]
fn another_ca_is_refused() {
    let certificates = Certificates::of("127.0.0.1");
    let (mut redis, port) = certificates.redis();
    let other = Certificates::of("127.0.0.1");
    let url = format!("rediss://publisher:hunter2@127.0.0.1:{port}");
    let outcome = publish(&url, &other.path("ca.pem")).expect(1);
    assert_says(
        &outcome,
        "name the CA that signed its certificate with --redis-ca-file",
    );
    // Nor is it one that browsers accept.
    let arguments = ["publish", "--file", "-", "--redis-url", &url];
    let document = small_document().to_string();
    let outcome = run(&arguments, document.as_bytes()).expect(1);
    assert_says(&outcome, "--redis-ca-file");
    assert!(redis.keys().is_empty());
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    let certificates = Certificates::of("redis.example");
    let (mut redis, port) = certificates.redis();
    let url = format!("rediss://publisher:hunter2@127.0.0.1:{port}");
    let outcome = publish(&url, &certificates.path("ca.pem")).expect(1);
    assert_says(&outcome, "use a host name that its certificate has");
    assert!(redis.keys().is_empty());
}

#[test]
fn a_port_of_the_other_kind_is_named() {
    let certificates = Certificates::of("127.0.0.1");
    let mut redis = Redis::start();
    let url = format!("rediss://publisher:hunter2@127.0.0.1:{}", redis.port);
    let outcome = publish(&url, &certificates.path("ca.pem")).expect(1);
    assert_says(&outcome, "that this port speaks TLS");
    assert!(redis.keys().is_empty());
    let (_redis, port) = certificates.redis();
    let url = format!("redis://publisher:hunter2@127.0.0.1:{port}");
    let outcome = crate::support::publish(&url, &small_document()).expect(1);
    assert_says(&outcome, "if this port expects TLS, use rediss://");
}

#[test]
fn a_server_that_never_shakes_hands_is_given_up() {
    let certificates = Certificates::of("127.0.0.1");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("rediss://publisher:hunter2@127.0.0.1:{port}");
    let outcome = publish(&url, &certificates.path("ca.pem")).expect(1);
    assert_says(&outcome, "no answer within 5 s");
}

#[test]
fn what_is_no_ca_is_bad_usage() {
    let certificates = Certificates::of("127.0.0.1");
    let url = "rediss://publisher:hunter2@127.0.0.1:1";
    let outcome = publish(url, &certificates.path("nothing.pem")).expect(2);
    assert_says(&outcome, "--redis-ca-file: ");
    let outcome = publish(url, &certificates.path("server.key")).expect(2);
    assert_says(&outcome, "holds no certificate of a CA");
    let plain = "redis://publisher:hunter2@127.0.0.1:1";
    let outcome = publish(plain, &certificates.path("ca.pem")).expect(2);
    assert_says(&outcome, "use rediss:// instead");
    let outcome = publish(&format!("{url}#insecure"), &certificates.path("ca.pem")).expect(2);
    assert_says(&outcome, "#insecure would send the password");
}
