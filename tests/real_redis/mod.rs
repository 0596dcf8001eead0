//! A real Redis of one test, and the filter's commands sent to it.
#![allow(dead_code)]

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::redis::{Command, Reply, Tag};
use redis::{Connection, Value};

/// A real `redis-server`, killed on drop.
pub struct Redis {
    process: Child,
    /// As the default user, who may do everything.
    pub connection: Connection,
    _directory: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Self {
        // Another process may take the port between asking for a free one and using it.
        (0..5)
            .find_map(|_| Self::try_start())
            .expect("redis-server did not start on five free ports")
    }

    fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut process = std::process::Command::new("redis-server")
            .current_dir(directory.path())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("these tests need redis-server (apt-get install redis-server): {error}")
            });
        let client = redis::Client::open(("127.0.0.1", port)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            if let Ok(mut connection) = client.get_connection() {
                let info: String = redis::cmd("INFO").query(&mut connection).unwrap();
                // Not a stranger on the same port.
                if info.contains(&format!("process_id:{}\r", process.id())) {
                    return Some(Self {
                        process,
                        connection,
                        _directory: directory,
                    });
                }
            }
            sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        None
    }

    /// As the filter sends it: with a tag that comes back.
    pub fn send(&mut self, command: &Command) -> Result<Vec<Vec<u8>>, String> {
        let tag = Tag::new(7);
        assert!(command.has_tag());
        let parts = command.tagged_words(&tag);
        let name = String::from_utf8(parts[0].to_vec()).unwrap();
        let reply = redis::cmd(&name)
            .arg(&parts[1..])
            .query::<Value>(&mut self.connection);
        let Value::Array(parts) = reply.map_err(|error| error.to_string())? else {
            panic!("not an array");
        };
        let text = |part| match part {
            Value::BulkString(bytes) => bytes,
            other => panic!("not a string, webdis would leave it out: {other:?}"),
        };
        let strings: Vec<Vec<u8>> = parts.into_iter().map(text).collect();
        let reply = Reply::array(strings.iter().map(Vec::as_slice));
        let own = tag.take_off(reply).unwrap();
        Ok(own
            .strings()
            .unwrap()
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect())
    }

    pub fn set(&mut self, key: &str, value: &[u8]) {
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec(&mut self.connection)
            .unwrap();
    }

    pub fn get(&mut self, key: &str) -> Option<String> {
        redis::cmd("GET")
            .arg(key)
            .query(&mut self.connection)
            .unwrap()
    }

    /// Redis' clock in milliseconds.
    pub fn now(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut self.connection).unwrap();
        seconds * 1_000 + micros / 1_000
    }

    pub fn wait_until(&mut self, millis: u64) {
        while self.now() < millis {
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
