//! What is done in slices: long bodies, and all flags of long selections.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::json;

use super::*;
use crate::surfaces::evaluated::library::WORKING;
use crate::surfaces::ofrep::flagd::{EvaluationContext, Fractional};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SHOP: (&str, &str) = ("flagd-selector", "flagSetId=shop");
const GZIP: (&str, &str) = ("accept-encoding", "gzip");
const ANN: &str = r#"{"context":{"targetingKey":"ann"}}"#;
const FLAGS: usize = 2_000;

/// Many flags, each with this rule.
fn many(rule: &serde_json::Value) -> serde_json::Value {
    let flag = json!({
        "state": "ENABLED", "variants": {"on": true, "off": "x".repeat(100)}, "defaultVariant": "off",
        "targeting": rule
    });
    let flags = (0..FLAGS).map(|number| (format!("flag-{number}"), flag.clone()));
    let flags: serde_json::Map<_, _> = flags.collect();
    json!([{"source": "a", "document": {"flags": flags, "metadata": {"flagSetId": "shop"}}}])
}

fn untimed() -> serde_json::Value {
    json!({"if": [{"==": [{"var": "targetingKey"}, "nobody"]}, "on"]})
}

fn timed() -> serde_json::Value {
    json!({"if": [{">=": [{"var": "$flagd.timestamp"}, support::NOW + 10]}, "on"]})
}

/// What a short selection would be answered with.
fn expected(world: &World, body: &str) -> Vec<u8> {
    let selector = Selector::FlagSet("shop".to_owned());
    let place = world.selection("flagSetId=shop").0 as usize - 1;
    let selection = support::compile_in(world.texts[place].1.as_bytes(), 1 << 20).unwrap();
    let context = EvaluationContext::parse(body.as_bytes()).unwrap();
    let answer = selection.bulk(&selector, &context, Fractional::V2, support::NOW);
    answer.body
}

