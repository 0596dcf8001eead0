//! What a read of a document teaches, and who is answered out of it.

use std::borrow::Cow;

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_document_that_was_read_answers_all_and_a_failure_is_no_refusal() {
    let mut world = World::new("{}");
    for (reply, expected) in [
        (Err(Failure::Timeout), (503, "timeout")),
        (Err(Failure::Unavailable), (503, "redis")),
        (Ok([&b"what"[..], b"v", b""]), (503, "redis")),
        (Ok([b"none", b"", b""]), (503, "environment_not_loaded")),
        (
            Ok([b"full", b"v1", b"no gzip"]),
            (503, "environment_not_loaded"),
        ),
    ] {
        let landed = world.land(reply);
        let found = world.resume(&landed, "client");
        assert_eq!(found, Became::Answered(expected.0, expected.1));
    }
    let text = zipped(DOCUMENT);
    let landed = world.land(Ok([b"full", b"v1", &text]));
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    // Confirmed by that read, and kept.
    assert_eq!(world.get(FLAGS, "ser.one"), Became::Answered(200, "flags"));
    assert_eq!(
        world.get("/api/v1/flags?feature=nope", "client"),
        Became::Answered(404, "feature_not_found")
    );
    let tag = [("if-none-match", "\"v1\"")];
    assert_eq!(
        world.ask("GET", WHOLE, "ser.one", &tag),
        Became::Answered(304, "not_modified")
    );
    for (date, status) in [
        // The document is of 2026, and this clock's time is before it: nothing that this clock knows.
        ("Mon, 04 May 2026 03:02:02 GMT", 200),
        ("Fri, 01 Jan 2038 00:00:00 GMT", 200),
        ("Mon, 04 May 2020 03:02:01 GMT", 200),
        ("yesterday", 200),
    ] {
        let found = world.ask("GET", WHOLE, "ser.one", &[("if-modified-since", date)]);
        assert_eq!(
            found,
            Became::Answered(status, "environment_document"),
            "{date}"
        );
    }
    world.ambient.1.set(1_800_000_000);
    for (date, status) in [
        ("Mon, 04 May 2026 03:02:02 GMT", 304),
        // The document was updated within that second: another version of it may have been held.
        ("Mon, 04 May 2026 03:02:01 GMT", 200),
        ("Fri, 01 Jan 2038 00:00:00 GMT", 200),
    ] {
        let fields = [("if-modified-since", date)];
        let found = world.ask("GET", WHOLE, "ser.one", &fields);
        let Became::Answered(found, _) = found else {
            panic!("{found:?}");
        };
        assert_eq!(found, status, "{date}");
        let with_tag = [fields[0], ("if-none-match", "\"other\"")];
        let found = world.ask("GET", WHOLE, "ser.one", &with_tag);
        assert_eq!(
            found,
            Became::Answered(200, "environment_document"),
            "a tag says more"
        );
    }
    let evaluations: Vec<_> = world
        .counted
        .0
        .iter()
        .filter(|count| matches!(count, FlagsmithCount::Evaluation(_)))
        .collect();
    assert_eq!(evaluations.len(), 2, "one for each kind of key");
}

#[test]
fn the_publisher_s_word_on_a_version_makes_the_next_request_read_it() {
    let mut world = World::new("{}");
    let text = zipped(DOCUMENT);
    world.land(Ok([b"full", b"v1", &text]));
    world.version("v1");
    assert_eq!(world.get(FLAGS, "client"), Became::Answered(200, "flags"));
    let mut world = World::new("{}");
    world.version("v2");
    world.land(Ok([b"full", b"v1", &text]));
    // The callout was sent when the publisher had not published v2 yet, or after it: its word counts.
    let found = world.get(FLAGS, "client");
    assert_eq!(found, Became::Waits(read(Some("v1"))));
}

