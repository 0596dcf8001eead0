use std::cell::RefCell;
use std::time::Duration;

use super::*;
use crate::documents::{Confirmed, confirmed};
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::records::StreamId;
use crate::shared::{Cas, MemoryStore, Scope, StoreError, Versioned};
use crate::surfaces::SurfaceRequest;
use crate::surfaces::posthog::directory::{OrganizationId, PersonalKey, Record, Team};
use crate::surfaces::posthog::request::Token;
use crate::surfaces::posthog::settings::Sections;

mod admission;
mod bodies;
mod current_etags;
mod order;
mod quota_end;
mod read_through;
mod reads;

const ORGANIZATION: OrganizationId = OrganizationId([9; 16]);
const NOW: Monotonic = Monotonic::from_millis(100_000);

/// A worker with a small directory: team 1 with an organization, its secret, two personal keys.
struct World {
    settings: PostHogSettings,
    tables: Tables,
    store: MemoryStore,
    freshness: Freshness,
    confirmation: Option<Confirmation>,
    memory: RefCell<Memory>,
    limiter: RefCell<Limiter>,
    now: Monotonic,
    quota: QuotaCopy,
    confirmations: RefCell<Confirmations>,
    pending_ends: RefCell<PendingEnds>,
    kept: RefCell<Kept<Payload>>,
    absent: Recent<Tenant, Absent>,
    misses: Misses,
    found: Option<Found>,
}

fn confirmations(tables: &Tables) -> Confirmations {
    Confirmations::new(confirmed::slots(&tables.buckets))
}

fn world(config: &str) -> World {
    let sections: Sections = serde_json::from_str(config).unwrap();
    let settings = sections.settle(&mut Vec::new()).unwrap();
    let tables = Tables::new(&Scope::new("", &[]), settings.snapshot.buckets);
    let world = World {
        store: MemoryStore::default(),
        freshness: Freshness::Current,
        confirmation: None,
        memory: RefCell::default(),
        limiter: RefCell::default(),
        now: NOW,
        quota: QuotaCopy::default(),
        confirmations: RefCell::new(confirmations(&tables)),
        pending_ends: RefCell::default(),
        kept: RefCell::new(Kept::new(settings.definitions.max_kept_bytes())),
        absent: Recent::new(16, Duration::from_secs(1)),
        misses: Misses::new(Duration::from_secs(1), Duration::from_secs(5)),
        found: None,
        settings,
        tables,
    };
    let personal = |reads_flags| {
        Record::Personal(PersonalKey {
            user_active: true,
            reads_flags,
            organizations: vec![ORGANIZATION],
            ..PersonalKey::default()
        })
    };
    for (token, record) in [
        (
            "phc_one",
            Record::Team(Team {
                id: Tenant(1),
                organization: Some(ORGANIZATION),
            }),
        ),
        ("phs_one", Record::TeamSecret(Tenant(1))),
        ("phs_two", Record::TeamSecret(Tenant(2))),
        ("phx_ok", personal(true)),
        ("phx_no_scope", personal(false)),
        ("phs_gone", Record::Tombstone),
        ("phc_gone", Record::Tombstone),
    ] {
        world.put(token, &record);
    }
    world
}

impl World {
    fn put(&self, token: &str, record: &Record) {
        self.put_as_of(Sha256Hash::of(token.as_bytes()), 1, record);
    }

    fn put_as_of(&self, hash: Sha256Hash, millis: u64, record: &Record) {
        directory::testing::put(&self.store, &self.tables.buckets, hash, millis, record);
    }

    /// What was found in shared data has to be looked up again.
    fn forget(&self) {
        self.memory.replace(Memory::default());
        self.confirmations.replace(confirmations(&self.tables));
    }

    /// The publisher says at a time of the stream that this is the ETag.
    fn publish(&self, tag: &str, millis: u64) {
        let etag = ETag::new(tag.as_bytes()).unwrap();
        self.put_as_of(directory::etag_hash(Tenant(1)), millis, &Record::ETag(etag));
    }

    fn confirm(&self, tag: &str, at: Monotonic) {
        let confirmed = Confirmed {
            etag: ETag::new(tag.as_bytes()).unwrap(),
            at,
        };
        confirmed::store(
            &self.store,
            &confirmed::slots(&self.tables.buckets),
            Tenant(1),
            None,
            &confirmed,
        )
        .unwrap();
    }

