//! Environments under a clock that is moved by hand.

use super::super::*;
use crate::sources::flagsmith::document::tests::document;
use crate::sources::flagsmith::document::{Page, assemble};
use crate::sources::flagsmith::list::ServerKey;
use crate::sources::flagsmith::upstream::Validators;
use crate::sources::flagsmith::{config, tenants};
use flag_definitions_filter::surfaces::flagsmith::records::EnvironmentState;
use serde_json::json;

pub const PROXY_KEY: bool = true;

pub fn key(text: &str) -> FlagsmithKey {
    FlagsmithKey::new(text).unwrap()
}

pub fn configuration(pairs: usize, has_proxy_key: bool) -> FlagsmithConfig {
    let pair = |number| json!({"client_side_key": format!("c{number}"), "server_side_key": format!("ser.{number}")});
    let mut file = json!({"environment_key_pairs": (0..pairs).map(pair).collect::<Vec<_>>()});
    if has_proxy_key {
        file["proxy_key"] = json!("pk.a");
    }
    config::parse(file.to_string().as_bytes()).unwrap().0
}

pub fn read(name: &str, fits: bool) -> Result<DocumentAnswer, UpstreamProblem> {
    let mut document = document();
    document["name"] = json!(name);
    if !fits {
        document["feature_states"] = json!("hunter2");
    }
    let page = Page {
        body: document.to_string().into_bytes(),
        is_gzip: false,
    };
    let read = assemble(vec![page]).unwrap();
    Ok(DocumentAnswer::Read(Box::new(read), Validators::default()))
}

pub fn failed() -> Result<DocumentAnswer, UpstreamProblem> {
    Err(UpstreamProblem::Status(500))
}

/// Environments under a clock that is moved by hand.
pub struct Simulated {
    environments: Environments,
    pub polls: Arc<Polls>,
    start: Instant,
    pub millis: u64,
}

/// A client-side key, and server-side keys with when they expire.
pub type Listed<'a> = (&'a str, &'a [(&'a str, Option<u64>)]);

/// What was told, by kind.
#[derive(Default)]
pub struct Told {
    pub records: Vec<BTreeMap<Sha256Hash, Box<[u8]>>>,
    /// Those that fit.
    pub documents: Vec<Tenant>,
    /// Those that do not.
    pub unfit: Vec<Tenant>,
    pub gone: Vec<Tenant>,
}

impl Simulated {
    pub fn new(config: &FlagsmithConfig) -> Self {
        let start = Instant::now();
        let now = Now {
            instant: start,
            unix: 1_000_000,
        };
        let polls = Arc::new(Polls::default());
        Self {
            environments: Environments::new(config, false, Arc::clone(&polls), now),
            polls,
            start,
            millis: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now {
            instant: self.start + Duration::from_millis(self.millis),
            unix: 1_000_000 + self.millis,
        }
    }

    pub fn pass(&mut self, millis: u64) {
        self.millis += millis;
    }

    pub fn due(&mut self) -> Vec<Poll> {
        self.environments.due(self.now())
    }

    /// Answers all polls of documents that are due.
    pub fn answer(&mut self, answer: impl Fn(&str) -> Result<DocumentAnswer, UpstreamProblem>) {
        for poll in self.due() {
            if let Poll::Document { place, .. } = poll {
                let answer = answer(place.client_key.text());
                self.answered(PollAnswer::Document { place, answer });
            }
        }
    }

    pub fn answer_list(&mut self, list: &[Listed<'_>]) {
        let asked = self.now().instant;
        let listed = |(client_key, server_keys): &Listed<'_>| ListedEnvironment {
            client_key: key(client_key),
            server_keys: server_keys
                .iter()
                .map(|(text, expires_at)| ServerKey {
                    expires_at: *expires_at,
                    ..ServerKey::lasting(key(text))
                })
                .collect(),
        };
        let answer = Ok(list.iter().map(listed).collect());
        self.answered(PollAnswer::List { asked, answer });
    }

    pub fn answered(&mut self, answer: PollAnswer) {
        self.environments.answered(answer, self.now());
    }

    pub fn reported(&mut self) -> Option<BTreeMap<Tenant, Sha256Hash>> {
        self.environments.reported_tenants()
    }

    pub fn told(&mut self) -> Told {
        let mut told = Told::default();
        for news in self.environments.news(self.now()) {
            match news {
                DocumentNews::Records(records) | DocumentNews::FirstRecords(records) => {
                    told.records.push(records)
                }
                DocumentNews::Document(document) if document.fits => {
                    told.documents.push(document.tenant);
                }
                DocumentNews::Document(document) => told.unfit.push(document.tenant),
                DocumentNews::Gone(tenant) => told.gone.push(tenant),
                DocumentNews::Kept { .. } => panic!("nothing is kept"),
            }
        }
        told
    }
}

pub fn tenant(client_key: &str) -> Tenant {
    tenants::tenants(&[key(client_key)])[&key(client_key)]
}

impl Told {
    pub fn record(&self, hash: Sha256Hash) -> Option<FlagsmithRecord> {
        let bytes = self.records.last()?.get(&hash)?;
        Some(FlagsmithRecord::decode(bytes).unwrap())
    }

    pub fn of_key(&self, text: &str) -> Option<FlagsmithRecord> {
        self.record(key(text).hash())
    }

    pub fn round(&self) -> Round {
        match self.record(round_hash()) {
            Some(FlagsmithRecord::Round(round)) => round,
            other => panic!("{other:?}"),
        }
    }

    pub fn polled(&self) -> Polled {
        match self.record(polled_hash()) {
            Some(FlagsmithRecord::Polled(polled)) => polled,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self, client_key: &str) -> Option<EnvironmentState> {
        match self.record(state_hash(tenant(client_key))) {
            Some(FlagsmithRecord::State(state)) => Some(state),
            None => None,
            other => panic!("{other:?}"),
        }
    }
}
