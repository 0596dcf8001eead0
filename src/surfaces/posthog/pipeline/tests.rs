use std::cell::RefCell;
use std::time::Duration;

use super::*;
use crate::documents::{Confirmed, confirmed};
use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::limits::Mode;
use crate::records::StreamId;
use crate::records::bucket::{self, Entry};
use crate::records::{Revision, Touched};
use crate::shared::{Cas, MemoryStore, Scope, StoreError, Versioned};
use crate::surfaces::SurfaceRequest;
use crate::surfaces::posthog::definitions::encoding::{DecodeError, Malformed};
use crate::surfaces::posthog::directory::access::AuthMethod;
use crate::surfaces::posthog::directory::{OrganizationId, PersonalKey, Record, Team};
use crate::surfaces::posthog::read_through::{self, Known, Miss, table};
use crate::surfaces::posthog::request::Token;
use crate::surfaces::posthog::settings::Sections;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod bodies;
mod quota_end;

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
        kept: RefCell::new(Kept::new(settings.definitions.most_kept())),
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
        let key = self.tables.buckets.name(self.tables.buckets.of(&hash));
        let current = self.store.read(&key).unwrap();
        let record = record.encode().unwrap();
        let entry = Entry {
            hash,
            id: StreamId {
                millis,
                sequence: 0,
            },
            record: &record,
        };
        let next = bucket::merge(&current.value, &[entry], StreamId::default()).unwrap();
        assert!(self.store.replace(&key, &next, current.cas).unwrap());
        Revision::raise(&self.store, self.tables.buckets.scope(), Touched::ALL).unwrap();
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

#[test]
fn the_method_is_checked_first() {
    let mut world = world("{}");
    world.freshness = Freshness::Missing;
    for (method, answer) in [
        ("HEAD", Answer::Head),
        ("OPTIONS", Answer::Preflight),
        ("POST", Answer::MethodNotAllowed),
        ("DELETE", Answer::MethodNotAllowed),
    ] {
        assert_eq!(
            world.outcome(&request(method, "", &[])),
            Ok(answer),
            "{method}"
        );
    }
}

#[test]
fn what_says_that_it_is_grpc_is_refused_whatever_it_asks_and_costs_nothing() {
    let mut world = world("{}");
    for freshness in [Freshness::Missing, Freshness::Current] {
        world.freshness = freshness;
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            let headers = [
                ("authorization", "Bearer phs_one"),
                ("content-type", "application/grpc"),
            ];
            let request = request(method, "?token=phc_one", &headers);
            let (step, observed) = world.step(&request);
            assert_eq!(status_of(&step), 415, "{method}");
            assert_eq!(observed, Observed::default(), "{method}");
        }
    }
    assert_eq!(Answer::UnsupportedMediaType.body(), "");
}

#[test]
fn authentication() {
    use Answer::{
        Definitions, NotAuthenticated, PersonalInvalid, ScopeMissing, SecretInvalid, TokenInvalid,
        TokenRepeated, TokenRequired,
    };
    let world = world("{}");
    for (query, bearer, answer) in [
        ("?token=phc_one", "phs_one", Definitions),
        ("?token=phc_one", "phx_ok", Definitions),
        ("", "phs_one", Definitions),
        ("", "phs_two", Definitions),
        ("", "", NotAuthenticated),
        ("", "phx_ok", TokenRequired),
        ("", "phc_one", TokenRequired),
        ("", "phs_unknown", SecretInvalid),
        ("", "phs_gone", SecretInvalid),
        ("?token=phc_one", "", NotAuthenticated),
        ("?token=phc_one", "phs_two", SecretInvalid),
        ("?token=phc_one", "phs_unknown", SecretInvalid),
        ("?token=phc_one", "phs_gone", SecretInvalid),
        ("?token=phc_one", "phx_unknown", PersonalInvalid),
        ("?token=phc_one", "phx_no_scope", ScopeMissing),
        ("?token=phc_one", "phc_one", PersonalInvalid),
        ("?token=phs_one", "phs_one", TokenInvalid),
        ("?token=phc_unknown", "phs_one", TokenInvalid),
        ("?token=phc_gone", "phs_one", TokenInvalid),
        ("?token=", "phs_one", TokenInvalid),
        // The team is looked up before the credential.
        ("?token=phc_unknown", "", TokenInvalid),
        ("?token=phc_one&token=phc_one", "phs_one", TokenRepeated),
    ] {
        assert_eq!(
            world.outcome(&get(query, bearer, "")),
            Ok(answer),
            "{query} {bearer}"
        );
    }
}

