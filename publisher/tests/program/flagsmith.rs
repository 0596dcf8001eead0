//! `watch` of a Flagsmith.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::flagsmith::records::{TEXT_FIELD, VERSION_FIELD};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::flagsmith_stub::{Flagsmith, Reply, document, eventually};
use crate::support::{NOBODYS_PORT, Redis, run_with_environment};

fn write(path: &Path, config: &Value) {
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_file_that_is_refused_is_bad_usage_and_shows_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let url = format!("redis://127.0.0.1:{NOBODYS_PORT}");
    let watch = |file: &Path| {
        let file = file.to_str().unwrap();
        let variables = [("REDIS_URL", url.as_str()), ("FLAGSMITH_CONFIG", file)];
        let outcome = run_with_environment(&["watch"], b"", &variables).expect(2);
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
        outcome.stderr
    };
    write(
        &path,
        &json!({"environment_key_pairs": [{"client_side_key": "hunter2", "server_side_key": "hunter2"}]}),
    );
    let refused = watch(&path);
    let problem = "config.json: environment_key_pairs[0].server_side_key: must begin with ser. (nothing was written)";
    assert!(refused.contains(problem), "{refused}");
    let missing = watch(Path::new("/nowhere.json"));
    assert!(
        missing.contains("--flagsmith-config: /nowhere.json: "),
        "{missing}"
    );
}

#[test]
fn documents_and_keys_are_published_and_no_key_is_logged() {
    let flagsmith = Flagsmith::start(|_| Reply::json(&document("production")));
    let mut redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    write(
        &path,
        &json!({
            "environment_key_pairs": [{"client_side_key": "hunter2", "server_side_key": "ser.hunter2"}],
            "api_url": flagsmith.url(), "server": {"port": 8000}, "ser.hunter2": 1,
        }),
    );
    let program = env!("CARGO_BIN_EXE_flag-definitions-publisher");
    let process = Command::new(program)
        .args(["watch", "--listen", "off", "--log-level", "debug"])
        .env_clear()
        .env("REDIS_URL", redis.url())
        .env("FLAGSMITH_CONFIG", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Killed(process);
    let (key, manifest) = eventually("a document and a snapshot", || {
        let keys = redis.keys();
        let is_there = keys.iter().any(|key| key == "flag_definitions:snapshot");
        let key = keys.into_iter().find(|key| key.contains(":flagsmith:"))?;
        is_there.then(|| (key, redis.manifest()))
    });
    assert_eq!(manifest.surfaces, ["flagsmith"]);
    let text: Vec<u8> = redis.command("HGET", &[key.as_str(), TEXT_FIELD]);
    let mut plain = Vec::new();
    GzDecoder::new(text.as_slice())
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&plain).unwrap(),
        document("production")
    );
    let version: Vec<u8> = redis.command("HGET", &[key.as_str(), VERSION_FIELD]);
    assert_eq!(ETag::of_text(&plain).as_bytes(), version);
    let id = process.0.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    let mut log = String::new();
    let stderr = process.0.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(process.0.wait().unwrap().success(), "{log}");
    assert!(log.contains("\"field\":\"server\""), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    for key in redis.keys() {
        assert!(!key.contains("hunter2"), "{key}");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
