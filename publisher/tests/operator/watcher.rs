//! A running `watch`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::free_port;

/// Ended on drop.
pub struct Watcher {
    process: Child,
    port: u16,
}

impl Watcher {
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let port = free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_flag-definitions-publisher"))
            .arg("watch")
            .env_clear()
            .env("FLAG_DEFINITIONS_LISTEN", format!("127.0.0.1:{port}"))
            .env("FLAG_DEFINITIONS_LOG_LEVEL", "debug")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// Head and body; `None`: it does not listen yet.
    pub fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Some((head.to_owned(), body.to_owned()))
    }

    /// Waits until a sample is as wanted.
    #[track_caller]
    pub fn wait_for(&self, sample: &str, wanted: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let metrics = self
                .get("/metrics")
                .map(|(_, body)| body)
                .unwrap_or_default();
            let name = format!("flag_definitions_publisher_{sample} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
            if value.is_some_and(|value| wanted(value.parse().unwrap())) {
                return;
            }
            assert!(Instant::now() < deadline, "{sample}: {metrics}");
            sleep(Duration::from_millis(50));
        }
    }

    pub fn health(&self) -> (String, Value) {
        let (head, body) = self.get("/healthz").unwrap();
        (head, serde_json::from_str(&body).unwrap())
    }

    /// Asks it to end, and returns its log.
    pub fn end(mut self) -> String {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let mut log = String::new();
        let stderr = self.process.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        assert!(self.process.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