#[test]
fn refusing_needs_fresher_knowledge_than_accepting() {
    let mut world = world("{}");
    let good = get("?token=phc_one", "phs_one", "");
    let bad = [
        get("?token=phc_unknown", "phs_one", ""),
        get("?token=phc_one", "phs_unknown", ""),
        get("?token=phc_one", "phs_two", ""),
        get("?token=phc_one", "phx_no_scope", ""),
        get("?token=phc_gone", "phs_one", ""),
        get(&format!("?token={}", "a".repeat(300)), "phs_one", ""),
    ];
    for (freshness, why) in [
        (Freshness::Aging, Reason::SnapshotAging),
        (Freshness::Expired, Reason::SnapshotExpired),
        (Freshness::Missing, Reason::SnapshotMissing),
    ] {
        world.freshness = freshness;
        let accepted = match freshness {
            Freshness::Aging => Ok(Answer::Definitions),
            _ => Ok(Answer::Unavailable(why)),
        };
        assert_eq!(world.outcome(&good), accepted);
        for request in &bad {
            assert_eq!(
                world.outcome(request),
                Ok(Answer::Unavailable(why)),
                "{request:?}"
            );
        }
    }
}

#[test]
fn with_an_upstream_the_undecided_is_forwarded_and_the_known_is_decided() {
    let mut world = world(r#"{"upstream":"forward"}"#);
    let unknown = get("?token=phc_unknown", "phs_one", "");
    let known_bad = get("?token=phc_one", "phx_no_scope", "");
    assert_eq!(world.outcome(&unknown), Err(Reason::UnknownCredential));
    assert_eq!(world.outcome(&known_bad), Ok(Answer::ScopeMissing));
    world.freshness = Freshness::Aging;
    assert_eq!(world.outcome(&known_bad), Err(Reason::SnapshotAging));
    world.freshness = Freshness::Missing;
    assert_eq!(world.outcome(&unknown), Err(Reason::SnapshotMissing));
}

#[test]
fn unknown_credentials_can_be_rejected_despite_an_upstream() {
    let world = world(r#"{"upstream":"forward","unknown_credential":"reject"}"#);
    let unknown = get("?token=phc_unknown", "phs_one", "");
    assert_eq!(world.outcome(&unknown), Ok(Answer::TokenInvalid));
}

#[test]
fn a_request_that_comes_back_is_not_forwarded_again() {
    let world = world(r#"{"upstream":"forward"}"#);
    let header = (crate::surfaces::FORWARD_REASON_HEADER, "redis");
    let request = request("GET", "?token=phc_unknown", &[header]);
    assert_eq!(
        world.outcome(&request),
        Ok(Answer::Unavailable(Reason::Loop))
    );
}

#[test]
fn a_confirmed_etag_answers_304_without_a_read() {
    let world = world("{}");
    world.confirm("abc", NOW);
    let (step, observed) = world.step_owned("?token=phc_one", "phs_one", r#"W/"abc""#);
    assert_eq!(step, Ok(304));
    assert_eq!(observed.etag, Some(ETagResult::Hit));
    assert_eq!(observed.auth, Some(AuthMethod::SecretApiKey));
}

#[test]
fn an_etag_that_is_not_confirmed_now_is_asked_for() {
    for (tag, age) in [("other", 0), ("abc", 2_000), ("abc", 60_000)] {
        let world = world("{}");
        world.confirm(tag, Monotonic::from_millis(NOW.as_millis() - age));
        let request = get("?token=phc_one", "phs_one", r#"W/"abc""#);
        let held = request.if_none_match.candidate();
        let need = Need {
            team: Tenant(1),
            held,
        };
        assert_eq!(
            world.step(&request).0,
            Step::Read(PostHogRead::Definitions(need))
        );
    }
}

#[test]
fn authentication_comes_before_the_etag() {
    let world = world("{}");
    world.confirm("abc", NOW);
    for (query, bearer) in [("?token=phc_one", ""), ("?token=phc_unknown", "phs_one")] {
        let (step, _) = world.step_owned(query, bearer, r#"W/"abc""#);
        assert_eq!(step, Ok(401));
    }
}

impl World {
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

/// Counts the look-ups of records.
struct Counting<'a>(&'a MemoryStore, RefCell<u32>);

impl Store for Counting<'_> {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        *self.1.borrow_mut() += u32::from(key.contains(":b:"));
        self.0.read(key)
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        self.0.replace(key, value, cas)
    }
}

#[test]
fn who_asks_again_is_admitted_without_a_look_and_only_while_the_snapshot_counts() {
    for (token, bearer) in [
        ("?token=phc_one", "phs_one"),
        ("?token=phc_one", "phx_ok"),
        ("", "phs_one"),
    ] {
        let mut world = world("{}");
        let request = get(token, bearer, "");
        let looks = |world: &World| {
            let store = Counting(&world.store, RefCell::default());
            let (step, observed) = world.step_over(&store, &request);
            {
                let status = match &step {
                    Step::Read(_) => 200,
                    step => status_of(step),
                };
                (status, observed.auth.is_some(), store.1.into_inner())
            }
        };
        let (status, admitted, first) = looks(&world);
        assert!(status == 200 && admitted && first > 0);
        assert_eq!(looks(&world), (200, true, 0), "{bearer}");
        world.freshness = Freshness::Aging;
        assert_eq!(looks(&world), (200, true, 0));
        world.freshness = Freshness::Expired;
        assert_eq!(looks(&world), (503, false, 0));
        world.freshness = Freshness::Current;
        world.put_as_of(Sha256Hash::of(bearer.as_bytes()), 2, &Record::Tombstone);
        world.now = world.now.plus(Duration::from_millis(10));
        assert_eq!(looks(&world).0, 401);
    }
}

#[test]
fn a_refusal_is_looked_up_each_time() {
    let world = world("{}");
    let request = get("?token=phc_one", "phs_two", "");
    for _ in 0..2 {
        let store = Counting(&world.store, RefCell::default());
        assert_eq!(status_of(&world.step_over(&store, &request).0), 401);
        assert_eq!(store.1.into_inner(), 2);
    }
}

#[test]
fn shared_data_that_fails_is_an_outage_and_not_a_refusal() {
    let world = world("{}");
    let request = get("?token=phc_one", "phs_one", "");
    let (step, _) = world.step_over(&Broken, &request);
    assert_eq!(status_of(&step), 503);
}

#[test]
fn what_a_read_brings() {
    let world = world("{}");
    let tag = |text: &str| ETag::new(text.as_bytes()).unwrap();
    let full = |etag: Option<&str>| full(etag, false);
    for (if_none_match, outcome, status, etag, cache) in [
        (
            "",
            full(Some("e")),
            200,
            ETagResult::None,
            Some(CacheResult::Hit),
        ),
        (
            "",
            full(None),
            200,
            ETagResult::RedisMissing,
            Some(CacheResult::Hit),
        ),
        (
            r#"W/"x""#,
            full(Some("e")),
            200,
            ETagResult::Miss,
            Some(CacheResult::Hit),
        ),
        (r#""x","e""#, full(Some("e")), 304, ETagResult::Hit, None),
        (
            "*",
            Outcome::Unchanged(tag("e")),
            304,
            ETagResult::Hit,
            None,
        ),
        (
            r#""e""#,
            Outcome::Unchanged(tag("e")),
            304,
            ETagResult::Hit,
            None,
        ),
    ] {
        let request = get("?token=phc_one", "phs_one", if_none_match);
        let (step, observed) = world.resume(&request, &outcome);
        assert_eq!(status_of(&step), status, "{if_none_match} {outcome:?}");
        assert_eq!(observed.etag, Some(etag), "{if_none_match} {outcome:?}");
        assert_eq!(observed.cache, cache, "{if_none_match} {outcome:?}");
    }
}

#[test]
fn reads_that_fail() {
    let request = get("?token=phc_one", "phs_one", r#""e""#);
    let none = world("{}");
    let forward = world(r#"{"upstream":"forward"}"#);
    for (outcome, status, why) in [
        (Absent::Missing, 503, None),
        (
            Absent::Undecodable(DecodeError::Malformed(Malformed::Pickle)),
            500,
            None,
        ),
        (Absent::TooBig, 500, None),
        (Absent::ObjectStore, 503, Some(Reason::ObjectStore)),
        (Absent::Failed(Failure::Timeout), 503, Some(Reason::Timeout)),
        (
            Absent::Failed(Failure::Unavailable),
            503,
            Some(Reason::Redis),
        ),
        (Absent::Failed(Failure::Refused), 503, Some(Reason::Redis)),
        (Absent::Failed(Failure::Malformed), 503, Some(Reason::Redis)),
        (Absent::Failed(Failure::NotSent), 503, Some(Reason::Redis)),
    ] {
        let outcome = Outcome::Absent(outcome);
        let (step, observed) = none.resume(&request, &outcome);
        assert_eq!(status_of(&step), status, "{outcome:?}");
        assert_eq!(
            observed.rebuild,
            outcome == Outcome::Absent(Absent::Missing)
        );
        let (step, _) = forward.resume(&request, &outcome);
        match why {
            Some(why) => assert_eq!(step, Step::Forward(why), "{outcome:?}"),
            None => assert_eq!(status_of(&step), status, "{outcome:?}"),
        }
    }
}

#[test]
fn a_200_is_billed_when_its_payload_is_and_it_has_a_body() {
    let validating = world(r#"{"head_requests":"validate"}"#);
    for (method, if_none_match, billable, billed) in [
        ("GET", "", true, true),
        ("GET", "", false, false),
        ("GET", r#""x""#, true, true),
        ("GET", r#""e""#, true, false),
        ("HEAD", "", true, false),
    ] {
        let mut headers = vec![("authorization", "Bearer phs_one")];
        if !if_none_match.is_empty() {
            headers.push(("if-none-match", if_none_match));
        }
        let request = request(method, "?token=phc_one", &headers);
        let outcome = full(Some("e"), billable);
        let (_, observed) = validating.resume(&request, &outcome);
        assert_eq!(
            observed.billed, billed,
            "{method} {if_none_match} {billable}"
        );
    }
    let limited = world(r#"{"rate_limit":{"full":"1/hour"}}"#);
    let request = get("?token=phc_one", "phs_one", r#""x""#);
    let outcome = full(Some("e"), true);
    assert!(limited.resume(&request, &outcome).1.billed);
    let (step, observed) = limited.resume(&request, &outcome);
    assert_eq!((status_of(&step), observed.billed), (429, false));
}

#[test]
fn a_304_costs_the_conditional_budget_and_nothing_of_the_full_one() {
    let mut world = world(r#"{"rate_limit":{"conditional":"2/hour","full":"1/hour"}}"#);
    world.confirm("abc", NOW);
    let conditional = || world.step_owned("?token=phc_one", "phs_one", r#""abc""#).0;
    assert_eq!([conditional(), conditional()], [Ok(304), Ok(304)]);
    let request = get("?token=phc_one", "phs_one", r#""abc""#);
    let (step, observed) = world.step(&request);
    assert_eq!(observed.limits, [(Budget::Conditional, Mode::Enforced)]);
    let Step::Reply(reply, _) = step else {
        panic!("not an answer");
    };
    let headers = reply.headers();
    let mut fields = headers.iter().flatten();
    let retry_after = fields.find(|(name, _)| *name == "retry-after");
    assert_eq!(retry_after.unwrap().1.concat(), b"1800");
    // What is limited is one budget, and neither is touched by those who may not read.
    for _ in 0..5 {
        assert_eq!(world.step_owned("?token=phc_one", "phs_two", "").0, Ok(401));
    }
    let unconditional = get("?token=phc_one", "phs_one", "");
    assert!(matches!(world.step(&unconditional).0, Step::Read(_)));
    assert_eq!(status_of(&world.step(&unconditional).0), 429);
    world.settings.rate_limit.enabled = false;
    assert!(matches!(world.step(&unconditional).0, Step::Read(_)));
}

#[test]
fn what_was_absent_a_moment_ago_is_not_read_again() {
    let mut world = world("{}");
    let request = get("?token=phc_one", "phs_one", "");
    for (absent, status) in [
        (Absent::Missing, 503),
        (Absent::TooBig, 500),
        (Absent::Failed(Failure::Timeout), 503),
    ] {
        world.absent.note(Tenant(1), absent, NOW);
        let (step, observed) = world.step(&request);
        assert_eq!(status_of(&step), status);
        assert!(!observed.rebuild, "that was signalled with the read");
    }
    let long_ago = Monotonic::from_millis(NOW.as_millis() - 1_000);
    world.absent.note(Tenant(1), Absent::Missing, long_ago);
    assert!(matches!(world.step(&request).0, Step::Read(_)));
}

const READ_THROUGH: &str = r#"{"read_through":{"enabled":true},"upstream":"forward"}"#;

fn known(record: Record, age: u64) -> Known {
    Known {
        record,
        api_token: None,
        looked_up_at: Monotonic::from_millis(NOW.as_millis() - age),
    }
}

impl World {
    fn find(&mut self, token: &str, record: Record, age: u64) {
        let found = self.found.get_or_insert_default();
        let hash = Sha256Hash::of(token.as_bytes());
        found.records.push((hash, known(record, age)));
    }

    fn keep(&self, token: &str, record: Record, age: u64) {
        let slots = &self.tables.identities;
        let records = [(Sha256Hash::of(token.as_bytes()), known(record, age))];
        table::keep(&self.store, slots, &records, NOW, Duration::from_secs(60)).unwrap();
    }

    fn looks_up(&self, request: &Request) -> bool {
        matches!(self.step(request).0, Step::Read(PostHogRead::Identity(..)))
    }
}

#[test]
fn what_the_snapshot_does_not_know_is_looked_up_once() {
    let mut world = world(READ_THROUGH);
    for (query, bearer, looked_up) in [
        ("?token=phc_new", "phs_new", true),
        ("?token=phc_new", "", true),
        ("?token=phc_one", "phs_new", true),
        ("", "phs_new", true),
        // Known, or known to be gone, or nobody's.
        ("?token=phc_one", "phs_one", false),
        ("?token=phc_gone", "phs_one", false),
        ("?token=phc_one", "phs_gone", false),
        ("?token=phc%2Fnew", "phs_new", false),
        ("?token=phc_one", "phs/new", false),
        ("?token=", "phs_new", false),
    ] {
        let request = get(query, bearer, "");
        assert_eq!(world.looks_up(&request), looked_up, "{query} {bearer}");
    }
    // Found nowhere: the upstream decides.
    world.found = Some(Found::default());
    let request = get("?token=phc_new", "phs_new", "");
    assert_eq!(world.outcome(&request), Err(Reason::UnknownCredential));
    world.found = None;
    let asked = asked_for(&request);
    world.misses.note(asked, NOT_FOUND, NOW);
    assert_eq!(world.outcome(&request), Err(Reason::UnknownCredential));
    world
        .misses
        .note(asked, Miss::failed(Failure::Timeout), NOW);
    assert_eq!(world.outcome(&request), Err(Reason::Timeout));
}

const NOT_FOUND: Miss = Miss {
    token: true,
    bearer: true,
    why: read_through::Why::NotFound,
};

/// The look-up for a request.
fn need_of(request: &Request) -> read_through::Lookup {
    let Token::Named(token) = &request.token else {
        panic!("no token");
    };
    read_through::Lookup::new(Some(token), request.bearer.as_ref()).unwrap()
}

/// What a fruitless look-up for a request is remembered by.
fn asked_for(request: &Request) -> read_through::Asked {
    need_of(request).asked()
}

#[test]
fn what_was_found_is_not_refused_for_what_was_not() {
    let mut world = world(r#"{"read_through":{"enabled":true}}"#);
    let request = get("?token=phc_one", "phs_new", "");
    world.find("phs_new", Record::TeamSecret(Tenant(1)), 0);
    assert_eq!(world.outcome(&request), Ok(Answer::Definitions));
    // The snapshot has the token, PostHog's cache does not; and the credential did not stay in its slot.
    let found = world.found.take().unwrap();
    let need = need_of(&request);
    let miss = found.lacks(&need).unwrap();
    world.misses.note(need.asked(), miss, NOW);
    assert!(world.looks_up(&request));
    world.keep("phs_new", Record::TeamSecret(Tenant(2)), 6_000);
    assert!(world.looks_up(&request));
    let unknown = get("?token=phc_one", "phs_none", "");
    world.misses.note(asked_for(&unknown), NOT_FOUND, NOW);
    assert_eq!(world.outcome(&unknown), Ok(Answer::SecretInvalid));
}

#[test]
fn what_cannot_be_read_refuses_nobody() {
    for (query, bearer) in [
        ("?token=phc_one", "phs_new"),
        ("?token=phc_one", "phx_new"),
        ("?token=phc_new", "phs_one"),
    ] {
        for (metadata, credential) in [(true, false), (false, true)] {
            let mut world = world(r#"{"read_through":{"enabled":true}}"#);
            let request = get(query, bearer, "");
            let found = Found {
                unreadable: read_through::Unreadable {
                    metadata,
                    credential,
                },
                ..Found::default()
            };
            let need = need_of(&request);
            let miss = found.lacks(&need).unwrap();
            world.found = Some(found);
            let expected = Ok(Answer::Unavailable(Reason::UnknownCredential));
            assert_eq!(world.outcome(&request), expected, "{query} {bearer}");
            world.found = None;
            world.misses.note(need.asked(), miss, NOW);
            assert_eq!(world.outcome(&request), expected, "{query} {bearer}");
        }
    }
}

#[test]
fn a_looked_up_team_and_credential_are_accepted_without_any_snapshot() {
    let mut world = world(READ_THROUGH);
    world.freshness = Freshness::Missing;
    let team = Record::Team(Team {
        id: Tenant(9),
        organization: None,
    });
    let request = get("?token=phc_new", "phs_new", "");
    world.find("phc_new", team.clone(), 0);
    world.find("phs_new", Record::TeamSecret(Tenant(9)), 0);
    assert_eq!(world.outcome(&request), Ok(Answer::Definitions));
    world.found = None;
    assert!(world.looks_up(&request));
    world.keep("phc_new", team, 50_000);
    world.keep("phs_new", Record::TeamSecret(Tenant(9)), 50_000);
    assert!(matches!(
        world.step(&request).0,
        Step::Read(PostHogRead::Definitions(_))
    ));
}

#[test]
fn a_refusal_that_rests_on_an_old_look_up_is_looked_up_again() {
    let mut world = world(READ_THROUGH);
    let request = get("?token=phc_one", "phs_new", "");
    let theirs = || Record::TeamSecret(Tenant(2));
    world.keep("phs_new", theirs(), 6_000);
    assert!(world.looks_up(&request));
    world.find("phs_new", theirs(), 0);
    assert_eq!(world.outcome(&request), Ok(Answer::SecretInvalid));
    world.found = None;
    world.keep("phs_new", theirs(), 4_000);
    assert_eq!(world.outcome(&request), Ok(Answer::SecretInvalid));
}

#[test]
fn an_old_refusal_whose_credential_is_gone_is_not_looked_up_again_and_again() {
    let mut world = world(READ_THROUGH);
    let request = get("?token=phc_one", "phs_new", "");
    world.keep("phs_new", Record::TeamSecret(Tenant(2)), 6_000);
    let asked = asked_for(&request);
    for (miss, why) in [
        (NOT_FOUND, Reason::UnknownCredential),
        (Miss::failed(Failure::Timeout), Reason::Timeout),
    ] {
        world.misses.note(asked, miss, NOW);
        assert_eq!(world.outcome(&request), Err(why));
    }
}

#[test]
fn rejecting_what_is_found_nowhere_needs_a_fresh_snapshot() {
    let mut world = world(r#"{"read_through":{"enabled":true}}"#);
    world.found = Some(Found::default());
    let request = get("?token=phc_new", "phs_new", "");
    assert_eq!(world.outcome(&request), Ok(Answer::TokenInvalid));
    for (freshness, why) in [
        (Freshness::Aging, Reason::SnapshotAging),
        (Freshness::Missing, Reason::SnapshotMissing),
    ] {
        world.freshness = freshness;
        assert_eq!(world.outcome(&request), Ok(Answer::Unavailable(why)));
    }
}

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

#[test]
fn a_watermark_confirms_what_was_published_and_nothing_else_does() {
    let request = get("?token=phc_one", "phs_one", "W/\"e1\"");
    let asks = |world: &World| matches!(world.step(&request).0, Step::Read(_));
    let mut world = world("{}");
    world.publish("e1", 10);
    assert!(asks(&world), "silence confirms nothing");
    world.confirmation = watermark(10, 1_999);
    assert_eq!(world.outcome(&request), Ok(Answer::NotModified));
    world.confirmation = watermark(10, 2_000);
    assert!(asks(&world), "the publisher is dead");
    world.confirmation = watermark(11, 0);
    assert!(asks(&world), "it was not renewed since a change was missed");
    world.confirmation = watermark(10, 0);
    world.publish("e2", 11);
    world.forget();
    assert!(asks(&world), "another one is published");
    world.put_as_of(directory::etag_hash(Tenant(1)), 12, &Record::Tombstone);
    world.forget();
    assert!(asks(&world), "there is none any more");
}

#[test]
fn a_callout_counts_unless_something_newer_was_published() {
    let request = get("?token=phc_one", "phs_one", "W/\"asked\"");
    // Ages of the published ETag, of the watermark and of the callout.
    for (published, watermark_age, callout_age, answered) in [
        (Some(9_000), 500, 400, true),
        (Some(9_000), 500, 600, false),
        (Some(9_000), 2_500, 1_900, true),
        // It was published after the callout, or while that was under way.
        (Some(700), 1_000, 800, false),
        (Some(700), 1_000, 300, false),
        (Some(700), 1_000, 100, true),
        (None, 500, 600, true),
        (None, 500, 2_000, false),
    ] {
        let mut world = world("{}");
        if let Some(age) = published {
            world.publish("published", NOW.as_millis() - age);
        }
        world.confirmation = watermark(10, watermark_age);
        world.confirm(
            "asked",
            Monotonic::from_millis(NOW.as_millis() - callout_age),
        );
        let outcome = world.outcome(&request) == Ok(Answer::NotModified);
        assert_eq!(
            outcome, answered,
            "{published:?} {watermark_age} {callout_age}"
        );
    }
}

#[test]
fn a_callout_is_newer_only_where_the_changes_cannot_have_been_read_so_slowly() {
    let request = get("?token=phc_one", "phs_one", "W/\"asked\"");
    for (config, answered) in [
        ("{}", true),
        (r#"{"redis":{"snapshot":{"timeout":"2s"}}}"#, false),
    ] {
        let mut world = world(config);
        world.publish("published", NOW.as_millis() - 1_500);
        world.confirmation = watermark(10, 1_000);
        world.confirm("asked", Monotonic::from_millis(NOW.as_millis() - 800));
        let outcome = world.outcome(&request) == Ok(Answer::NotModified);
        assert_eq!(outcome, answered, "{config}");
    }
}
