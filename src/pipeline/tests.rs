use super::*;
use crate::definitions::ETag;
use crate::directory::bucket::{self, Entry};
use crate::directory::{OrganizationId, PersonalKey, Team};
use crate::shared::{Cas, MemoryStore, StoreError, Versioned};
use crate::snapshot::StreamId;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ORGANIZATION: OrganizationId = OrganizationId([9; 16]);
const NOW: Monotonic = Monotonic::from_millis(100_000);

/// A worker with a small directory: team 1 with an organization, its secret, two personal keys.
struct World {
    settings: Settings,
    keys: Keys,
    store: MemoryStore,
    freshness: Freshness,
}

fn world(config: &str) -> World {
    let settings = Settings::from_json(config.as_bytes()).unwrap();
    let keys = Keys::new(&settings);
    let world = World {
        store: MemoryStore::default(),
        freshness: Freshness::Current,
        settings,
        keys,
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
                id: TeamId(1),
                organization: Some(ORGANIZATION),
            }),
        ),
        ("phs_one", Record::TeamSecret(TeamId(1))),
        ("phs_two", Record::TeamSecret(TeamId(2))),
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
        let hash = Sha256Hash::of(token.as_bytes());
        let key = self.keys.bucket(self.keys.bucket_of(&hash));
        let current = self.store.read(&key).unwrap();
        let record = record.encode().unwrap();
        let entry = Entry {
            hash,
            id: StreamId {
                millis: 1,
                sequence: 0,
            },
            record: &record,
        };
        let next = bucket::merge(&current.value, &[entry]).unwrap();
        assert!(self.store.replace(&key, &next, current.cas).unwrap());
    }

    fn confirm(&self, tag: &str, at: Monotonic) {
        let confirmed = Confirmed {
            etag: ETag::new(tag.as_bytes()).unwrap(),
            at,
        };
        confirmed::store(&self.store, &self.keys, TeamId(1), None, &confirmed).unwrap();
    }

    fn step<'a>(&self, request: &'a Request) -> (Step<'a>, Observed) {
        self.step_over(&self.store, request)
    }

    fn step_over<'a>(&self, store: &impl Store, request: &'a Request) -> (Step<'a>, Observed) {
        let mut observed = Observed::default();
        let context = Context {
            settings: &self.settings,
            keys: &self.keys,
            store,
            freshness: self.freshness,
            now: NOW,
        };
        let step = start(request, &context, &mut observed);
        (step, observed)
    }

    /// The answer to a request, `None` for a forward, or an answer that stands for a read.
    fn outcome(&self, request: &Request) -> Result<Answer, Why> {
        match self.step(request).0 {
            Step::Reply(reply) => Ok(reply.answer),
            Step::Forward(why) => Err(why),
            Step::Fetch(_) => Ok(Answer::Definitions),
        }
    }
}

fn request(method: &str, query: &str, headers: &[(&str, &str)]) -> Request {
    let path = format!("/flags/definitions{query}");
    let pseudo = [(":method", method), (":path", path.as_str())];
    Request::parse(
        pseudo
            .iter()
            .chain(headers)
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    )
}

fn get(query: &str, bearer: &str, if_none_match: &str) -> Request {
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

fn status_of(step: &Step<'_>) -> u16 {
    match step {
        Step::Reply(reply) => reply.answer.status(),
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
        (Freshness::Aging, Why::SnapshotAging),
        (Freshness::Expired, Why::SnapshotExpired),
        (Freshness::Missing, Why::SnapshotMissing),
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
    assert_eq!(world.outcome(&unknown), Err(Why::UnknownCredential));
    assert_eq!(world.outcome(&known_bad), Ok(Answer::ScopeMissing));
    world.freshness = Freshness::Aging;
    assert_eq!(world.outcome(&known_bad), Err(Why::SnapshotAging));
    world.freshness = Freshness::Missing;
    assert_eq!(world.outcome(&unknown), Err(Why::SnapshotMissing));
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
    let header = (crate::request::FORWARD_REASON_HEADER, "redis");
    let request = request("GET", "?token=phc_unknown", &[header]);
    assert_eq!(world.outcome(&request), Ok(Answer::Unavailable(Why::Loop)));
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
        let Step::Fetch(fetch) = world.step(&request).0 else {
            panic!("{tag} {age}: not a read");
        };
        assert_eq!(fetch.need.held, request.if_none_match.candidate());
        assert_eq!(
            fetch.known.unwrap().etag,
            ETag::new(tag.as_bytes()).unwrap()
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
    ) -> (Result<u16, Why>, Observed) {
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

#[test]
fn shared_data_that_fails_is_an_outage_and_not_a_refusal() {
    let world = world("{}");
    let request = get("?token=phc_one", "phs_one", "");
    let (step, _) = world.step_over(&Broken, &request);
    assert_eq!(status_of(&step), 503);
}

#[test]
fn what_a_read_brings() {
    let settings = Settings::default();
    let tag = |text: &str| ETag::new(text.as_bytes()).unwrap();
    let full = |etag: Option<&str>| Outcome::Full {
        etag: etag.map(tag),
        body: b"{}",
    };
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
        ("*", Outcome::Same(tag("e")), 304, ETagResult::Hit, None),
        (
            r#""e""#,
            Outcome::Same(tag("e")),
            304,
            ETagResult::Hit,
            None,
        ),
    ] {
        let request = get("?token=phc_one", "phs_one", if_none_match);
        let mut observed = Observed::default();
        let step = resume(&request, &settings, &outcome, &mut observed);
        assert_eq!(status_of(&step), status, "{if_none_match} {outcome:?}");
        assert_eq!(observed.etag, Some(etag), "{if_none_match} {outcome:?}");
        assert_eq!(observed.cache, cache, "{if_none_match} {outcome:?}");
    }
}

#[test]
fn reads_that_fail() {
    let request = get("?token=phc_one", "phs_one", r#""e""#);
    let none = Settings::default();
    let forward = Settings::from_json(br#"{"upstream":"forward"}"#).unwrap();
    for (outcome, status, why) in [
        (Outcome::Missing, 503, None),
        (Outcome::Undecodable, 500, None),
        (Outcome::Failed(Failure::TooBig), 500, None),
        (Outcome::Failed(Failure::Timeout), 503, Some(Why::Timeout)),
        (Outcome::Failed(Failure::Unavailable), 503, Some(Why::Redis)),
        (Outcome::Failed(Failure::Refused), 503, Some(Why::Redis)),
        (Outcome::Failed(Failure::Malformed), 503, Some(Why::Redis)),
        (Outcome::Failed(Failure::NotSent), 503, Some(Why::Redis)),
    ] {
        let mut observed = Observed::default();
        let step = resume(&request, &none, &outcome, &mut observed);
        assert_eq!(status_of(&step), status, "{outcome:?}");
        let step = resume(&request, &forward, &outcome, &mut observed);
        match why {
            Some(why) => assert_eq!(step, Step::Forward(why), "{outcome:?}"),
            None => assert_eq!(status_of(&step), status, "{outcome:?}"),
        }
    }
}