#[test]
fn a_long_document_is_compiled_in_slices_while_the_old_one_answers() {
    let mut world = World::new("{}");
    let old = zipped(DOCUMENT);
    world.land(Ok([b"full", b"v1", &old]));
    assert_eq!(world.get(FLAGS, "client"), Became::Answered(200, "flags"));
    let long = long_document(1 << 20);
    let landed = world.land(Ok([b"full", b"v2", &long]));
    assert!(matches!(landed, FlagsmithLanded::Compiling(_)));
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    // Nobody is told again of one that was current at some time or other, and of the whole one that is not current.
    world.surface.library.current = Recent::new(1, Duration::ZERO);
    let compiled = FlagsmithRead::Compiled {
        tenant: ENVIRONMENT,
        version: etag("v2"),
    };
    let waits = Became::Waits(compiled);
    assert_eq!(world.resume(&landed, "client"), waits);
    // A newer one takes its place, and whoever waited goes on with that.
    let newest = world.land(Ok([b"full", b"v3", &old]));
    assert!(matches!(newest, FlagsmithLanded::Read(_)));
    let (read, landed) = world.surface.finished().unwrap();
    let dropped = FlagsmithRead::Compiled {
        tenant: ENVIRONMENT,
        version: etag("v2"),
    };
    assert_eq!(read, dropped);
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    assert!(world.surface.library.workshop.is_empty());
    // Who has no old one waits for it.
    let mut world = World::new("{}");
    let landed = world.land(Ok([b"full", b"v2", &long]));
    let compiled = FlagsmithRead::Compiled {
        tenant: ENVIRONMENT,
        version: etag("v2"),
    };
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Waits(compiled.clone())
    );
    assert!(world.surface.fetch(&compiled).is_some());
    assert_eq!(world.surface.due_in(), WORKING);
    // A slice takes a millisecond.
    world.ambient.2.set((0, 1_000));
    let (ticks, (read, landed)) = finish(&mut world);
    assert!(ticks > 5, "{ticks}");
    assert_eq!(read, compiled);
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    assert_eq!(world.surface.due_in(), IDLE);
}

/// Ticks until something is finished, and what that is.
fn finish(world: &mut World) -> (usize, (FlagsmithRead, FlagsmithLanded)) {
    for ticks in 1..200 {
        world.tick();
        if let Some(finished) = world.surface.finished() {
            return (ticks, finished);
        }
    }
    panic!("it is never finished");
}

/// A document with a text of about this length, in gzip form.
fn long_document(length: usize) -> Vec<u8> {
    let mut document: serde_json::Value = serde_json::from_slice(DOCUMENT).unwrap();
    let one = document["identity_overrides"][0].clone();
    let count = length / one.to_string().len() + 1;
    document["identity_overrides"] = (0..count).map(|_| one.clone()).collect();
    zipped(document.to_string().as_bytes())
}

#[test]
fn a_tick_does_as_many_slices_as_there_is_time_for() {
    let text = long_document(2 << 20);
    // Some 64 slices, and those of the landing.
    for (each, fails, least, most) in [
        (3_000, false, 50, 80),
        (1_000, false, 25, 35),
        // However short they seem to be.
        (0, false, 5, 12),
        (0, true, 50, 80),
    ] {
        let mut world = World::new("{}");
        let landed = world.land(Ok([b"full", b"v1", &text]));
        assert!(matches!(landed, FlagsmithLanded::Compiling(_)));
        world.ambient.0.set(!fails);
        world.ambient.2.set((0, each));
        let (ticks, _) = finish(&mut world);
        assert!((least..=most).contains(&ticks), "{each}: {ticks}");
    }
}

