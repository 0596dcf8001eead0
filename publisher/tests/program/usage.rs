//! The command line.

use crate::support::{run, run_with_environment, small_document};

#[test]
fn help_and_version() {
    let usage = "Usage: flag-definitions-publisher";
    let outcome = run(&["--help"], b"").expect(0);
    assert!(outcome.stdout.contains(usage));
    for command in [
        &["publish"][..],
        &["diff"],
        &["inspect", "team"],
        &["inspect", "token"],
        &["hash"],
        &["completions"],
    ] {
        let outcome = run(&[command, &["--help"]].concat(), b"").expect(0);
        assert!(outcome.stdout.contains(usage), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("Examples:\n"), "{}", outcome.stdout);
    }
    let outcome = run(&["--version"], b"").expect(0);
    assert!(outcome.stdout.starts_with("flag-definitions-publisher "));
}

#[test]
fn completions_of_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run(&["completions", shell], b"").expect(0);
        assert!(outcome.stdout.contains("redis-ca-file"), "{shell}");
    }
    // A shell can read it.
    let script = run(&["completions", "bash"], b"").stdout;
    let bash = assert_cmd::Command::new("bash")
        .arg("-n")
        .write_stdin(script)
        .unwrap();
    assert!(bash.stderr.is_empty());
}

#[test]
fn bad_usage() {
    let document = small_document().to_string();
    for arguments in [
        &[][..],
        &["publish"],
        &["publish", "--file", "-"],
        &["publish", "--unknown"],
        &["hash", "--unknown"],
        &["unknown"],
        &["publish", "--file", "-", "--redis-url", ""],
        &["publish", "--file", "-", "--redis-url", "http://127.0.0.1"],
        &[
            "publish",
            "--file",
            "-",
            "--redis-url",
            "http://127.0.0.1",
            "--dry-run",
        ],
        &[
            "publish",
            "--file",
            "-",
            "--redis-url",
            "rediss://127.0.0.1#insecure",
        ],
        &["publish", "--file", "-", "--dry-run", "--prefix", ""],
        &["publish", "--file", "-", "--dry-run", "--prefix", "a\nb"],
    ] {
        let outcome = run(arguments, document.as_bytes()).expect(2);
        assert!(!outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let document = small_document().to_string();
    for arguments in [
        &["publish", "--file", "-", "redis://a:hunter2@127.0.0.1"][..],
        &[
            "publish",
            "--file",
            "-",
            "--redis-ulr",
            "redis://a:hunter2@127.0.0.1",
        ],
        &[
            "publish",
            "--file",
            "-",
            "--redis-ulr=redis://a:hunter2@127.0.0.1",
        ],
        &[
            "publish",
            "--file",
            "-",
            "--redis-url",
            "redis://a:hunter2#@127.0.0.1",
        ],
        &[
            "publish",
            "--file",
            "-",
            "--redis-url",
            "redis://a:hunter2@127.0.0.1:port",
        ],
        &[
            "publish",
            "--file",
            "-",
            "--redis-url",
            "rediss://a:hunter2@127.0.0.1#insecure",
        ],
    ] {
        let outcome = run(arguments, document.as_bytes()).expect(2);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }
    let variables = [("REDIS_URL", "redis://a:hunter2@127.0.0.1")];
    let outcome = run_with_environment(&["publish", "--help"], b"", &variables).expect(0);
    assert!(outcome.stdout.contains("REDIS_URL"));
    assert!(!outcome.stdout.contains("hunter2"));
}
