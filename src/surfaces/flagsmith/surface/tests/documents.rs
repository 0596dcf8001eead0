//! What a read of a document teaches, and who is answered out of it.

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
    let mut long: serde_json::Value = serde_json::from_slice(DOCUMENT).unwrap();
    let overrides = long["identity_overrides"].as_array().unwrap().clone();
    let more = (0..2_000).map(|_| overrides[0].clone());
    long["identity_overrides"] = more.collect();
    let long = zipped(long.to_string().as_bytes());
    let landed = world.land(Ok([b"full", b"v2", &long]));
    assert!(matches!(landed, FlagsmithLanded::Compiling(_)));
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    // Nobody is told again of one that was current at some time or other, and of the whole one that is not current.
    world.surface.current = Recent::new(1, Duration::ZERO);
    let compiled = FlagsmithRead::Compiled {
        environment: ENVIRONMENT,
        version: etag("v2"),
    };
    let waits = Became::Waits(compiled);
    assert_eq!(world.resume(&landed, "client"), waits);
    // A newer one takes its place, and whoever waited goes on with that.
    let newest = world.land(Ok([b"full", b"v3", &old]));
    assert!(matches!(newest, FlagsmithLanded::Read(_)));
    let (read, landed) = world.surface.finished().unwrap();
    let dropped = FlagsmithRead::Compiled {
        environment: ENVIRONMENT,
        version: etag("v2"),
    };
    assert_eq!(read, dropped);
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    assert!(world.surface.workshop.is_empty());
    // Who has no old one waits for it.
    let mut world = World::new("{}");
    let landed = world.land(Ok([b"full", b"v2", &long]));
    let compiled = FlagsmithRead::Compiled {
        environment: ENVIRONMENT,
        version: etag("v2"),
    };
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Waits(compiled.clone())
    );
    assert!(world.surface.fetch(&compiled).is_some());
    assert_eq!(world.surface.due_in(), BUSY);
    let mut ticks = 0;
    let (read, landed) = loop {
        let mut machinery = Machinery {
            store: &world.store,
            now: Monotonic::from_millis(NOW),
            ambient: &world.ambient,
            counts: &mut world.counted,
        };
        world.surface.tick(true, &mut machinery);
        ticks += 1;
        assert!(ticks < 200);
        if let Some(finished) = world.surface.finished() {
            break finished;
        }
    };
    assert!(ticks > 5, "{ticks}");
    assert_eq!(read, compiled);
    assert_eq!(
        world.resume(&landed, "client"),
        Became::Answered(200, "flags")
    );
    assert_eq!(world.surface.due_in(), IDLE);
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
        let fields: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b"x-environment-key", b"client")];
        let request = world.surface.parse(FLAGS.as_bytes(), fields.into_iter());
        let mut machinery = Machinery {
            store: &world.store,
            now: Monotonic::from_millis(NOW),
            ambient: &world.ambient,
            counts: &mut world.counted,
        };
        let Step::Reply(response, _) = world.surface.start(&request, &mut machinery).step else {
            panic!("no reply");
        };
        assert_eq!(
            (response.status, response.extra.len()),
            (200, usize::from(is_sent))
        );
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
        let fields: [(&[u8], &[u8]); 3] = [
            (b":method", b"POST"),
            (b"x-environment-key", b"client"),
            (b"content-type", b"application/json"),
        ];
        let request = world
            .surface
            .parse(b"/api/v1/identities", fields.into_iter());
        let mut machinery = Machinery {
            store: &world.store,
            now: Monotonic::from_millis(NOW),
            ambient: &world.ambient,
            counts: &mut world.counted,
        };
        let carried = world.surface.start(&request, &mut machinery).carried;
        let step = world
            .surface
            .body(&request, &carried, body.as_bytes(), &mut machinery)
            .step;
        let Became::Answered(_, reason) = became(step) else {
            panic!("no answer");
        };
        assert_eq!(reason, expected);
    }
}
