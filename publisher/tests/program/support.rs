//! A Redis of one test, a gate before it, and runs of the program.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::change::{self, Written};
use flag_definitions_filter::snapshot::manifest::Manifest;
use flag_definitions_filter::snapshot::page::Cursor;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use redis::{Connection, FromRedisValue, ToRedisArgs};
use serde_json::{Value, json};

/// What the local stack's users.acl holds the hash of.
pub const PUBLISHER_PASSWORD: &str = "publisher-development";

/// How a run of the program ended.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "stdout: {stdout}\nstderr: {stderr}");
        self
    }
}

/// Runs the program; nothing of this process's environment decides what it does.
pub fn run(arguments: &[&str], stdin: &[u8]) -> Outcome {
    run_with_environment(arguments, stdin, &[])
}

pub fn run_with_environment(
    arguments: &[&str],
    stdin: &[u8],
    variables: &[(&str, &str)],
) -> Outcome {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_flag-definitions-publisher"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(arguments)
        .write_stdin(stdin)
        .timeout(Duration::from_secs(120))
        .output()
        .unwrap();
    Outcome {
        code: output.status.code().expect("the program was killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Publishes a document.
pub fn publish(url: &str, document: &Value) -> Outcome {
    run(
        &["publish", "--file", "-", "--redis-url", url],
        document.to_string().as_bytes(),
    )
}

/// One team `phc_a` with the secret `phs_a`.
pub fn small_document() -> Value {
    json!({
        "format": 1,
        "teams": [{"id": 7, "api_token": "phc_a", "secret_token_sha256": [hash("phs_a")]}],
    })
}

/// One team with so many secrets that they take several pages.
pub fn large_document() -> Value {
    let secrets: Vec<String> = (0..20_000).map(|n| hash(&format!("phs_{n}"))).collect();
    json!({"format": 1, "teams": [{"id": 7, "api_token": "phc_a", "secret_token_sha256": secrets}]})
}

pub fn hash(token: &str) -> String {
    Sha256Hash::of(token.as_bytes()).to_hex()
}

/// How a token's hash is shown.
pub fn short(token: &str) -> String {
    format!("{:?}", Sha256Hash::of(token.as_bytes()))
}

/// A change of one record.
pub fn change(hash: Sha256Hash, record: &Record) -> Written {
    let bytes = record.encode().unwrap();
    change::split([(hash, bytes.as_slice())]).remove(0)
}

/// A real `redis-server` in a directory of its own, killed on drop.
pub struct Redis {
    process: Child,
    pub port: u16,
    pub connection: Connection,
    _directory: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With the users of `envoy/redis/users.acl`.
    pub fn start_with_users() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/redis/users.acl");
        let acl = std::fs::read_to_string(&path).unwrap();
        // Redis 7.0 takes no comments in an ACL file.
        let users: Vec<&str> = acl
            .lines()
            .filter(|line| line.starts_with("user "))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users.acl");
        std::fs::write(&file, users.join("\n") + "\n").unwrap();
        Self::start_with(&["--aclfile", file.to_str().unwrap()])
    }

    /// At a port that another one had.
    pub fn start_at(port: u16) -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(redis) = Self::try_start(port, &[]) {
                return redis;
            }
            assert!(Instant::now() < deadline);
        }
    }

    /// It answers nobody any more.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// It answers again.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let status = Command::new("kill").args([name, &process]).status();
        assert!(status.unwrap().success());
    }

    pub fn start_with(options: &[&str]) -> Self {
        // Another process may take the port between asking for a free one and using it.
        (0..5)
            .find_map(|_| Self::try_start(free_port(), options))
            .expect("redis-server did not start on five free ports")
    }

    fn try_start(port: u16, options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new("redis-server")
            .current_dir(directory.path())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("these tests need redis-server (apt-get install redis-server): {error}")
            });
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            if let Some(connection) = own_connection(port, process.id()) {
                return Some(Self {
                    process,
                    port,
                    connection,
                    _directory: directory,
                });
            }
            sleep(Duration::from_millis(20));
        }
        stop(&mut process);
        None
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends any command.
    pub fn command<T: FromRedisValue>(&mut self, name: &str, arguments: &[impl ToRedisArgs]) -> T {
        redis::cmd(name)
            .arg(arguments)
            .query(&mut self.connection)
            .unwrap()
    }

    pub fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = self.command("KEYS", &["*"]);
        keys.sort();
        keys
    }

    /// Seconds until a key expires; -1 never, -2 there is no such key.
    pub fn ttl(&mut self, key: &str) -> i64 {
        self.command("TTL", &[key])
    }

    pub fn manifest(&mut self) -> Manifest {
        let json: Vec<u8> = self.command("GET", &["flag_definitions:snapshot"]);
        Manifest::parse(&json).unwrap()
    }

    pub fn set_manifest(&mut self, manifest: &Manifest) {
        let json = serde_json::to_string(manifest).unwrap();
        let () = self.command("SET", &["flag_definitions:snapshot", &json]);
    }

    /// Makes changes follow the current snapshot; returns the id that they begin after.
    pub fn begin_lineage(&mut self) -> StreamId {
        let mut manifest = self.manifest();
        manifest.lineage = manifest.generation;
        manifest.etags_watched = true;
        self.set_manifest(&manifest);
        manifest.stream_id
    }

    /// Writes changes, as a watcher would after `previous`; returns the id of the last.
    pub fn add_changes(&mut self, mut previous: StreamId, changes: &[Written]) -> StreamId {
        for change in changes {
            let id = StreamId {
                sequence: previous.sequence + 1,
                ..previous
            };
            let () = redis::cmd("XADD")
                .arg("flag_definitions:changes")
                .arg(id.to_string())
                .arg(&[("p", previous.to_string()), ("f", "1".to_owned())])
                .arg(&[("k", change.kind.as_bytes()), ("v", &change.value)])
                .query(&mut self.connection)
                .unwrap();
            previous = id;
        }
        previous
    }

    /// Reads the current snapshot as a filter does.
    pub fn records(&mut self) -> Vec<(Sha256Hash, Record)> {
        let manifest = self.manifest();
        let mut records = Vec::new();
        for (index, digest) in manifest.pages.iter().enumerate() {
            let key = format!("flag_definitions:snapshot:{}:{index}", manifest.generation);
            let bytes: Vec<u8> = self.command("GET", &[&key]);
            assert!(digest.matches(&bytes), "{key}");
            assert_eq!(self.ttl(&key), -1, "{key}");
            let mut cursor = Cursor::new(bytes).unwrap();
            while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                records.push((hash, Record::decode(record).unwrap()));
                cursor.seek(next);
            }
        }
        records
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

