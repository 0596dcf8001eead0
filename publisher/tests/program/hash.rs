//! `hash`.

use crate::support::run;

const HASH: &str = "45af89b510a3279a817f851de5d3f95b73485d58ec2672a39e52d8aeeb014059\n";

#[test]
fn a_token_becomes_its_sha_256() {
    for input in ["test_key_12345", "test_key_12345\n", "test_key_12345\r\n"] {
        let outcome = run(&["hash"], input.as_bytes()).expect(0);
        assert_eq!(outcome.stdout, HASH);
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn no_token_is_bad_usage() {
    for input in ["", "\n"] {
        let outcome = run(&["hash"], input.as_bytes()).expect(2);
        assert_eq!(outcome.stdout, "");
        assert!(
            outcome.stderr.contains("holds no token"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn what_is_no_token_is_said_to_be_none() {
    run(&["hash"], &[b'a'; (64 << 10) + 1]).expect(2);
    let outcome = run(&["hash"], b"phs_a\nphs_b\n").expect(0);
    assert!(
        outcome.stderr.starts_with("warning: "),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("phs_"));
}

#[test]
fn a_token_as_argument_is_refused_and_not_repeated() {
    for arguments in [&["hash", "phs_secret"][..], &["phs_secret"]] {
        let outcome = run(arguments, b"").expect(2);
        assert!(!outcome.stderr.contains("phs_secret"), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("standard input"),
            "{}",
            outcome.stderr
        );
    }
}
