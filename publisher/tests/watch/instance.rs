//! Watchers under test: in a thread with a database in memory, or in a process of their own that can be killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::surfaces::posthog::directory::{Record, Team};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::redis::published::RecordMap;
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::sources::file::DocumentFile;
use flag_definitions_publisher::sources::posthog::etags::{ETags, Places};
use flag_definitions_publisher::sources::{
    Announcement, ETagSource, Heard, Reading, Source, SourceError, SourcePosition, WatchedSources,
};
use flag_definitions_publisher::watch::status::{Figures, WatchStatus};
use flag_definitions_publisher::watch::{WatchSettings, watch};
use serde_json::{Value, json};

use crate::support::hash;

/// A database in memory.
#[derive(Default)]
pub struct Memory {
    pub records: Mutex<RecordMap>,
    /// What it says by itself, oldest first.
    pub heard: Mutex<Vec<Heard>>,
    pub position: AtomicU64,
    pub is_away: AtomicBool,
    pub lacks_project_keys: AtomicBool,
    /// Full reads wait, with what they have read.
    pub holds: AtomicBool,
    pub reads: AtomicU64,
    /// [`Source::lists`].
    pub lists: Mutex<&'static [&'static str]>,
}

impl Memory {
    /// With teams 1 to `teams`, each with one secret.
    pub fn with_teams(teams: u32) -> Arc<Self> {
        let memory = Self::default();
        for team in 1..=teams {
            memory.put(&format!("phc_{team}"), Some(&a_team(team)));
            memory.put(
                &format!("phs_{team}"),
                Some(&Record::TeamSecret(Tenant(team))),
            );
        }
        Arc::new(memory)
    }

    pub fn put(&self, token: &str, record: Option<&Record>) {
        let hash = Sha256Hash::of(token.as_bytes());
        self.position.fetch_add(10, Ordering::SeqCst);
        let mut records = self.records.lock().unwrap();
        match record {
            Some(record) => records.insert(hash, record.encode().unwrap().into()),
            None => records.remove(&hash),
        };
    }

    /// Says that a token stands for something else now.
    pub fn announce(&self, token: &str) {
        let hash = Sha256Hash::of(token.as_bytes());
        let record = self.records.lock().unwrap().get(&hash).cloned();
        let announcement = Announcement {
            changed: vec![(hash, record)],
            position: SourcePosition(self.position.load(Ordering::SeqCst)),
        };
        self.say(Heard::Announced(announcement));
    }

    pub fn say(&self, heard: Heard) {
        self.heard.lock().unwrap().push(heard);
    }
}

impl Source for Memory {
    fn lists(&self) -> &'static [&'static str] {
        *self.lists.lock().unwrap()
    }

    fn read_all(&self, _: &mut dyn FnMut(u64)) -> Result<Reading, SourceError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(SourceError::Unavailable("away".to_owned()));
        }
        let position = SourcePosition(self.position.load(Ordering::SeqCst));
        let records = self.records.lock().unwrap().clone();
        self.reads.fetch_add(1, Ordering::SeqCst);
        while self.holds.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5));
        }
        Ok(Reading {
            lacks_project_keys: self.lacks_project_keys.load(Ordering::SeqCst),
            ..reading(records, position)
        })
    }

    fn listen(&self, stop: &AtomicBool, tell: &mut dyn FnMut(Heard)) {
        while !stop.load(Ordering::SeqCst) {
            let heard = std::mem::take(&mut *self.heard.lock().unwrap());
            heard.into_iter().for_each(&mut *tell);
            sleep(Duration::from_millis(5));
        }
    }
}

pub fn reading(records: RecordMap, position: SourcePosition) -> Reading {
    Reading {
        records,
        position,
        ..Reading::default()
    }
}

pub fn a_team(id: u32) -> Record {
    Record::Team(Team {
        id: Tenant(id),
        organization: None,
    })
}

/// Everything often, so that tests are short. Changed by the test where it matters.
pub fn settings(url: &str) -> WatchSettings {
    WatchSettings {
        redis: Arc::new(Server::parse(url).unwrap()),
        prefix: "flag_definitions:".to_owned(),
        diff_interval: Duration::from_millis(100),
        sweep_interval: Duration::from_millis(100),
        snapshot_interval: Duration::from_secs(600),
        retention: Duration::from_secs(3_600),
        trim_interval: Duration::from_secs(60),
        max_removal_percent: 20,
    }
}