#[test]
fn a_long_body_is_read_in_slices_and_is_as_good_as_a_short_one() {
    let documents = json!([{"source": "a", "document": {"flags": {"a": {
        "state": "ENABLED", "variants": {"ann web": 1, "else": 2}, "defaultVariant": "else",
        "targeting": {"cat": [{"var": "targetingKey"}, " ", {"var": "os"}]}
    }}, "metadata": {"flagSetId": "shop"}}}]);
    let mut world = World::with(r#"{"context":{"headers":{"x-os":"os"}}}"#, &documents);
    let os = ("x-os", "web");
    let short = world.post(ALL, &[SHOP, os], ANN);
    assert_eq!((short.status(), world.ticks), (200, 0));
    // The same context, as a client may write it.
    let long = ANN.replace(',', &format!(",{}", " ".repeat(300_000)));
    let long = long.replace("{\"t", &format!("{}{{\"t", " ".repeat(300_000)));
    let same = world.post(ALL, &[SHOP, os], &long);
    assert_eq!((same.status(), &same.body), (200, &short.body));
    assert_eq!(same.headers, short.headers);
    assert!(world.ticks > 0);
    let tag = short.header("etag").unwrap().to_owned();
    let held = [SHOP, os, ("if-none-match", tag.as_str())];
    assert_eq!(world.post(ALL, &held, &long).status(), 304);
    let one = world.post(&format!("{ALL}/a"), &[SHOP, os], &long);
    assert_eq!(one.json()["variant"], json!("ann web"));
    // Many values take more than a tick.
    let values = "[true,{\"b\":null}],".repeat(12_000);
    let many = format!(r#"{{"context":{{"targetingKey":"ann","l":[{values}1]}}}}"#);
    world.ticks = 0;
    let other = world.post(ALL, &[SHOP, os], &many);
    assert_eq!((other.status(), &other.body), (200, &short.body));
    assert_ne!(other.header("etag"), Some(&*tag));
    assert!(world.ticks > 1, "{}", world.ticks);
    // What is no context is refused, and the empty selection is one.
    let cut = many.get(..many.len() - 2).unwrap();
    let refused = world.post(ALL, &[SHOP], cut);
    assert_eq!(refused.became, Became::Answered(400, "invalid_context"));
    let unknown = world.post(ALL, &[("flagd-selector", "flagSetId=none")], &many);
    assert_eq!(unknown.json()["flags"], json!([]));
    assert_eq!(world.surface.due_in(), IDLE);
}

#[test]
fn all_flags_of_a_long_selection_are_evaluated_in_slices() {
    let mut world = World::with(r#"{"documents_bytes":8000000}"#, &many(&untimed()));
    // Its definitions are compiled first.
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    world.evaluations();
    world.ticks = 0;
    let body = r#"{"context":{"targetingKey":"bob"}}"#;
    let got = world.post(ALL, &[SHOP], body);
    assert_eq!(got.became, Became::Answered(200, "bulk"));
    assert!(world.ticks > 0 && got.body.len() > 128 << 10);
    assert_eq!(got.body, expected(&world, body));
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    let tag = got.header("etag").unwrap().to_owned();
    let zipped = world.post(ALL, &[SHOP, GZIP], body);
    let mut text = Vec::new();
    GzDecoder::new(&*zipped.body)
        .read_to_end(&mut text)
        .unwrap();
    assert_eq!(text, got.body);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.header("etag"), Some(&*tag));
    // Who holds it gets 304 at once.
    world.evaluations();
    world.ticks = 0;
    let held = [SHOP, ("if-none-match", tag.as_str())];
    assert_eq!(world.post(ALL, &held, body).status(), 304);
    assert_eq!(
        (world.evaluations(), world.ticks),
        (vec![Evaluation::NotModified], 0)
    );
    // Equal questions share one answer.
    let new = r#"{"context":{"targetingKey":"carl"}}"#;
    let ask = |world: &mut World| world.asked(ALL, &[SHOP], new);
    let (first, second) = (ask(&mut world), ask(&mut world));
    assert!(matches!(first, Became::Waits(OfrepRead::Answer(_))));
    assert_eq!(first, second);
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    assert_eq!(world.surface.due_in(), WORKING);
    // A tick does slices, or ends in answers.
    while !world.surface.long.is_empty() {
        world.tick();
        assert!(world.surface.finished().is_none());
    }
    assert_eq!(world.surface.due_in(), WORKING);
    world.tick();
    assert!(world.surface.finished().is_some());
}

#[test]
fn a_long_answer_that_rests_on_the_time_has_a_tag_by_what_it_says() {
    let mut world = World::with("{}", &many(&timed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    let first = world.post(ALL, &[SHOP], ANN);
    assert_eq!(first.body, expected(&world, ANN));
    let tag = first.header("etag").unwrap().to_owned();
    let held = [SHOP, ("if-none-match", tag.as_str())];
    world.ambient.0.set(Some(support::NOW + 9));
    assert_eq!(world.post(ALL, &held, ANN).status(), 304);
    world.ambient.0.set(Some(support::NOW + 10));
    let later = world.post(ALL, &held, ANN);
    assert_eq!(later.status(), 200);
    assert_ne!(
        (later.header("etag"), &later.body),
        (Some(&*tag), &first.body)
    );
}

#[test]
fn no_more_is_begun_than_there_is_room_for_and_what_is_left_is_freed() {
    let mut world = World::with("{}", &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    let body = |user: usize| format!(r#"{{"context":{{"targetingKey":"{user}"}}}}"#);
    for user in 0..64 {
        let became = world.asked(ALL, &[SHOP], &body(user));
        assert!(matches!(became, Became::Waits(_)), "{user}");
    }
    let refused = Became::Answered(503, "overloaded");
    assert_eq!(world.asked(ALL, &[SHOP], &body(64)), refused);
    let padded = format!("{}{ANN}", " ".repeat(20_000));
    assert_eq!(world.asked(ALL, &[SHOP], &padded), refused);
    // The definitions give way meanwhile, and are taken apart when the last answer of them is there.
    world.surface.library.kept = crate::documents::Kept::new(0);
    let ticks = (1..2_000).find(|_| {
        world.tick();
        while world.surface.finished().is_some() {}
        world.surface.due_in() == IDLE
    });
    assert!(ticks.is_some_and(|ticks| ticks > 16), "{ticks:?}");
    // Bodies are bounded by their bytes as well.
    let mut world = World::with(r#"{"max_body_bytes":8388608}"#, &many(&untimed()));
    let long = format!("{}{ANN}", " ".repeat(6_000_000));
    for _ in 0..2 {
        assert!(matches!(world.asked(ALL, &[SHOP], &long), Became::Waits(_)));
    }
    assert_eq!(world.asked(ALL, &[SHOP], &long), refused);
}

#[test]
fn a_long_answer_is_kept_in_the_forms_that_were_asked_for() {
    let mut world = World::with("{}", &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    world.evaluations();
    let first = world.post(ALL, &[SHOP], ANN);
    assert!(first.body.len() > 256 << 10, "{}", first.body.len());
    assert_eq!(world.evaluations(), [Evaluation::Kept]);
    // Its gzip form takes too long to be made at once.
    world.ticks = 0;
    let zipped = world.post(ALL, &[SHOP, GZIP], ANN);
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    assert!(world.ticks > 0 && zipped.header("content-encoding") == Some("gzip"));
    world.ticks = 0;
    for fields in [&[SHOP, GZIP][..], &[SHOP]] {
        let again = world.post(ALL, fields, ANN);
        assert_eq!(again.header("etag"), first.header("etag"));
    }
    assert_eq!(
        (world.evaluations(), world.ticks),
        (vec![Evaluation::Kept; 2], 0)
    );
    // One answer may take a quarter of what is kept.
    let settings = format!(r#"{{"answers_bytes":{}}}"#, first.body.len() * 3);
    let mut world = World::with(&settings, &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    world.evaluations();
    world.post(ALL, &[SHOP], ANN);
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    // One that rests on the time is not kept.
    let mut world = World::with("{}", &many(&timed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    assert!(world.surface.answers.is_empty());
}

#[test]
fn what_nobody_waits_for_any_more_is_freed_and_not_done() {
    let mut world = World::with(r#"{"max_body_bytes":8388608}"#, &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    let long = format!("{}{ANN}", " ".repeat(6_000_000));
    let bob = r#"{"context":{"targetingKey":"bob"}}"#;
    for body in [bob, &long, &long] {
        let Became::Waits(read) = world.asked(ALL, &[SHOP], body) else {
            panic!("it is short");
        };
        world.surface.abandoned(&read);
    }
    // What is not freed yet takes room.
    let refused = Became::Answered(503, "overloaded");
    assert_eq!(world.asked(ALL, &[SHOP], &long), refused);
    world.tick();
    assert!(world.surface.long.is_empty());
    world.tick();
    assert!(world.surface.finished().is_none());
    for body in [&long, &long] {
        assert!(matches!(world.asked(ALL, &[SHOP], body), Became::Waits(_)));
    }
    // Freeing takes slices.
    let mut world = World::with("{}", &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    let padded = format!("{}{ANN}", " ".repeat(20_000));
    for _ in 0..20 {
        if let Became::Waits(read) = world.asked(ALL, &[SHOP], &padded) {
            world.surface.abandoned(&read);
        }
    }
    for is_over in [false, false, true] {
        world.tick();
        assert_eq!(world.surface.long.is_empty(), is_over);
    }
}

#[test]
fn contexts_of_answers_that_are_being_made_are_bounded() {
    let mut world = World::with("{}", &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    // Some 3 MB each, once they are read.
    let body = |user: usize| {
        let values = "1,".repeat(7_500);
        format!(r#"{{"context":{{"targetingKey":"{user}","l":[{values}1]}}}}"#)
    };
    for user in 0..5 {
        let became = world.asked(ALL, &[SHOP], &body(user));
        assert!(matches!(became, Became::Waits(OfrepRead::Answer(_))));
    }
    let refused = Became::Answered(503, "overloaded");
    assert_eq!(world.asked(ALL, &[SHOP], &body(5)), refused);
    // Who asks for the same needs none.
    let same = world.asked(ALL, &[SHOP], &body(4));
    assert!(matches!(same, Became::Waits(OfrepRead::Answer(_))));
}

#[test]
fn an_answer_that_is_about_to_be_given_is_not_made_again() {
    let mut world = World::with(r#"{"answers_bytes":0}"#, &many(&untimed()));
    while !matches!(world.post(ALL, &[SHOP], ANN).became, Became::Answered(..)) {
        world.tick();
    }
    let first = world.asked(ALL, &[SHOP], ANN);
    while !world.surface.long.is_empty() {
        world.tick();
    }
    world.evaluations();
    assert_eq!(world.asked(ALL, &[SHOP], ANN), first);
    assert_eq!(world.evaluations(), []);
    assert!(world.surface.long.is_empty());
}