    fn step<'a>(&self, request: &'a Request) -> (PostHogStep<'a>, Observed) {
        self.step_over(&self.store, request)
    }

    fn step_owned(
        &self,
        query: &str,
        bearer: &str,
        if_none_match: &str,
    ) -> (Result<u16, Reason>, Observed) {
        let request = get(query, bearer, if_none_match);
        let (step, observed) = self.step(&request);
        let status = match step {
            Step::Forward(why) => Err(why),
            step => Ok(status_of(&step)),
        };
        (status, observed)
    }

    fn step_over<'a>(
        &self,
        store: &impl Store,
        request: &'a Request,
    ) -> (PostHogStep<'a>, Observed) {
        let mut observed = Observed::default();
        let step = self.with_context(store, |context| start(request, context, &mut observed));
        (step, observed)
    }

    fn with_context<S: Store, T>(&self, store: &S, f: impl FnOnce(&mut Context<'_, S>) -> T) -> T {
        f(&mut Context {
            settings: &self.settings,
            tables: &self.tables,
            store,
            freshness: self.freshness,
            confirmation: self.confirmation,
            now: self.now,
            memory: &mut self.memory.borrow_mut(),
            limiter: &mut self.limiter.borrow_mut(),
            quota: &self.quota,
            confirmations: &mut self.confirmations.borrow_mut(),
            pending_ends: &mut self.pending_ends.borrow_mut(),
            kept: &mut self.kept.borrow_mut(),
            absent: &self.absent,
            misses: &self.misses,
            found: self.found.as_ref(),
        })
    }

    fn resume<'a>(
        &self,
        request: &'a Request,
        outcome: &'a Outcome,
    ) -> (PostHogStep<'a>, Observed) {
        let named = match &request.token {
            Token::Named(token) => Some(token.hash()),
            _ => None,
        };
        self.resume_of(request, named, outcome)
    }

    /// The same, of a reader with this token.
    fn resume_of<'a>(
        &self,
        request: &'a Request<'a>,
        token: Option<&Sha256Hash>,
        outcome: &'a Outcome,
    ) -> (PostHogStep<'a>, Observed) {
        let mut observed = Observed::default();
        let step = self.with_context(&self.store, |context| {
            resume(request, Tenant(1), token, context, outcome, &mut observed)
        });
        (step, observed)
    }

    /// The answer to a request, `None` for a forward, or an answer that stands for a read.
    fn outcome(&self, request: &Request) -> Result<Answer, Reason> {
        match self.step(request).0 {
            Step::Reply(_, answer) => Ok(answer),
            Step::Forward(why) => Err(why),
            Step::Read(_) => Ok(Answer::Definitions),
            Step::Body { .. } => panic!("it has no body"),
        }
    }
}

fn request(method: &str, query: &str, headers: &[(&str, &str)]) -> Request<'static> {
    let path = format!("/flags/definitions{query}");
    let pseudo = [(":method", method), (":path", path.as_str())];
    Request::parse(
        pseudo
            .iter()
            .chain(headers)
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    )
    .into_owned()
}

fn get(query: &str, bearer: &str, if_none_match: &str) -> Request<'static> {
    let authorization = format!("Bearer {bearer}");
    let mut headers = Vec::new();
    if !bearer.is_empty() {
        headers.push(("authorization", authorization.as_str()));
    }
    if !if_none_match.is_empty() {
        headers.push(("if-none-match", if_none_match));
    }
    request("GET", query, &headers)
}

fn full(etag: Option<&str>, billable: bool) -> Outcome {
    let stored = etag.and_then(|etag| ETag::new(etag.as_bytes()));
    Outcome::Payload(Rc::new(Payload {
        etag_stored: stored.is_some(),
        etag: stored.unwrap_or_else(|| ETag::of_text(b"{}")),
        text: Rc::new(b"{}".to_vec()),
        billable,
    }))
}

fn status_of(step: &PostHogStep<'_>) -> u16 {
    match step {
        Step::Reply(response, _) => response.status,
        other => panic!("not a reply: {other:?}"),
    }
}

/// Shared data that fails.
struct Broken;

impl Store for Broken {
    fn read(&self, _: &str) -> Result<Versioned, StoreError> {
        Err(StoreError { status: 10 })
    }

    fn replace(&self, _: &str, _: &[u8], _: Cas) -> Result<bool, StoreError> {
        Err(StoreError { status: 10 })
    }
}

const READ_THROUGH: &str = r#"{"read_through":{"enabled":true},"upstream":"forward"}"#;

/// A watermark of this age. The clock of Redis is ours.
fn watermark(since: u64, age: u64) -> Option<Confirmation> {
    Some(Confirmation {
        since: StreamId {
            millis: since,
            sequence: 0,
        },
        at: Monotonic::from_millis(NOW.as_millis() - age),
        clock: (NOW.as_millis(), NOW),
    })
}
