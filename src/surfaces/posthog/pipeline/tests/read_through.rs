//! Who is known from PostHog's own cache, and who may be refused because of it.

use super::*;
use crate::surfaces::posthog::read_through::{self, Known, Miss, table};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
