//! What a read of definitions teaches, and who is answered out of it.

use serde_json::json;

use super::*;
use crate::recent::Recent;
use crate::surfaces::evaluated::library::WORKING;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SHOP: (&str, &str) = ("flagd-selector", "flagSetId=shop");
const ANN: &str = r#"{"context":{"targetingKey":"ann"}}"#;

fn held(tag: &str) -> [(&str, &str); 2] {
    [SHOP, ("if-none-match", tag)]
}

/// A document in which no rule reads the time.
fn plain() -> serde_json::Value {
    json!([{"source": "a", "document": {"flags": {"a": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"==": [{"var": "targetingKey"}, "ann"]}, "on"]}
    }}, "metadata": {"flagSetId": "shop"}}}])
}

fn timed() -> serde_json::Value {
    let mut documents = plain();
    documents[0]["document"]["flags"]["a"]["targeting"] =
        json!({"if": [{">=": [{"var": "$flagd.timestamp"}, support::NOW + 10]}, "on"]});
    documents
}

#[test]
fn who_holds_the_answer_is_told_so_and_nothing_is_evaluated() {
    let mut world = World::with("{}", &plain());
    let first = world.post(ALL, &[SHOP], ANN);
    assert_eq!(first.became, Became::Answered(200, "bulk"));
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!((tag.len(), tag.get(..3)), (36, Some("W/\"")));
    let again = world.post(ALL, &held(&tag), ANN);
    assert_eq!(again.became, Became::Answered(304, "not_modified"));
    assert_eq!((again.header("etag"), again.body.len()), (Some(&*tag), 0));
    assert_eq!(again.header("content-type"), None);
    assert_eq!(again.header("vary"), first.header("vary"));
    assert_eq!(world.evaluations(), [Evaluation::NotModified]);
    assert_eq!(world.post(ALL, &held("*"), ANN).status(), 304);
    // Another context, another selection: another tag.
    let other = r#"{"context":{"targetingKey":"bob"}}"#;
    assert_eq!(world.post(ALL, &held(&tag), other).status(), 200);
    let all = [("if-none-match", tag.as_str())];
    assert_eq!(world.post(ALL, &all, ANN).status(), 200);
    // One flag has no tag.
    let single = world.post(&format!("{ALL}/a"), &held("*"), ANN);
    assert_eq!((single.status(), single.header("etag")), (200, None));
}

/// What a repeated request depends on beside its body.
#[test]
fn a_body_that_came_before_is_answered_as_if_it_were_new() {
    let settings = r#"{"context":{"headers":{"x-key":"targetingKey"}}}"#;
    let mut world = World::with(settings, &plain());
    let as_who = |who| [SHOP, ("x-key", who)];
    let mut get = |fields: &[(&str, &str)], body: &str| {
        let got = world.post(ALL, fields, body);
        (
            got.status(),
            got.header("etag").map(str::to_owned),
            got.body,
        )
    };
    let ann = get(&as_who("ann"), "{}");
    let bob = get(&as_who("bob"), "{}");
    assert!(ann.1 != bob.1 && ann.2 != bob.2);
    assert_eq!(get(&as_who("ann"), "{}"), ann, "remembered");
    assert_eq!(get(&[SHOP], ANN), ann, "the same context");
    assert_ne!(get(&[as_who("ann")[1]], "{}").1, ann.1, "another selection");
    for _ in 0..2 {
        assert_eq!(get(&[SHOP], "[1]").0, 400);
    }
    // What is remembered is answered with, were it wrong.
    let wrong = Sha256Hash::of(b"another");
    let mut world = World::with("{}", &plain());
    let shop = Selector::FlagSet("shop".to_owned());
    let request = world.surface.unread(ALL.as_bytes());
    let name = world.surface.repeated.name(&request, &shop, b"{}").unwrap();
    let version = ETag::of_text(world.texts[1].1.as_bytes());
    world.surface.repeated.note(name, version, wrong);
    let tag = format!("\"{}\"", &wrong.to_hex()[..32]);
    assert_eq!(world.post(ALL, &held(&tag), "{}").status(), 304);
    // It is of one version.
    let mut documents = plain();
    documents[0]["document"]["flags"]["a"]["variants"]["on"] = json!("changed");
    world.publish(&documents);
    assert_eq!(world.post(ALL, &held(&tag), "{}").status(), 200);
    assert_eq!(
        world
            .surface
            .repeated
            .name(&request, &shop, &[b' '; 16_385]),
        None
    );
}