fn stop(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// Connects to the Redis that is this process, not to a stranger on the same port.
fn own_connection(port: u16, process: u32) -> Option<Connection> {
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    let mut connection = client.get_connection().ok()?;
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query(&mut connection)
        .ok()?;
    info.contains(&format!("process_id:{process}\r"))
        .then_some(connection)
}

/// Below the range that the kernel gives to outgoing connections, which could take it before whoever is to listen.
pub fn free_port() -> u16 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let start = u64::from(now.subsec_nanos()) + u64::from(std::process::id()) * 7_919 + call * 101;
    (0..1_000)
        .map(|step| 12_000 + u16::try_from((start + step * 37) % 12_000).unwrap())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// Where nobody listens, nor will.
pub const NOBODYS_PORT: u16 = 1;

/// What a gate does with the command that replaces the manifest.
pub enum AtManifest {
    /// Holds it until [`Gate::open`].
    Hold,
    /// Closes the connection in its place.
    Close,
}

/// Stands between the program and Redis, and lets a test act just before the manifest is replaced.
pub struct Gate {
    pub port: u16,
    reached: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    pub fn before(redis: &Redis, at_manifest: AtManifest) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let redis_port = redis.port;
        let (tell_reached, reached) = channel();
        let (open, opened) = channel();
        std::thread::spawn(move || {
            // One after the other: the program has one connection at a time.
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut server = TcpStream::connect(("127.0.0.1", redis_port)).unwrap();
                let replies = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let back = std::thread::spawn(move || {
                    let (mut from, mut to) = replies;
                    let _ = std::io::copy(&mut from, &mut to);
                });
                while let Some(bytes) = receive(&mut client) {
                    // Only that script reads JSON.
                    if contains(&bytes, b"cjson") {
                        let _ = tell_reached.send(());
                        match at_manifest {
                            AtManifest::Hold => opened.recv().unwrap(),
                            AtManifest::Close => break,
                        }
                    }
                    server.write_all(&bytes).unwrap();
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
                back.join().unwrap();
            }
        });
        Self {
            port,
            reached,
            open,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns when the program is about to replace the manifest.
    pub fn wait_until_reached(&self) {
        self.reached.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    pub fn open(&self) {
        self.open.send(()).unwrap();
    }
}

fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 20];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => Some(bytes[..length].to_vec()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
