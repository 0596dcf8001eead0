//! The order of checks, and when somebody is refused.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const KEYED: &str = r#"{"keys":"required"}"#;
const SHOP: (&str, &str) = ("flagd-selector", "flagSetId=shop");

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[test]
fn checks_come_in_their_order() {
    let mut world = World::new(r#"{"keys":"required","rate_limit":"1/minute"}"#);
    world.key("all", None);
    let (key, wrong) = (("x-api-key", "all"), ("x-api-key", "nobody"));
    let bad = ("flagd-selector", "team=x");
    let long = ("content-length", "1000001");
    let grpc = ("content-type", "application/grpc");
    let preflight = [
        ("origin", "https://a"),
        ("access-control-request-method", "POST"),
    ];
    for (method, path, fields, expected) in [
        (
            "OPTIONS",
            ALL,
            &[grpc, preflight[0], preflight[1]][..],
            (415, "unsupported_media_type"),
        ),
        ("OPTIONS", ALL, &preflight[..], (204, "preflight")),
        ("OPTIONS", ALL, &preflight[..1], (405, "method_not_allowed")),
        (
            "GET",
            &format!("{ALL}/a/b"),
            &[],
            (405, "method_not_allowed"),
        ),
        (
            "POST",
            &format!("{ALL}/a%2Fb"),
            &[wrong],
            (404, "no_flag_named"),
        ),
        ("POST", ALL, &[wrong, bad, long], (401, "unauthorized")),
        ("POST", ALL, &[key, bad, long], (400, "invalid_selector")),
        ("POST", ALL, &[key, long], (413, "body_too_long")),
        ("POST", ALL, &[key, long], (429, "rate_limited")),
    ] {
        let found = world.ask(method, path, fields);
        assert_eq!(
            found,
            Became::Answered(expected.0, expected.1),
            "{method} {path} {fields:?}"
        );
    }
    // Another selection has a rate of its own, and all that have no flags have one together.
    assert_eq!(world.ask("POST", ALL, &[key, SHOP]), Became::WantsBody);
    for (set, expected) in [
        ("flagSetId=x", Became::WantsBody),
        ("flagSetId=y", Became::Answered(429, "rate_limited")),
    ] {
        assert_eq!(
            world.ask("POST", ALL, &[key, ("flagd-selector", set)]),
            expected
        );
    }
    let limited = world.post(ALL, &[key], "");
    let seconds: u32 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn a_key_is_refused_by_fresh_and_complete_knowledge_alone() {
    let mut world = World::new(KEYED);
    world.key("all", None);
    let ask = |world: &mut World, key: &str| world.ask("POST", ALL, &[("x-api-key", key)]);
    let (refused, unknown) = (
        Became::Answered(401, "unauthorized"),
        Became::Answered(503, "unknown_credential"),
    );
    assert_eq!(ask(&mut world, "all"), Became::WantsBody);
    assert_eq!(
        world.ask("POST", ALL, &[("authorization", &bearer("all"))]),
        Became::WantsBody
    );
    for key in ["nobody", "", "\0ofrep sources"] {
        assert_eq!(ask(&mut world, key), refused, "{key}");
    }
    assert_eq!(
        world.ask("POST", ALL, &[("authorization", "Basic all")]),
        refused
    );
    world.ambient.1.set(false);
    assert_eq!(
        ask(&mut world, "nobody"),
        Became::Answered(503, "shared_data")
    );
    world.ambient.1.set(true);
    // The publisher was not heard of for longer than a refusal may rest on it.
    world.confirm(NOW - 6_000, NOW);
    world.forget();
    assert_eq!(
        ask(&mut world, "nobody"),
        Became::Answered(503, "snapshot_aging")
    );
    assert_eq!(ask(&mut world, "all"), Became::WantsBody);
    world.confirm(NOW, NOW);
    // Without a source nobody is refused.
    world.put(sources_hash(), &OfrepRecord::Tombstone);
    world.forget();
    assert_eq!(ask(&mut world, "nobody"), unknown);
    // Where no key is needed, none is looked at.
    assert_eq!(ask(&mut World::new("{}"), "nobody"), Became::WantsBody);
}

#[test]
fn a_key_or_selection_of_a_kind_that_came_later_is_not_refused() {
    let mut world = World::new(KEYED);
    world.key("all", None);
    let later = b"\x2fwhat this build cannot read";
    world.put_bytes(Sha256Hash::of(b"later"), later);
    world.put_bytes(selection_hash("flagSetId=later"), later);
    let (all, selector) = (("x-api-key", "all"), ("flagd-selector", "flagSetId=later"));
    for (fields, reason) in [
        (&[("x-api-key", "later")][..], "unknown_credential"),
        (&[all, selector], "snapshot_missing"),
    ] {
        let found = world.ask("POST", ALL, fields);
        assert_eq!(found, Became::Answered(503, reason));
    }
    // Another surface's is no key here.
    world.put_bytes(Sha256Hash::of(b"another"), b"\x30another surface's");
    let found = world.ask("POST", ALL, &[("x-api-key", "another")]);
    assert_eq!(found, Became::Answered(401, "unauthorized"));
}

#[test]
fn without_a_source_of_keys_none_is_refused() {
    let mut world = World::new(KEYED);
    world.key("shop", Some("flagSetId=shop"));
    let own = [SHOP, ("x-api-key", "shop")];
    for (told, unknown, another) in [
        (
            &["ofrep"][..],
            (503, "snapshot_aging"),
            (503, "snapshot_aging"),
        ),
        (
            &["posthog", "ofrep"],
            (503, "snapshot_aging"),
            (503, "snapshot_aging"),
        ),
        (
            &["ofrep", "ofrep_keys"],
            (401, "unauthorized"),
            (403, "forbidden"),
        ),
        (&[], (401, "unauthorized"), (403, "forbidden")),
    ] {
        world.told(told);
        world.forget();
        for (fields, expected) in [
            (&[("x-api-key", "nobody")][..], unknown),
            (&own[1..], another),
        ] {
            let found = world.ask("POST", ALL, fields);
            assert_eq!(found, Became::Answered(expected.0, expected.1), "{told:?}");
        }
        assert_eq!(world.ask("POST", ALL, &own), Became::WantsBody, "{told:?}");
    }
}

#[test]
fn a_bound_key_sees_its_selection_alone_however_that_is_spelled() {
    let mut world = World::new(KEYED);
    world.key("shop", Some("flagSetId=shop"));
    world.key("plain", Some("source=plain.json"));
    let forbidden = Became::Answered(403, "forbidden");
    for (key, selector, expected) in [
        ("shop", Some("flagSetId=shop"), Became::WantsBody),
        (
            "shop",
            Some("flagSetId=mobile"),
            Became::Answered(403, "forbidden"),
        ),
        ("shop", Some("shop"), Became::Answered(403, "forbidden")),
        ("shop", None, Became::Answered(403, "forbidden")),
        (
            "shop",
            Some("team=x"),
            Became::Answered(400, "invalid_selector"),
        ),
        ("plain", Some("plain.json"), Became::WantsBody),
        ("plain", Some("source=plain.json"), Became::WantsBody),
    ] {
        let mut fields = vec![("x-api-key", key)];
        fields.extend(selector.map(|selector| ("flagd-selector", selector)));
        assert_eq!(
            world.ask("POST", ALL, &fields),
            expected,
            "{key} {selector:?}"
        );
    }
    // What it is bound to may have been changed since the publisher was heard of.
    world.confirm(NOW - 6_000, NOW);
    world.forget();
    let fields = [("x-api-key", "shop")];
    assert_ne!(world.ask("POST", ALL, &fields), forbidden);
    assert_eq!(
        world.ask("POST", ALL, &fields),
        Became::Answered(503, "snapshot_aging")
    );
}

#[test]
fn an_unknown_selection_is_empty_only_where_all_are_known() {
    let mut world = World::new("{}");
    let fields = [("flagd-selector", "flagSetId=nobody's")];
    let one = format!("{ALL}/open");
    let bulk = world.post(ALL, &fields, "");
    assert_eq!(bulk.became, Became::Answered(200, "bulk"));
    let expected = serde_json::json!({"flags": [], "metadata": {"flagSetId": "nobody's"}});
    assert_eq!(bulk.json(), expected);
    assert_eq!(
        world.post(&one, &fields, "").became,
        Became::Answered(404, "flag_not_found")
    );
    assert_eq!((world.reads, bulk.tenant), (0, None));
    let tag = bulk.header("etag").unwrap().to_owned();
    let held = [fields[0], ("if-none-match", tag.as_str())];
    assert_eq!(world.post(ALL, &held, "{}").status(), 304);
    world.sources(false);
    world.forget();
    for path in [ALL, &one] {
        let found = world.post(path, &fields, "").became;
        assert_eq!(found, Became::Answered(503, "snapshot_missing"));
    }
    assert_eq!(world.post(ALL, &[], "").status(), 200, "this one is known");
    world.sources(true);
    world.confirm(NOW - 6_000, NOW);
    world.forget();
    for path in [ALL, &one] {
        let found = world.post(path, &fields, "").became;
        assert_eq!(found, Became::Answered(503, "snapshot_aging"));
    }
    assert_eq!(world.post(ALL, &[], "").status(), 200);
}

#[test]
fn without_a_snapshot_all_is_503_or_goes_on() {
    for (settings, expected) in [
        ("{}", Became::Answered(503, "snapshot_missing")),
        (
            r#"{"upstream":"forward"}"#,
            Became::Forwarded("snapshot_missing"),
        ),
    ] {
        let mut world = World::new(settings);
        world.store = MemoryStore::default();
        for path in [ALL, &format!("{ALL}/open")] {
            assert_eq!(world.ask("POST", path, &[SHOP]), expected);
        }
    }
    let mut world = World::new(r#"{"upstream":"forward"}"#);
    world.store = MemoryStore::default();
    let came_back = [(crate::surfaces::FORWARD_REASON_HEADER, "x")];
    assert_eq!(
        world.ask("POST", ALL, &came_back),
        Became::Answered(503, "loop")
    );
    let unread = world.surface.unread(ALL.as_bytes());
    let step = world.surface.undecided(&unread, Reason::SharedData);
    assert_eq!(got(step).became, Became::Forwarded("shared_data"));
}

/// What would be refused is not, while what the refusal rests on is away.
#[test]
fn an_outage_is_never_a_refusal() {
    let refusals = |away: fn(&mut World)| {
        let mut world = World::new(KEYED);
        world.key("all", None);
        world.key("shop", Some("flagSetId=shop"));
        away(&mut world);
        world.forget();
        let mut found = Vec::new();
        for (key, selector, path) in [
            ("nobody", None, ALL.to_owned()),
            ("nobody", Some("flagSetId=shop"), format!("{ALL}/open")),
            ("shop", None, ALL.to_owned()),
            ("shop", Some("flagSetId=mobile"), format!("{ALL}/open")),
            ("all", Some("flagSetId=nobody's"), format!("{ALL}/open")),
            ("all", None, format!("{ALL}/nobody's")),
        ] {
            let mut fields = vec![("x-api-key", key)];
            fields.extend(selector.map(|selector| ("flagd-selector", selector)));
            found.push(world.post(&path, &fields, "{}").status());
        }
        found
    };
    assert_eq!(refusals(|_| {}), [401, 401, 403, 403, 404, 404]);
    for away in [
        // Nothing is known.
        (|world| world.store = MemoryStore::default()) as fn(&mut World),
        // Redis does not answer, and nothing was heard of the publisher.
        |world| {
            world.answers = false;
            world.confirm(NOW - 6_000, NOW - 6_000);
        },
        // It lost its definitions.
        |world| {
            world.texts.iter_mut().for_each(|(_, text)| text.clear());
            world.confirm(NOW - 6_000, NOW - 6_000);
        },
    ] {
        assert_eq!(refusals(away), [503; 6]);
    }
    // The flag is in none of the definitions that Redis has.
    for away in [
        (|world| world.confirm(NOW - 6_000, NOW)) as fn(&mut World),
        |world| world.ambient.1.set(false),
    ] {
        assert_eq!(refusals(away), [503, 503, 503, 503, 503, 404]);
    }
    // Nobody tells of keys, or of all selections.
    let unknown = refusals(|world| world.told(&["ofrep"]));
    assert_eq!(unknown, [503, 503, 503, 503, 404, 404]);
    let unknown = refusals(|world| world.sources(false));
    assert_eq!(unknown.get(4..), Some(&[503, 404][..]));
}

#[test]
fn origins_that_may_not_ask_are_told_nothing() {
    for (origins, origin, expected) in [
        ("[]", "https://a", Some("*")),
        (r#"["https://b","*"]"#, "https://a", Some("*")),
        (
            r#"["https://a","https://b"]"#,
            "https://a",
            Some("https://a"),
        ),
        (r#"["https://b"]"#, "https://a", None),
    ] {
        let mut world = World::new(&format!(r#"{{"cors_origins":{origins}}}"#));
        let asks = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "content-type"),
        ];
        let preflight = world.drive("OPTIONS", ALL, &asks, None);
        let of = |got: &Got, name: &str| got.header(name).map(str::to_owned);
        assert_eq!(preflight.status(), 204);
        for (name, value) in [
            ("access-control-allow-origin", expected),
            ("access-control-allow-methods", expected.map(|_| "POST")),
            (
                "access-control-allow-headers",
                expected.map(|_| "content-type"),
            ),
        ] {
            assert_eq!(of(&preflight, name).as_deref(), value, "{origins} {name}");
        }
        let answer = world.post(ALL, &asks, "");
        assert_eq!(
            of(&answer, "access-control-allow-origin").as_deref(),
            expected
        );
        let exposed = of(&answer, "access-control-expose-headers");
        assert_eq!(exposed.is_some(), expected.is_some());
        assert_eq!(answer.header("access-control-allow-methods"), None);
        assert!(answer.header("vary").unwrap().contains("origin"));
        let no_browser = world.post(ALL, &[], "");
        assert_eq!(no_browser.header("access-control-allow-origin"), None);
    }
}
