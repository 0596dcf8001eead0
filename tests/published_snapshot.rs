//! From the source document to the answer: whatever a document says, the loaded snapshot decides by it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![cfg(not(target_arch = "wasm32"))]

use std::time::Duration;

use flag_definitions_filter::config::Settings;
use flag_definitions_filter::documents::{Confirmations, Kept, confirmed};
use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::limits::Limiter;
use flag_definitions_filter::recent::Recent;
use flag_definitions_filter::shared::{Held, MemoryStore, Scope};
use flag_definitions_filter::snapshot::loader::Loader;
use flag_definitions_filter::snapshot::status::Freshness;
use flag_definitions_filter::snapshot::testing::Publisher;
use flag_definitions_filter::surfaces::Step;
use flag_definitions_filter::surfaces::posthog::directory::Record;
use flag_definitions_filter::surfaces::posthog::document;
use flag_definitions_filter::surfaces::posthog::pipeline::{
    self, Context, Memory, Observed, PendingEnds, Tables,
};
use flag_definitions_filter::surfaces::posthog::quota::QuotaCopy;
use flag_definitions_filter::surfaces::posthog::read_through::Misses;
use flag_definitions_filter::surfaces::posthog::request::Request;
use flag_definitions_filter::time::Monotonic;
use proptest::prelude::*;

/// A document with up to 40 teams; team `n` has token `phc_n`; `secrets[n]` says which secrets are its own.
#[derive(Clone, Debug)]
struct Model {
    secrets: Vec<Vec<u8>>,
}

impl Model {
    fn json(&self) -> Vec<u8> {
        let teams: Vec<_> = self
            .secrets
            .iter()
            .enumerate()
            .map(|(n, secrets)| {
                let hashes: Vec<_> = secrets
                    .iter()
                    .map(|s| Sha256Hash::of(secret(n, *s).as_bytes()).to_hex())
                    .collect();
                serde_json::json!({"id": n + 1, "api_token": token(n), "secret_token_sha256": hashes})
            })
            .collect();
        serde_json::to_vec(&serde_json::json!({"format": 1, "teams": teams})).unwrap()
    }

    /// The status for a token and a secret of team `owner`.
    fn status(&self, n: usize, owner: usize, s: u8) -> u16 {
        let known = n < self.secrets.len();
        let own = n == owner && self.secrets.get(n).is_some_and(|all| all.contains(&s));
        if known && own { 200 } else { 401 }
    }
}

fn token(n: usize) -> String {
    format!("phc_{n}")
}

fn secret(n: usize, s: u8) -> String {
    format!("phs_{n}_{s}")
}

fn publish(redis: &mut Publisher, model: &Model, generation: u64) {
    let records = document::parse(&model.json()).unwrap();
    redis.publish(generation, generation, &records.by_hash);
}

fn load(loader: &mut Loader, store: &MemoryStore, redis: &Publisher, now: &mut u64) {
    let mut events = Vec::new();
    for _ in 0..120 {
        *now += 10;
        let at = Monotonic::from_millis(*now);
        if let Some(command) = loader.tick(store, at, Held::Yes, &mut events) {
            loader.reply(store, Ok(redis.reply(&command)), &mut events);
        }
    }
}

fn model() -> impl Strategy<Value = Model> {
    let secrets =
        prop::collection::btree_set(0u8..4, 0..3).prop_map(|set| set.into_iter().collect());
    prop::collection::vec(secrets, 0..40).prop_map(|secrets| Model { secrets })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_generation_decides_as_its_document_says(
        generations in prop::collection::vec(model(), 1..4),
        buckets in 1u32..200,
        asked in prop::collection::vec((0usize..45, 0usize..45, 0u8..4), 40)
    ) {
        let config = format!(r#"{{"snapshot":{{"buckets":{buckets}}}}}"#);
        let settings = Settings::from_json(config.as_bytes()).unwrap();
        let tables = Tables::new(&Scope::new("", &[]), buckets);
        let (store, mut redis, mut now) = (MemoryStore::default(), Publisher::default(), 1_000);
        let mut loader = Loader::new(&settings.posthog.snapshot, tables.buckets.clone(), Record::check, 1);
        // What a worker remembers of one generation must not decide in the next.
        let mut memory = Memory::default();
        for (index, model) in generations.iter().enumerate() {
            publish(&mut redis, model, index as u64 + 1);
            load(&mut loader, &store, &redis, &mut now);
            let own = (0..model.secrets.len()).flat_map(|n| (0..4).map(move |s| (n, n, s)));
            for (n, owner, s) in own.chain(asked.iter().copied()) {
                let path = format!("/flags/definitions?token={}", token(n));
                let authorization = format!("Bearer {}", secret(owner, s));
                let headers = [
                    (":method", "GET"), (":path", path.as_str()), ("authorization", authorization.as_str()),
                ];
                let request = Request::parse(headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
                let mut context = Context {
                    settings: &settings.posthog,
                    tables: &tables,
                    store: &store,
                    freshness: Freshness::Current,
                    confirmation: None,
                    now: Monotonic::from_millis(now),
                    memory: &mut memory,
                    limiter: &mut Limiter::default(),
                    quota: &QuotaCopy::default(),
                    confirmations: &mut Confirmations::new(confirmed::slots(&tables.buckets)),
                    pending_ends: &mut PendingEnds::default(),
                    kept: &mut Kept::new(0),
                    absent: &Recent::new(1, Duration::ZERO),
                    misses: &Misses::new(Duration::ZERO, Duration::ZERO),
                    found: None,
                };
                let status = match pipeline::start(&request, &mut context, &mut Observed::default()) {
                    Step::Reply(response, _) => response.status,
                    Step::Read(_) => 200,
                    Step::Forward(why) => panic!("forwarded: {}", why.label()),
                    Step::Body { .. } => panic!("it has no body"),
                };
                prop_assert_eq!(status, model.status(n, owner, s), "{} {}", path, authorization);
            }
        }
    }
}
