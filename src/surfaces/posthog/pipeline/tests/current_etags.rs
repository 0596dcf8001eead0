//! Which ETag counts as current: confirmed by a callout, or published and under a watermark.

use super::*;
use crate::surfaces::posthog::directory::access::AuthMethod;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
