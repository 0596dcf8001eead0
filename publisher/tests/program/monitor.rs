//! What an operator sees of `watch`: logs, metrics and health. Its database is away here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{NOBODYS_PORT, PUBLISHER_PASSWORD, Redis, free_port, run_with_environment};

/// A running `watch`.
pub struct Watch {
    pub process: Child,
    pub port: u16,
}

impl Watch {
    pub fn start(redis: &Redis, variables: &[(&str, &str)]) -> Self {
        let port = free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_flag-definitions-publisher"))
            .arg("watch")
            .env_clear()
            .env("REDIS_URL", url(redis))
            .env("DATABASE_URL", database_url())
            .env("FLAG_DEFINITIONS_LISTEN", format!("127.0.0.1:{port}"))
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// Waits until it answers; the head and the body.
    pub fn get(&self, path: &str) -> (String, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(20));
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Asks it to end, and returns what it wrote to standard output and standard error.
    pub fn end(mut self) -> (String, String) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let mut outputs = (String::new(), String::new());
        let stdout = self.process.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut outputs.0).unwrap();
        let stderr = self.process.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut outputs.1).unwrap();
        assert!(self.process.wait().unwrap().success(), "{outputs:?}");
        outputs
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn url(redis: &Redis) -> String {
    format!(
        "redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{}",
        redis.port
    )
}

fn database_url() -> String {
    format!("postgres://reader:hunter2@127.0.0.1:{NOBODYS_PORT}/posthog")
}

fn assert_nothing_secret(text: &str) {
    for secret in ["hunter2", PUBLISHER_PASSWORD] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn logs_metrics_and_health() {
    let mut redis = Redis::start_with_users();
    let watch = Watch::start(&redis, &[("FLAG_DEFINITIONS_LOG_LEVEL", "debug")]);
    let (head, metrics) = watch.get("/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert!(metrics.contains("\nflag_definitions_publisher_active "));
    let (head, health) = watch.get("/healthz");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert!(health["status"].is_string(), "{health}");
    assert_nothing_secret(&metrics);

    // Until it noticed that the database is away.
    let deadline = Instant::now() + Duration::from_secs(60);
    let failed = |metrics: &str| {
        let name = "flag_definitions_publisher_errors_total{dependency=\"postgres\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().parse::<f64>().unwrap() > 0.0
    };
    while !failed(&watch.get("/metrics").1) {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(50));
    }

    let (stdout, stderr) = watch.end();
    assert_eq!(stdout, "");
    assert_nothing_secret(&stderr);
    let mut levels = Vec::new();
    for line in stderr.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            event["timestamp"].is_string() && event["message"].is_string(),
            "{line}"
        );
        levels.push(event["level"].as_str().unwrap().to_owned());
    }
    assert!(levels.iter().any(|level| level == "INFO"), "{stderr}");
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused");
}

#[test]
fn logs_may_be_text_and_fewer() {
    let redis = Redis::start_with_users();
    let text = ("FLAG_DEFINITIONS_LOG_FORMAT", "text");
    let watch = Watch::start(&redis, &[text]);
    watch.get("/healthz");
    let (_, stderr) = watch.end();
    assert!(stderr.contains(" INFO "), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
    assert_nothing_secret(&stderr);

    let watch = Watch::start(&redis, &[("FLAG_DEFINITIONS_LOG_LEVEL", "error")]);
    watch.get("/healthz");
    let (_, stderr) = watch.end();
    assert!(!stderr.contains("INFO"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_ends_it_at_once() {
    let redis = Redis::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (url, database) = (redis.url(), database_url());
    let mut variables = vec![
        ("REDIS_URL", url.as_str()),
        ("DATABASE_URL", &database),
        ("FLAG_DEFINITIONS_LISTEN", &address),
    ];
    let outcome = run_with_environment(&["watch"], b"", &variables).expect(1);
    let message = format!("error: cannot listen on {address}: ");
    assert!(outcome.stderr.contains(&message), "{}", outcome.stderr);
    for bad in ["9105", "localhost:9105"] {
        variables[2].1 = bad;
        run_with_environment(&["watch"], b"", &variables).expect(2);
    }
}

#[test]
fn ca_files_go_with_tls() {
    let redis = Redis::start();
    let (url, database) = (redis.url(), database_url());
    let secure = "rediss://publisher:hunter2@127.0.0.1:1";
    for (variables, message) in [
        (
            &[
                ("REDIS_URL", url.as_str()),
                ("REDIS_CA_FILE", "/nowhere.pem"),
            ][..],
            "use rediss:// instead",
        ),
        (
            &[("REDIS_URL", secure), ("REDIS_CA_FILE", "/nowhere.pem")],
            "--redis-ca-file: /nowhere.pem cannot be read",
        ),
        (
            &[
                ("REDIS_URL", url.as_str()),
                ("DEFINITIONS_REDIS_URL", secure),
                ("DEFINITIONS_REDIS_CA_FILE", "/nowhere.pem"),
            ],
            "--definitions-redis-ca-file: /nowhere.pem cannot be read",
        ),
        (
            &[
                ("REDIS_URL", url.as_str()),
                ("POSTGRES_CA_FILE", "/nowhere.pem"),
            ],
            "/nowhere.pem",
        ),
    ] {
        let mut variables = variables.to_vec();
        variables.push(("DATABASE_URL", &database));
        let outcome = run_with_environment(&["watch"], b"", &variables).expect(2);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_nothing_secret(&outcome.stderr);
    }
}
