//! A Postgres of one test, with PostHog's tables.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_publisher::sources::posthog::database::Database;
use flag_definitions_publisher::sources::{Reading, Source};
use postgres::{Client, Config, NoTls};

/// Of the superuser. Everything in it is special in some place of a URL or of SQL.
pub const PASSWORD: &str = "p@ss:w/o?r#d%20&'\"=";

/// The same, as a URL has it.
pub const ENCODED_PASSWORD: &str = "p%40ss%3Aw%2Fo%3Fr%23d%2520%26%27%22%3D";

const POSTHOG: &str = include_str!("../../../integration/posthog.sql");
pub const TRIGGERS: &str = include_str!("../../sql/triggers.sql");
pub const DROP_TRIGGERS: &str = include_str!("../../sql/drop_triggers.sql");

/// A real `postgres` in a directory of its own, stopped on drop.
pub struct Postgres {
    process: Child,
    pub port: u16,
    pub client: Client,
    directory: tempfile::TempDir,
}

impl Postgres {
    /// Without tables.
    pub fn empty() -> Self {
        let directory = directory();
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        own(&password);
        let data = directory.path().join("data");
        let mut initdb = program("initdb");
        initdb.arg("--pgdata").arg(&data);
        initdb.args(["--username=posthog", "--auth=scram-sha-256", "--no-sync"]);
        initdb.args(["--encoding=UTF8", "--locale=C"]);
        initdb.arg("--pwfile").arg(&password);
        succeed(&mut initdb);
        Self::start(directory, &[])
    }

    /// With PostHog's tables.
    pub fn posthog() -> Self {
        let mut postgres = Self::empty();
        postgres.sql(POSTHOG);
        postgres
    }

    /// With PostHog's tables and the triggers.
    pub fn with_triggers() -> Self {
        let mut postgres = Self::posthog();
        postgres.sql(TRIGGERS);
        postgres
    }

    /// A replica of this one.
    pub fn replica(&self) -> Self {
        let directory = directory();
        let mut copy = program("pg_basebackup");
        copy.env("PGPASSWORD", PASSWORD);
        copy.args(["--host=127.0.0.1", "--username=posthog", "--no-sync"]);
        copy.args(["--write-recovery-conf", "--checkpoint=fast"]);
        copy.arg("--port").arg(self.port.to_string());
        copy.arg("--pgdata").arg(directory.path().join("data"));
        succeed(&mut copy);
        Self::start(directory, &[])
    }

    /// Stops it and starts it again, with further settings, on the same port.
    pub fn restart(self, settings: &[&str]) -> Self {
        let port = self.port;
        let directory = self.stop();
        Self::start_on(&directory, port, settings)
            .unwrap_or_else(|| panic!("postgres did not start again"))
            .with(directory)
    }

    /// Stops it and keeps its directory.
    pub fn stop(mut self) -> tempfile::TempDir {
        quit(&mut self.process);
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    pub fn start(directory: tempfile::TempDir, settings: &[&str]) -> Self {
        // Another process may take the port between asking for a free one and using it.
        (0..5)
            .find_map(|_| Self::start_on(&directory, free_port(), settings))
            .expect("postgres did not start on five free ports")
            .with(directory)
    }

    fn start_on(directory: &tempfile::TempDir, port: u16, settings: &[&str]) -> Option<Started> {
        let data = directory.path().join("data");
        let mut postgres = program("postgres");
        postgres
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_wal_senders=4",
        ] {
            postgres.args(["-c", setting]);
        }
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut process = postgres.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            // Not a stranger on the same port: another test's knows the same password.
            if let Some(client) = connect(port)
                .ok()
                .and_then(|client| belongs_to(client, &data))
            {
                return Some(Started {
                    process,
                    port,
                    client,
                });
            }
            sleep(Duration::from_millis(20));
        }
        quit(&mut process);
        None
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://posthog:{ENCODED_PASSWORD}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    pub fn database(&self) -> Database {
        Database::parse(&self.url(), None, None).unwrap()
    }

    #[track_caller]
    pub fn read(&self) -> Reading {
        match self.database().read_all(&mut |_| ()) {
            Ok(reading) => reading,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// What a read complains of.
    #[track_caller]
    pub fn problem(&self) -> String {
        self.database()
            .read_all(&mut |_| ())
            .unwrap_err()
            .to_string()
    }

    /// Carries out statements.
    #[track_caller]
    pub fn sql(&mut self, statements: &str) {
        if let Err(error) = self.client.batch_execute(statements) {
            panic!("{error}: {:?}", error.as_db_error());
        }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        quit(&mut self.process);
    }
}

struct Started {
    process: Child,
    port: u16,
    client: Client,
}

impl Started {
    fn with(self, directory: tempfile::TempDir) -> Postgres {
        Postgres {
            process: self.process,
            port: self.port,
            client: self.client,
            directory,
        }
    }
}

fn connect(port: u16) -> Result<Client, postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("posthog");
    config.password(PASSWORD).dbname("postgres");
    config
        .connect_timeout(Duration::from_secs(5))
        .connect(NoTls)
}

/// The client, if its server is the one with these data.
fn belongs_to(mut client: Client, data: &Path) -> Option<Client> {
    let row = client.query_one("SHOW data_directory", &[]).ok()?;
    (Path::new(row.get::<_, &str>(0)) == data).then_some(client)
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    own(directory.path());
    directory
}

/// A program of Postgres: where Debian puts it, or on the PATH. As another user when this one is root, whom they refuse.
fn program(name: &str) -> Command {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    let mut command = Command::new(versions.pop().unwrap_or_else(|| name.into()));
    command.current_dir("/").stdin(Stdio::null());
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Who runs Postgres in the place of root; `None` when this is not root.
fn other_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse::<u32>()
            .ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let of = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
    of("postgres").or_else(|| of("nobody"))
}

/// Gives a file to the user who runs Postgres.
pub fn own(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("these tests need Postgres (apt-get install postgresql): {error}")
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Stops at once; a killed one would leave its shared memory.
fn quit(process: &mut Child) {
    if process.try_wait().unwrap().is_none() {
        let pid = process.id().to_string();
        let _ = Command::new("kill").args(["-s", "QUIT", &pid]).status();
        let _ = process.wait();
    }
}

/// Below the range that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let start = u64::from(seed.subsec_nanos()) + u64::from(std::process::id()) * 7_919;
    (0..1_000)
        .map(|step| 12_000 + u16::try_from((start + step * 37) % 12_000).unwrap())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

pub fn hash(token: &str) -> Sha256Hash {
    Sha256Hash::of(token.as_bytes())
}

/// A token as PostHog stores it hashed.
pub fn secure(token: &str) -> String {
    format!("sha256${}", hash(token).to_hex())
}

/// The record of a token.
pub fn record(reading: &Reading, token: &str) -> Option<Record> {
    let bytes = reading.records.get(&hash(token))?;
    Some(Record::decode(bytes).unwrap())
}