#[test]
fn a_version_that_is_of_no_use_is_not_read_for_each_request() {
    let text = long_document(100_000);
    for (settings, kind, text) in [
        ("{}", &b"full"[..], &b"no gzip"[..]),
        (r#"{"max_document_bytes":50000}"#, b"full", &text),
        // Redis itself says that it is, and does not bring it.
        ("{}", b"long", b""),
    ] {
        let not_loaded = Became::Answered(503, "environment_not_loaded");
        let mut world = World::new(settings);
        let landed = world.land(Ok([kind, b"v1", text]));
        assert!(matches!(landed, FlagsmithLanded::Missing));
        world.version("v1");
        assert_eq!(world.get(FLAGS, "client"), not_loaded);
        assert_eq!(world.get(WHOLE, "ser.one"), not_loaded);
        // Where Redis has to be asked for the version, it does not bring that text again.
        let landed = world.land(Ok([b"same", b"v1", b""]));
        assert_eq!(world.resume(&landed, "client"), not_loaded);
        let stale = Monotonic::from_millis(NOW + 3_000);
        world.surface.library.unusable = Recent::new(BUDGETS, UNUSABLE);
        world
            .surface
            .library
            .unusable
            .note(ENVIRONMENT, etag("v1"), stale);
        world.surface.library.confirmations =
            Confirmations::new(Table::new(&Scope::new("x", &[]), "", 1));
        world.put(version_hash(ENVIRONMENT), &FlagsmithRecord::Tombstone);
        world.surface.library.versions = Recent::new(1, Duration::ZERO);
        let asks = Became::Waits(read(Some("v1")));
        assert_eq!(world.get(FLAGS, "client"), asks);
        // Another version is read, and so is this one after a while.
        world.surface.library.unusable = Recent::new(BUDGETS, Duration::ZERO);
        assert_eq!(world.get(FLAGS, "client"), Became::Waits(read(None)));
    }
}

#[test]
fn a_long_text_is_inflated_in_slices_for_who_takes_no_gzip_and_then_kept() {
    let whole = Became::Answered(200, "environment_document");
    let text = long_document(2 << 20);
    let compiled = |world: &mut World| {
        world.land(Ok([b"full", b"v1", &text]));
        finish(world);
        world.version("v1");
    };
    let mut world = World::new("{}");
    compiled(&mut world);
    let before = world
        .surface
        .library
        .kept
        .get(ENVIRONMENT, &etag("v1"))
        .unwrap();
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(world.ask("GET", WHOLE, "ser.one", &gzip), whole);
    let waits = Became::Waits(FlagsmithRead::Compiled {
        tenant: ENVIRONMENT,
        version: etag("v1"),
    });
    assert_eq!(world.get(WHOLE, "ser.one"), waits);
    assert_eq!(world.get(WHOLE, "ser.one"), waits, "they share it");
    assert_eq!(world.get(FLAGS, "client"), Became::Answered(200, "flags"));
    let (_, (_, landed)) = finish(&mut world);
    let FlagsmithLanded::Read(document) = landed else {
        panic!("no document");
    };
    let text_length = document.text_at_hand().unwrap().len();
    assert_eq!(text_length, before.text_length());
    assert_eq!(document.weight(), before.weight() + text_length);
    assert_eq!(world.get(WHOLE, "ser.one"), whole);
    assert!(world.surface.library.workshop.is_empty());
    // Where there is no room for it, the rest stays.
    let limit = before.weight() + 10_000;
    let mut world = World::new(&format!(r#"{{"documents_bytes":{limit}}}"#));
    compiled(&mut world);
    assert_eq!(world.get(WHOLE, "ser.one"), waits);
    finish(&mut world);
    assert_eq!(world.get(FLAGS, "client"), Became::Answered(200, "flags"));
    assert_eq!(world.get(WHOLE, "ser.one"), waits);
}

#[test]
fn pages_of_another_origin_see_as_of_when_flags_are() {
    let mut world = World::new("{}");
    world.land(Ok([b"full", b"v1", &zipped(DOCUMENT)]));
    for (origin, expected) in [
        (None, None),
        (Some("https://a"), Some("x-flagsmith-document-updated-at")),
    ] {
        let mut fields = vec![(":method", "GET"), ("x-environment-key", "client")];
        fields.extend(origin.map(|origin| ("origin", origin)));
        let (_, extra) = extra_fields(&mut world, &fields);
        let exposed = extra
            .iter()
            .find(|(name, _)| *name == "access-control-expose-headers");
        let exposed = exposed.map(|(_, value)| String::from_utf8_lossy(value));
        assert_eq!(exposed.as_deref(), expected);
    }
}

/// Name and value.
type ExtraField = (&'static str, Cow<'static, [u8]>);

/// Status of the reply to a request for flags, and the fields that not every answer has.
fn extra_fields(world: &mut World, fields: &[(&str, &str)]) -> (u16, Vec<ExtraField>) {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let request = world.surface.parse(FLAGS.as_bytes(), fields);
    let mut machinery = Machinery {
        store: &world.store,
        now: Monotonic::from_millis(NOW),
        ambient: &world.ambient,
        counts: &mut world.counted,
    };
    let Step::Reply(response, _) = world.surface.start(&request, &mut machinery).step else {
        panic!("no reply");
    };
    (response.status, response.extra)
}

#[test]
fn a_document_says_no_more_in_a_header_field_than_a_date() {
    for (updated_at, is_sent) in [
        ("2026-05-04T03:02:01.654321+00:00", true),
        ("2026\r\nx-injected: 1", false),
        ("2026\u{0}", false),
        (&*"2".repeat(65), false),
    ] {
        let mut document: serde_json::Value = serde_json::from_slice(DOCUMENT).unwrap();
        document["updated_at"] = updated_at.into();
        let mut world = World::new("{}");
        let text = zipped(document.to_string().as_bytes());
        world.land(Ok([b"full", b"v1", &text]));
        let fields = [(":method", "GET"), ("x-environment-key", "client")];
        let (status, extra) = extra_fields(&mut world, &fields);
        assert_eq!((status, extra.len()), (200, usize::from(is_sent)));
    }
}

#[test]
fn a_body_of_too_many_values_is_too_long() {
    let mut world = World::new("{}");
    let text = zipped(DOCUMENT);
    world.land(Ok([b"full", b"v1", &text]));
    for (values, expected) in [(40_000, "identity"), (50_000, "body_too_long")] {
        let values = "0,".repeat(values);
        let body = format!(
            r#"{{"identifier":"a","traits":[{{"trait_key":"k","trait_value":[{values}0]}}]}}"#
        );
        let reason = world.identify(&body);
        assert_eq!(reason, expected);
    }
}

#[test]
fn what_is_kept_and_when_it_was_polled_is_told() {
    let mut world = World::new("{}");
    let told = |world: &World| {
        let mut told = Vec::new();
        let show = &mut |of: Documents| told.push((of.kept, of.age));
        let surface = &world.surface;
        surface.each_documents(&world.store, &world.ambient, show);
        told
    };
    assert_eq!(told(&world), [(0, None)]);
    world.land(Ok([b"full", b"v1", &zipped(DOCUMENT)]));
    let polled = |oldest| {
        let listed = vec![(ENVIRONMENT, oldest), (Tenant(10), 0)];
        FlagsmithRecord::Polled(Polled {
            oldest,
            count: 300,
            listed,
        })
    };
    world.put(polled_hash(), &polled(0));
    assert_eq!(told(&world), [(1, None)], "one was never polled");
    world.put(polled_hash(), &polled(UNIX * 1_000 - 4_000));
    assert_eq!(told(&world), [(1, Some(Duration::from_secs(4)))]);
    // The same in health.
    world.version("v1");
    let state = EnvironmentState {
        condition: Condition::Failing,
        since: 1_000,
    };
    world.put(state_hash(ENVIRONMENT), &FlagsmithRecord::State(state));
    let buckets = Buckets::new(&world.surface.library.scope, 4);
    let health = health::describe(None, &world.store, &buckets, world.ambient.unix());
    let health = serde_json::to_value(health).unwrap();
    assert_eq!(health["environment_count"], 300);
    let expected = serde_json::json!([
        {
            "environment": 9, "version": "v1", "state": "failing",
            "since": "1970-01-01T00:00:01.000000000Z", "poll_age_ms": 4_000
        },
        {"environment": 10, "version": null, "state": null, "since": null, "poll_age_ms": null},
    ]);
    assert_eq!(health["environments"], expected);
    world.surface.settings.enabled = false;
    assert_eq!(told(&world), []);
}

#[test]
fn a_version_whose_evaluation_was_cut_short_is_remembered() {
    let mut document: serde_json::Value = serde_json::from_slice(DOCUMENT).unwrap();
    let segments = (0..1_000).map(|id| {
        serde_json::json!({"id": id, "name": "s", "feature_states": [document["feature_states"][0]], "rules": [{
            "type": "ALL", "rules": [],
            "conditions": [{"operator": "CONTAINS", "property_": "t", "value": format!("aab{id}")}]
        }]})
    });
    document["project"]["segments"] = segments.collect();
    let mut world = World::new("{}");
    world.land(Ok([
        b"full",
        b"v1",
        &zipped(document.to_string().as_bytes()),
    ]));
    let now = Monotonic::from_millis(NOW);
    for _ in 0..200 {
        world.tick();
    }
    world.version("v1");
    for (length, expected) in [(40, None), (1 << 20, Some(etag("v1")))] {
        let text = "a".repeat(length);
        let body = format!(
            r#"{{"identifier":"a","traits":[{{"trait_key":"t","trait_value":"{text}"}}]}}"#
        );
        assert_eq!(world.identify(&body), "identity");
        let told = world.surface.cut_short.get(&ENVIRONMENT, now).cloned();
        assert_eq!(told, expected, "{length}");
    }
}
