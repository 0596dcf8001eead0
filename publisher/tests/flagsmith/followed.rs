//! What a source under test told, as a writer keeps it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::flagsmith::records::{
    Condition, FlagsmithRecord, Round, round_hash, state_hash,
};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::sources::WriterGone;
use flag_definitions_publisher::sources::authorities::authorities;
use flag_definitions_publisher::sources::documents::{
    DocumentNews, DocumentSource, SourcedDocument,
};
use flag_definitions_publisher::sources::flagsmith::config::{self, FlagsmithConfig};
use flag_definitions_publisher::sources::flagsmith::follower::FlagsmithSource;
use flag_definitions_publisher::sources::flagsmith::secret::FlagsmithKey;
use flag_definitions_publisher::sources::flagsmith::tenants::tenants;
use flag_definitions_publisher::sources::flagsmith::upstream::Upstream;
use flag_definitions_publisher::sources::usage::{UsageNews, UsageReports};
use flate2::read::GzDecoder;
use rustls::RootCertStore;
use serde_json::{Value, json};

use crate::stub::{Flagsmith, eventually};

/// All that was told.
#[derive(Default)]
pub struct Told {
    pub records: BTreeMap<Sha256Hash, Box<[u8]>>,
    pub documents: BTreeMap<Tenant, SourcedDocument>,
    /// How many documents were told.
    pub documents_told: usize,
    pub gone: Vec<Tenant>,
    /// Of its reports.
    pub usage: Vec<UsageNews>,
}

/// A source that runs, until this is dropped.
pub struct Followed {
    told: Arc<Mutex<Told>>,
    pub stop: Arc<AtomicBool>,
    /// `None`: it reports nothing.
    pub reports: Option<UsageReports>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Environments `0` and on with the keys `client0` and `ser.0`, polled often.
pub fn configuration(flagsmith: &Flagsmith, environments: usize, more: &Value) -> FlagsmithConfig {
    let pair = |number| {
        let client = format!("client{number}");
        json!({"client_side_key": client, "server_side_key": format!("ser.{number}")})
    };
    let pairs: Vec<_> = (0..environments).map(pair).collect();
    let mut file = json!({"environment_key_pairs": pairs, "api_url": flagsmith.url()});
    for (name, value) in more.as_object().unwrap() {
        file[name] = value.clone();
    }
    let (mut config, unused) = config::parse(file.to_string().as_bytes()).unwrap();
    assert_eq!(unused, []);
    config.poll_frequency = Duration::from_millis(50);
    config.poll_timeout = Duration::from_millis(500);
    config
}

impl Followed {
    /// One environment.
    pub fn start(flagsmith: &Flagsmith) -> Self {
        Self::with(configuration(flagsmith, 1, &json!({})))
    }

    pub fn with(config: FlagsmithConfig) -> Self {
        Self::start_trusting(config, authorities(None).unwrap())
    }

    pub fn start_trusting(config: FlagsmithConfig, roots: RootCertStore) -> Self {
        let upstream = Upstream::new(&config, roots).unwrap();
        let mut source = Box::new(FlagsmithSource::new(config, upstream, false));
        assert_eq!(source.surface(), "flagsmith");
        let told: Arc<Mutex<Told>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let telling = Arc::clone(&told);
        let reports = source.reports(Arc::new(move |news| {
            telling.lock().unwrap().usage.push(news);
            Ok(())
        }));
        let telling = Arc::clone(&told);
        source.start(
            Arc::new(move |news| telling.lock().unwrap().take(news)),
            &stop,
        );
        Self {
            told,
            stop,
            reports,
        }
    }

    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().unwrap())
    }

    #[track_caller]
    pub fn wait<T>(&self, what: &str, look: impl Fn(&Told) -> Option<T>) -> T {
        eventually(what, || self.told(&look))
    }

    /// Waits for a document of `client0` of this name.
    #[track_caller]
    pub fn wait_for_document(&self, name: &str) -> Value {
        self.wait(name, |told| {
            let document = told.text("client0")?;
            (document["name"] == name).then_some(document)
        })
    }

    #[track_caller]
    pub fn wait_for(&self, client_key: &str, condition: Condition) {
        let what = format!("{client_key} is {condition:?}");
        self.wait(&what, |told| {
            (told.condition(client_key) == Some(condition)).then_some(())
        });
    }
}

impl Told {
    fn take(&mut self, news: DocumentNews) -> Result<(), WriterGone> {
        match news {
            DocumentNews::Records(records) | DocumentNews::FirstRecords(records) => {
                self.records = records;
            }
            DocumentNews::Document(document) => {
                self.documents_told += 1;
                self.documents.insert(document.tenant, document);
            }
            DocumentNews::Gone(tenant) => {
                self.documents.remove(&tenant);
                self.gone.push(tenant);
            }
            DocumentNews::Kept { .. } => panic!("nothing is kept"),
        }
        Ok(())
    }

    pub fn record(&self, hash: Sha256Hash) -> Option<FlagsmithRecord> {
        let bytes = self.records.get(&hash)?;
        Some(FlagsmithRecord::decode(bytes).unwrap())
    }

    pub fn of_key(&self, key: &str) -> Option<FlagsmithRecord> {
        self.record(Sha256Hash::of(key.as_bytes()))
    }

    pub fn condition(&self, client_key: &str) -> Option<Condition> {
        match self.record(state_hash(tenant(client_key)))? {
            FlagsmithRecord::State(state) => Some(state.condition),
            other => panic!("{other:?}"),
        }
    }

    pub fn round(&self) -> Option<Round> {
        match self.record(round_hash())? {
            FlagsmithRecord::Round(round) => Some(round),
            other => panic!("{other:?}"),
        }
    }

    /// The document of an environment, which is as its version says.
    pub fn text(&self, client_key: &str) -> Option<Value> {
        let document = self.documents.get(&tenant(client_key))?;
        let mut text = Vec::new();
        GzDecoder::new(&*document.gzip)
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(document.version, ETag::of_text(&text));
        Some(serde_json::from_slice(&text).unwrap())
    }
}

pub fn tenant(client_key: &str) -> Tenant {
    let key = FlagsmithKey::new(client_key).unwrap();
    tenants([&key])[&key]
}