fn places(settings: &WatchSettings) -> Places {
    Places {
        definitions: Arc::clone(&settings.redis),
        clock: None,
        settings: Definitions::default(),
        prefix: settings.prefix.clone(),
    }
}

/// ETags of the Redis that holds the snapshot.
pub fn etags(settings: &WatchSettings) -> Box<dyn ETagSource> {
    Box::new(ETags::new(places(settings)))
}

/// A watcher in a thread. Stops when dropped.
pub struct Instance {
    pub status: Arc<WatchStatus>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Instance {
    pub fn start(settings: WatchSettings, source: &Arc<impl Source + 'static>) -> Self {
        let etags = etags(&settings);
        Self::start_with(settings, source, etags)
    }

    /// With PostHog's payloads in the Redis of this URL.
    pub fn start_with_definitions(
        settings: WatchSettings,
        definitions: &str,
        source: &Arc<impl Source + 'static>,
    ) -> Self {
        let etags = ETags::new(Places {
            definitions: Arc::new(Server::parse(definitions).unwrap()),
            clock: Some(Arc::clone(&settings.redis)),
            ..places(&settings)
        });
        Self::start_with(settings, source, Box::new(etags))
    }

    fn start_with(
        settings: WatchSettings,
        source: &Arc<impl Source + 'static>,
        etags: Box<dyn ETagSource>,
    ) -> Self {
        let records = Arc::clone(source) as Arc<dyn Source>;
        Self::of(settings, records_of(records, etags))
    }

    /// With any sources.
    pub fn of(settings: WatchSettings, sources: WatchedSources) -> Self {
        let status = Arc::new(WatchStatus::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&status));
        let run = move || watch(&settings, sources, &stopped, &seen).unwrap();
        Self {
            status,
            stop,
            thread: Some(std::thread::spawn(run)),
        }
    }

    /// Waits until the figures are as they should be.
    #[track_caller]
    pub fn wait(&self, what: &str, is_so: impl Fn(&Figures) -> bool) -> Figures {
        let mut figures = self.status.figures();
        eventually(what, || {
            figures = self.status.figures();
            is_so(&figures)
        });
        figures
    }

    /// Waits for the first watermark.
    #[track_caller]
    pub fn wait_until_live(&self) -> Figures {
        self.wait("a watermark", |figures| figures.watermark.is_some())
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking());
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
    }
}

#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Replaces the document at once, so that nobody reads half of it.
pub fn write_document(file: &Path, secrets: impl Iterator<Item = u32>) {
    let secrets: Vec<String> = secrets.map(|n| hash(&format!("phs_{n}"))).collect();
    let document: Value = json!({
        "format": 1,
        "teams": [{"id": 7, "api_token": "phc_a", "secret_token_sha256": secrets}],
    });
    let new = file.with_extension("new");
    std::fs::write(&new, document.to_string()).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// A watcher in a process of its own. Killed when dropped.
pub struct Process(Child);

impl Process {
    /// This test binary again, as a watcher of a document.
    pub fn start(url: &str, file: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "instance::a_process", "--ignored", "--nocapture"])
            .env("WATCHED_REDIS", url)
            .env("WATCHED_FILE", file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn signal(&self, name: &str) {
        let process = self.0.id().to_string();
        let status = Command::new("kill")
            .args([name, &process])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what [`Process`] runs.
#[test]
#[ignore = "runs until it is killed"]
fn a_process() {
    let (Ok(url), Some(file)) = (
        std::env::var("WATCHED_REDIS"),
        std::env::var_os("WATCHED_FILE"),
    ) else {
        return;
    };
    let mut settings = settings(&url);
    settings.snapshot_interval = Duration::from_millis(100);
    settings.max_removal_percent = 100;
    let source = Arc::new(DocumentFile::new(Path::new(&file)));
    let stop = Arc::new(AtomicBool::new(false));
    let etags = etags(&settings);
    watch(
        &settings,
        records_of(source, etags),
        &stop,
        &Arc::new(WatchStatus::default()),
    )
    .unwrap();
}

fn records_of(records: Arc<dyn Source>, etags: Box<dyn ETagSource>) -> WatchedSources {
    WatchedSources {
        records: Some(records),
        etags: Some(etags),
        ..WatchedSources::default()
    }
}

/// The records of a database, decoded.
pub fn decoded(records: &RecordMap) -> BTreeMap<Sha256Hash, Record> {
    let decode = |record: &[u8]| Record::decode(record).unwrap();
    records
        .iter()
        .map(|(hash, record)| (*hash, decode(record)))
        .collect()
}