#[test]
fn a_configuration_tag_that_is_not_current_wants_the_answer() {
    let mut world = World::with("{}", &plain());
    let tag = world.post(ALL, &[SHOP], ANN);
    let tag = tag.header("etag").unwrap().to_owned();
    let escaped = tag.replace('"', "%22");
    for (told, expected) in [("%22other%22", 200), (&*escaped, 304), ("", 304)] {
        let path = format!("{ALL}?flagConfigEtag={told}");
        let found = world.post(&path, &held(&tag), ANN);
        assert_eq!(found.status(), expected, "{told}");
        assert_eq!(found.header("etag"), Some(&*tag));
    }
}

#[test]
fn an_answer_that_was_given_is_kept_and_a_bound_keeps_nothing() {
    for (settings, second) in [
        ("{}", Evaluation::Kept),
        (r#"{"answers_bytes":0}"#, Evaluation::Evaluated),
    ] {
        let mut world = World::with(settings, &plain());
        let first = world.post(ALL, &[SHOP], ANN);
        let again = world.post(ALL, &[SHOP], ANN);
        assert_eq!(world.evaluations(), [Evaluation::Evaluated, second]);
        assert_eq!(first.body, again.body);
        let gzip = world.post(ALL, &[SHOP, ("accept-encoding", "gzip")], ANN);
        assert_eq!(gzip.header("content-encoding"), Some("gzip"));
        assert_eq!(gzip.header("etag"), first.header("etag"));
    }
}

#[test]
fn a_selection_that_reads_the_time_is_evaluated_and_its_answer_is_in_the_tag() {
    let mut world = World::with("{}", &timed());
    let first = world.post(ALL, &[SHOP], ANN);
    let tag = first.header("etag").unwrap().to_owned();
    world.evaluations();
    world.ambient.0.set(Some(support::NOW + 9));
    assert_eq!(world.post(ALL, &held(&tag), ANN).status(), 304);
    assert_eq!(world.evaluations(), [Evaluation::Evaluated]);
    world.ambient.0.set(Some(support::NOW + 10));
    let later = world.post(ALL, &held(&tag), ANN);
    assert_eq!(later.status(), 200);
    assert_ne!(
        (later.header("etag"), &later.body),
        (Some(&*tag), &first.body)
    );
    // Nobody knows the time: nothing is said of it.
    world.ambient.0.set(None);
    let lost = world.post(ALL, &[SHOP], ANN);
    assert_eq!(lost.became, Became::Answered(503, "shared_data"));
    let mut world = World::with("{}", &plain());
    world.ambient.0.set(None);
    assert_eq!(world.post(ALL, &[SHOP], ANN).status(), 200);
}

#[test]
fn definitions_that_cannot_be_read_are_no_refusal() {
    let mut world = World::with("{}", &plain());
    world.answers = false;
    for path in [ALL, &format!("{ALL}/a"), &format!("{ALL}/other")] {
        let failed = world.post(path, &[SHOP, ("if-none-match", "*")], ANN);
        assert_eq!(failed.became, Became::Answered(503, "redis"));
        assert_eq!(failed.tenant, Some(world.selection("flagSetId=shop")));
        assert!(failed.json()["errorDetails"].is_string());
    }
    world.answers = true;
    assert_eq!(world.post(ALL, &[SHOP], ANN).status(), 200);
    // From then on Redis is not needed, as the publisher confirms the version.
    world.answers = false;
    assert_eq!(world.post(ALL, &[SHOP], ANN).status(), 200);
    assert_eq!(
        world.post(&format!("{ALL}/other"), &[SHOP], ANN).status(),
        404
    );
    // The one that Redis has is read, and is of no use.
    let mut world = World::with(r#"{"max_document_bytes":1024}"#, &plain());
    let place = world.selection("flagSetId=shop").0 as usize - 1;
    for text in ["", "{}", &format!("{{\"flags\":[{}]}}", " ".repeat(2_000))] {
        world.texts[place].1 = text.to_owned();
        for fields in [&[SHOP][..], &[SHOP, ("if-none-match", "*")]] {
            let found = world.post(ALL, fields, ANN).became;
            assert_eq!(found, Became::Answered(503, "redis"), "{text}");
        }
        world.surface.library.unusable = Recent::new(1, Duration::ZERO);
    }
}

#[test]
fn a_change_is_served_when_the_publisher_says_so_and_elsewhere_tags_stay() {
    let mut world = World::new("{}");
    let mobile = ("flagd-selector", "flagSetId=mobile");
    let get = |world: &mut World, of| {
        let got = world.post(ALL, &[of], ANN);
        (got.header("etag").unwrap().to_owned(), got.body)
    };
    let (shop, other) = (get(&mut world, SHOP), get(&mut world, mobile));
    let mut documents = support::recorded()["documents"].clone();
    let flags = &mut documents[1]["document"]["flags"];
    let flag = match flags {
        serde_json::Value::Array(list) => list.first_mut().unwrap(),
        flags => flags.as_object_mut().unwrap().values_mut().next().unwrap(),
    };
    flag["metadata"] = json!({"changed": true});
    world.publish(&documents);
    let after = (get(&mut world, SHOP), get(&mut world, mobile));
    let changed = [shop.0 != after.0.0, other.0 != after.1.0];
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    assert_eq!([shop.1 != after.0.1, other.1 != after.1.1], changed);
}

#[test]
fn long_definitions_are_compiled_in_slices_while_the_old_ones_answer() {
    let mut world = World::with("{}", &plain());
    world.post(ALL, &[SHOP], ANN);
    let old = world.post(ALL, &[SHOP], ANN);
    let mut documents = plain();
    let flag = documents[0]["document"]["flags"]["a"].clone();
    let flags = documents[0]["document"]["flags"].as_object_mut().unwrap();
    for number in 0..6_000 {
        flags.insert(format!("flag-{number}"), flag.clone());
    }
    world.publish(&documents);
    let meanwhile = world.post(ALL, &[SHOP], ANN);
    assert_eq!((meanwhile.status(), &meanwhile.body), (200, &old.body));
    assert_eq!(meanwhile.header("etag"), old.header("etag"));
    assert_eq!(world.surface.due_in(), WORKING);
    // Nobody is told again of one that was current at some time or other.
    world.surface.library.current = Recent::new(1, Duration::ZERO);
    let waits = world.post(ALL, &[SHOP], ANN).became;
    assert!(
        matches!(
            waits,
            Became::Waits(OfrepRead::Document(DocumentRead::Compiled { .. }))
        ),
        "{waits:?}"
    );
    let ticks = (1..500).find(|_| {
        world.tick();
        world.surface.finished().is_some()
    });
    assert!(ticks.is_some_and(|ticks| ticks > 1), "{ticks:?}");
    let new = world.post(ALL, &[SHOP], ANN);
    assert_eq!(new.json()["flags"].as_array().unwrap().len(), 6_001);
    // The old one is freed.
    world.tick();
    assert_eq!(world.surface.due_in(), IDLE);
    // Freeing a long one takes more slices than a tick does.
    world.publish(&plain());
    assert_eq!(world.post(ALL, &[SHOP], ANN).body, old.body);
    let ticks = (1..50).find(|_| {
        world.tick();
        world.surface.due_in() == IDLE
    });
    assert_eq!(ticks, Some(2));
}

#[test]
fn contexts_are_the_body_s_with_what_settings_and_headers_add() {
    let settings = r#"{"context":{"static":{"plan":"pro","os":"ios"},"headers":{"X-OS":"os"}}}"#;
    let documents = json!([{"source": "a", "document": {"flags": {"a": {
        "state": "ENABLED", "variants": {"pro ios": 1, "pro web": 2, "free": 3}, "defaultVariant": "free",
        "targeting": {"cat": [{"var": "plan"}, " ", {"var": "os"}]}
    }}}}]);
    let mut world = World::with(settings, &documents);
    let mut variant = |fields: &[(&str, &str)], body: &str| {
        let got = world.post(&format!("{ALL}/a"), fields, body).json();
        got["variant"].as_str().map(str::to_owned)
    };
    let body = r#"{"context":{"plan":"free","os":"android"}}"#;
    assert_eq!(variant(&[], "").as_deref(), Some("pro ios"));
    assert_eq!(variant(&[], body).as_deref(), Some("pro ios"));
    assert_eq!(
        variant(&[("x-os", "web")], body).as_deref(),
        Some("pro web")
    );
    assert_eq!(variant(&[("x-os", "")], body).as_deref(), Some("pro ios"));
}

#[test]
fn bodies_are_bounded() {
    let mut world = World::with(r#"{"max_body_bytes":1024}"#, &plain());
    for (length, expected) in [
        ("1024", Became::WantsBody),
        ("1025", Became::Answered(413, "body_too_long")),
    ] {
        assert_eq!(
            world.ask("POST", ALL, &[("content-length", length)]),
            expected
        );
    }
    let request = world.surface.unread(ALL.as_bytes());
    let long = got(world.surface.too_long(&request));
    assert_eq!(
        long.json(),
        json!({"errorDetails": "request body too large"})
    );
    for (values, expected) in [(40_000, "bulk"), (50_000, "body_too_long")] {
        let body = format!(r#"{{"context":{{"a":[{}0]}}}}"#, "0,".repeat(values));
        let Became::Answered(_, reason) = world.post(ALL, &[SHOP], &body).became else {
            panic!("no answer");
        };
        assert_eq!(reason, expected);
    }
}

#[test]
fn what_is_kept_and_when_it_was_read_is_told() {
    let mut world = World::with("{}", &plain());
    let told = |world: &World| {
        let mut told = Vec::new();
        let show = &mut |of: Documents| told.push((of.surface, of.kept, of.age));
        world
            .surface
            .each_documents(&world.store, &world.ambient, show);
        told
    };
    let age = Some(Duration::from_secs(4));
    assert_eq!(told(&world), [("ofrep", 0, age)]);
    world.post(ALL, &[SHOP], "");
    assert_eq!(told(&world), [("ofrep", 1, age)]);
    let buckets = Buckets::new(&world.surface.library.scope, 4);
    let live = |surfaces: &[&str]| Live {
        surfaces: surfaces.iter().map(|name| (*name).to_owned()).collect(),
        ..Live::verified("m", NOW)
    };
    let described = health::describe(Some(&live(&["ofrep"])), &world.store, &buckets);
    let described = serde_json::to_value(described).unwrap();
    assert_eq!(
        (&described["source"], &described["selections_known"]),
        (&json!(true), &json!(true))
    );
    assert!(
        described["last_read"]
            .as_str()
            .unwrap()
            .starts_with("2026-")
    );
    assert!(health::is_ready(&live(&["ofrep"]), &world.store, &buckets));
    let empty = MemoryStore::default();
    for (surfaces, expected) in [(&["ofrep"][..], false), (&["posthog"], true), (&[], true)] {
        assert_eq!(
            health::is_ready(&live(surfaces), &empty, &buckets),
            expected
        );
    }
    world.surface.settings.enabled = false;
    assert_eq!(told(&world), []);
    assert!(!world.surface.owns(ALL.as_bytes()));
}

#[test]
fn a_selection_without_flags_has_none_and_a_tag() {
    let mut documents = plain();
    documents[0]["document"]["flags"] = json!({});
    let mut world = World::with("{}", &documents);
    let text = r#"{"selector":"","flags":[]}"#.to_owned();
    assert_eq!(world.texts, [(Selector::All, text)]);
    for fields in [&[][..], &[SHOP]] {
        let known = world.post(ALL, fields, "");
        assert_eq!(known.json()["flags"], json!([]));
        let tag = known.header("etag").unwrap().to_owned();
        let held = [fields, &[("if-none-match", &*tag)]].concat();
        assert_eq!(world.post(ALL, &held, "").status(), 304);
    }
    assert_eq!(
        etag("0000000000000000").as_bytes().len(),
        ETag::of_text(EMPTY).as_bytes().len()
    );
}

/// As it is for a moment where the publisher gives a number to another selection.
#[test]
fn what_another_selection_has_under_the_number_is_no_document() {
    let single = format!("{ALL}/a");
    for (settings, expected) in [
        ("{}", Became::Answered(503, "redis")),
        (r#"{"upstream":"forward"}"#, Became::Forwarded("redis")),
    ] {
        let mut documents = plain();
        let other = json!({"key": "a", "variants": {"v": "hidden"}, "defaultVariant": "v",
            "metadata": {"flagSetId": "other"}});
        documents
            .as_array_mut()
            .unwrap()
            .push(json!({"source": "b", "document": {"flags": [other]}}));
        let mut world = World::with(settings, &documents);
        let tag = world.post(ALL, &[SHOP], ANN);
        let tag = tag.header("etag").unwrap().to_owned();
        let others = OfrepRecord::Selection(world.selection("flagSetId=other"));
        world.put(selection_hash("flagSetId=shop"), &others);
        world.forget();
        for (path, fields) in [
            (ALL, &held("*")[..]),
            (ALL, &held(&tag)),
            (&*single, &[SHOP]),
        ] {
            assert_eq!(world.post(path, fields, ANN).became, expected);
        }
        // Whose it is gets it.
        let own = [("flagd-selector", "flagSetId=other")];
        assert_eq!(world.post(ALL, &own, ANN).status(), 200);
        // Its own document comes back.
        let own = OfrepRecord::Selection(world.selection("flagSetId=shop"));
        world.put(selection_hash("flagSetId=shop"), &own);
        world.forget();
        assert_eq!(world.post(ALL, &held(&tag), ANN).status(), 304);
    }
}
