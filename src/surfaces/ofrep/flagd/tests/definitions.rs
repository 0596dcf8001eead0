//! Definitions: what fits, what wins, what is selected.

use serde_json::{Value as Json, json};

use super::support::{Defined, NOW, body, compile_in, context, documents, recorded, value};
use crate::surfaces::ofrep::flagd::{FlagdDocument, Fractional, MAX_FLAG, Selector, selections};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn parse(document: &Json) -> Result<FlagdDocument, String> {
    let document = FlagdDocument::parse("s", document.to_string().as_bytes());
    document.map_err(|unfit| unfit.to_string())
}

/// The text of all flags of one document.
fn text(document: &Json) -> String {
    let list = json!([{"source": "s", "document": document}]);
    selections(&documents(&list))
        .remove(&Selector::All)
        .unwrap()
}

fn set(id: &str) -> Selector {
    Selector::FlagSet(id.to_owned())
}

fn source(name: &str) -> Selector {
    Selector::Source(name.to_owned())
}

/// The flags of a selection, by their sets and keys.
fn keys(flags: &Defined, selector: &Selector) -> Vec<(String, String)> {
    let text: Json = serde_json::from_str(flags.text(selector)).unwrap();
    let name = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let flag = |flag: &Json| (name(&flag["flagSetId"]), name(&flag["key"]));
    text["flags"].as_array().unwrap().iter().map(flag).collect()
}

#[test]
fn one_bad_flag_refuses_the_document_and_is_named() {
    for (flag, problem) in [
        (
            json!({"variants": {"a": 1}, "defaultVariant": "b"}),
            "`defaultVariant` is none of its variants",
        ),
        (
            json!({"defaultVariant": "b"}),
            "`defaultVariant` is none of its variants",
        ),
        (
            json!({"variants": {"a": 1}, "defaultVariant": 1}),
            "`defaultVariant` is no text",
        ),
        (json!({"variants": [1]}), "`variants` is no object"),
        (json!({"metadata": "x"}), "`metadata` is no object"),
        (json!({"state": true}), "`state` is no text"),
    ] {
        let document = json!({"flags": {"fine": {}, "broken": flag}});
        assert_eq!(
            parse(&document).unwrap_err(),
            format!("flag \"broken\": {problem}")
        );
        let mut listed = flag.clone();
        assert_eq!(
            parse(&json!({"flags": [{}, flag]})).unwrap_err(),
            format!("flag \"[1]\": {problem}")
        );
        listed["key"] = json!("k");
        assert!(
            parse(&json!({"flags": [listed]}))
                .unwrap_err()
                .ends_with(problem)
        );
    }
    assert_eq!(
        parse(&json!({"flags": {"k": 1}})).unwrap_err(),
        "flag \"k\" is no object"
    );
    for (document, problem) in [
        (json!([]), "the document is no JSON object"),
        (json!({}), "the document: `flags` is missing"),
        (
            json!({"flags": null}),
            "the document: `flags` is neither an object nor a list",
        ),
        (
            json!({"flags": {}, "metadata": []}),
            "the document: `metadata` is no object",
        ),
        (
            json!({"flags": {}, "$evaluators": 1}),
            "the document: `$evaluators` is no object",
        ),
        (
            json!({"flags": {}, "$evaluators": {"e": {}}}),
            "the document: `$evaluators` has \"e\", which is empty",
        ),
    ] {
        assert_eq!(parse(&document).unwrap_err(), problem);
    }
    assert!(FlagdDocument::parse("s", b"{\"flags\":{}").is_err());
    assert!(FlagdDocument::parse("s", b"{\"flags\":{}} x").is_err());
}

#[test]
fn what_flagd_takes_is_taken() {
    let flag = json!({
        "state": "what", "variants": {"a": 1}, "defaultVariant": null, "targeting": {"unknown": 1}, "metadata": null,
        "more": [1],
    });
    let document = json!({"flags": {"k": flag, "n": null, "e": {"defaultVariant": ""}, "": {}}, "metadata": null, "more": 1});
    assert_eq!(parse(&document).unwrap().len(), 3);
    // Without a key a flag is dropped; of flags with one key the last counts.
    let list = json!([{"state": "x"}, {"key": ""}, {"key": "a", "state": "1"}, {"key": "a", "state": "2"}, null]);
    assert_eq!(
        text(&json!({"flags": list})),
        r#"{"selector":"","flags":[{"key":"a","metadata":{},"state":"2","variants":{}}]}"#
    );
}

#[test]
fn texts_are_canonical() {
    let flag = r#"{"targeting": {"if": [{"==": [{"var":"a"}, 1.0]}, "on"]}, "variants": {"on": {"b": 1.50, "a": 2}, "off": [1e2]},
        "state": "ENABLED", "metadata": {"z": 1.0, "flagSetId": "s"}, "defaultVariant": "on"}"#;
    let document = format!(r#"{{"flags": {{"k": {flag}}}}}"#);
    let document = FlagdDocument::parse("s", document.as_bytes()).unwrap();
    let expected = r#"{"selector":"flagSetId=s","flags":[{"defaultVariant":"on","flagSetId":"s","key":"k","metadata":{"flagSetId":"s","z":1},"state":"ENABLED","targeting":{"if":[{"==":[{"var":"a"},1]},"on"]},"variants":{"off":[1e2],"on":{"a":2,"b":1.50}}}]}"#;
    assert_eq!(selections(&[document])[&set("s")], expected);
}

#[test]
fn numbers_keep_the_form_of_their_flag() {
    let variants = |text: &str| {
        let document = format!(r#"{{"flags": {{"k": {{"variants": {text}}}}}}}"#);
        let document = FlagdDocument::parse("s", document.as_bytes()).unwrap();
        let text = selections(&[document])[&Selector::All].clone();
        let (_, variants) = text.split_once("\"variants\":").unwrap();
        variants.strip_suffix("}]}").unwrap().to_owned()
    };
    for (written, expected) in [
        (r#"{"a": 1, "b": 20}"#, r#"{"a":1,"b":20}"#),
        (
            r#"{"a": 1, "b": 2.5, "c": "1"}"#,
            r#"{"a":1.0,"b":2.5,"c":"1"}"#,
        ),
        (r#"{"a": 1, "b": 2.0}"#, r#"{"a":1.0,"b":2.0}"#),
        (
            r#"{"a": -1, "b": 1e3, "c": 1E+2}"#,
            r#"{"a":-1.0,"b":1e3,"c":1E+2}"#,
        ),
        (r#"{"a": 9007199254740993}"#, r#"{"a":9007199254740993}"#),
        (
            r#"{"a": {"n": 1}, "b": 2.5, "c": [1, 0.10]}"#,
            r#"{"a":{"n":1},"b":2.5,"c":[1,0.10]}"#,
        ),
    ] {
        assert_eq!(variants(written), expected);
    }
}

#[test]
fn metadata_are_merged() {
    let document = json!({
        "metadata": {"a": 1, "b": 1, "c": 1, "flagSetId": "common"},
        "flags": {"k": {"metadata": {"b": 2, "c": null, "d": {"n": null}, "flagSetId": "own"}}, "l": {"metadata": {"flagSetId": null}},
            "m": {"metadata": {"flagSetId": 5}}},
    });
    let flags = Defined::new(
        &json!([{"source": "s", "document": document}]),
        Fractional::V2,
    );
    let metadata = |selector: &Selector| body(&flags.bulk(selector, &context(&json!({})), NOW));
    let flag =
        |key: &str, metadata: Json| json!({"key": key, "reason": "DEFAULT", "metadata": metadata});
    let own = json!({"a": 1, "b": 2, "d": {"n": null}, "flagSetId": "own"});
    assert_eq!(
        metadata(&set("own")),
        value(&json!({"flags": [flag("k", own)], "metadata": {"flagSetId": "own"}}))
    );
    // A set's name is text.
    let bare = json!({"a": 1, "b": 1, "c": 1});
    let mut numbered = bare.clone();
    numbered["flagSetId"] = json!(5);
    assert_eq!(
        metadata(&set("")),
        value(&json!({"flags": [flag("l", bare), flag("m", numbered)], "metadata": {}}))
    );
}

#[test]
fn references_are_resolved() {
    let evaluators = json!({
        "yes": true, "outer": {"if": [{"$ref": "inner"}, "a", "b"]}, "inner": {"==": [{"var": "x"}, 1]},
        "loop": {"if": [true, "a", {"$ref": "pool"}]}, "pool": {"or": [{"$ref": "loop"}]},
    });
    let variants = json!({"a": "A", "b": {"$ref": "yes"}});
    for (targeting, expected) in [
        (json!({"$ref": "outer"}), json!("A")),
        (json!({"if": [{"$ref": "yes"}, "a"]}), json!("A")),
        (json!({"if": [false, {"$ref": "nobody"}, "a"]}), json!("A")),
        (json!({"$ref": "nobody"}), json!("PARSE_ERROR")),
        (json!({"$ref": "loop"}), json!("PARSE_ERROR")),
        (
            json!({"if": [true, "a", {"$ref": "pool"}]}),
            json!("PARSE_ERROR"),
        ),
        (json!({"$ref": "outer", "x": 1}), json!("GENERAL")),
        (json!("b"), json!({"$ref": "yes"})),
    ] {
        let flag = json!({"variants": variants, "targeting": targeting});
        let document = json!({"flags": {"k": flag, "l": {"variants": {"on": 1}, "defaultVariant": "on"}}, "$evaluators": evaluators});
        let flags = Defined::new(
            &json!([{"source": "s", "document": document}]),
            Fractional::V2,
        );
        let of = |key: &str| body(&flags.single(key, &Selector::All, &context(&json!({"x": 1}))));
        let found = of("k");
        let found = found.member("value").or(found.member("errorCode"));
        assert_eq!(found, Some(&value(&expected)), "{targeting}");
        // Other flags stay as they are.
        assert_eq!(of("l").member("reason"), Some(&value(&json!("STATIC"))));
    }
}

#[test]
fn what_references_bring_in_is_bounded() {
    // Each evaluator has the next one twice: 2^40 values.
    let mut evaluators = json!({"e40": {"var": "x"}});
    for n in 0..40 {
        let next = json!({"$ref": format!("e{}", n + 1)});
        evaluators[format!("e{n}")] = json!({"or": [next, next]});
    }
    let document = |depth: usize| {
        let start = format!("e{}", 40 - depth);
        json!({"flags": {"k": {"targeting": {"$ref": start}}}, "$evaluators": evaluators})
    };
    assert!(parse(&document(3)).is_ok());
    assert_eq!(
        parse(&document(40)).unwrap_err(),
        "flag \"k\": `targeting` refers to more than 1048576 values"
    );
    // Chains deeper than a rule may be, and as deep: the flag fails alone.
    for (length, fails) in [(99, false), (100, true), (150, true), (300, true)] {
        let mut chain = json!({format!("e{length}"): {"var": "x"}});
        for n in 0..length {
            chain[format!("e{n}")] = json!({"!": {"$ref": format!("e{}", n + 1)}});
        }
        let flag = json!({"variants": {"true": 1, "false": 2}, "targeting": {"$ref": "e0"}});
        let document = json!({"flags": {"k": flag, "l": {}}, "$evaluators": chain});
        let flags = Defined::new(
            &json!([{"source": "s", "document": document}]),
            Fractional::V2,
        );
        let answer = flags.bulk(&Selector::All, &context(&json!({})), NOW);
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(text.contains("PARSE_ERROR"), fails, "{length}: {text}");
        assert!(text.contains(r#"{"key":"l","reason":"DEFAULT""#), "{text}");
    }
}

#[test]
fn a_flag_is_bounded() {
    let document = |length: usize| json!({"flags": {"k": {"variants": {"a": "x".repeat(length)}}}});
    assert!(parse(&document(MAX_FLAG / 2 - 100)).is_ok());
    let unfit = parse(&document(MAX_FLAG / 2)).unwrap_err();
    assert!(unfit.starts_with("flag \"k\" takes 262"), "{unfit}");
}

#[test]
fn later_documents_win() {
    let one = |value: &str, id: &str| json!({"flags": {"k": {"variants": {"a": value}, "defaultVariant": "a", "metadata": {"flagSetId": id}}}});
    let list = json!([
        {"source": "1", "document": one("first", "x")},
        {"source": "2", "document": one("second", "x")},
        {"source": "3", "document": one("third", "b")},
        {"source": "4", "document": {"flags": [
            {"key": "k", "variants": {"a": "y"}, "defaultVariant": "a", "metadata": {"flagSetId": "y"}},
            {"key": "k", "variants": {"a": "a"}, "defaultVariant": "a", "metadata": {"flagSetId": "a"}},
        ]}},
    ]);
    let flags = Defined::new(&list, Fractional::V2);
    let answer = |selector: &Selector| {
        let answer = flags.single("k", selector, &context(&json!({})));
        body(&answer)
            .member("value")
            .cloned()
            .map(|found| (found, flags.selection(selector).len()))
    };
    let one = |text: &str| Some((value(&json!(text)), 1));
    assert_eq!(answer(&set("x")), one("second"));
    assert_eq!(answer(&source("1")), None, "its flag is another document's");
    assert_eq!(answer(&source("2")), one("second"));
    // A key has one entry: of all flags the last document's, and its last set; of a source the first set.
    assert_eq!(answer(&Selector::All), one("y"));
    assert_eq!(answer(&source("4")), one("a"));
    assert_eq!(answer(&set("")), None);
}

#[test]
fn selections_are_those_that_exist() {
    let flags = Defined::recorded();
    let texts = selections(&documents(&recorded()["documents"]));
    let expected = [
        Selector::All,
        set(""),
        set("mobile"),
        set("shop"),
        source("mobile.json"),
        source("plain.json"),
        source("shop.json"),
    ];
    assert_eq!(texts.into_keys().collect::<Vec<_>>(), expected);
    assert_eq!(
        selections(&[]).into_iter().collect::<Vec<_>>(),
        [(Selector::All, r#"{"selector":"","flags":[]}"#.to_owned())]
    );
    // By set, then key; those of no set first.
    let all = keys(&flags, &Selector::All);
    assert!(all.is_sorted());
    assert_eq!(all[0], (String::new(), "maintenance".to_owned()));
    assert_eq!(
        all.iter()
            .filter(|(_, key)| key == "banner")
            .collect::<Vec<_>>(),
        [&("mobile".to_owned(), "banner".to_owned())]
    );
}

#[test]
fn texts_compile_in_slices() {
    let flags = Defined::recorded();
    let whole = flags.selection(&Selector::All);
    let asked = context(&json!({"targetingKey": "ann", "n": 1}));
    let answer = whole.bulk(&Selector::All, &asked, Fractional::V2, NOW);
    let text = flags.text(&Selector::All).as_bytes();
    for budget in [0, 1, 100, 3_000, usize::MAX] {
        let selection = compile_in(text, budget).unwrap();
        assert_eq!(
            selection.bulk(&Selector::All, &asked, Fractional::V2, NOW),
            answer
        );
    }
    assert_eq!(whole.len(), 41);
    assert!(whole.weight() > text.len());
    for end in 0..text.len() {
        assert!(compile_in(&text[..end], 1 << 16).is_none(), "{end}");
    }
    for unfit in [
        r#"{"selector":"","flags":[]}x"#,
        r#"{"flags":[]}"#,
        r#"{"selector":"","flags":[{}]}"#,
        r#"{"selector":"","flags":[{"key":"a"},]}"#,
        r#"{"selector":"","other":[]}"#,
        r#"{"selector":1,"flags":[]}"#,
        r#"[]"#,
        r#"{"selector":"","flags":[{"key":"a","defaultVariant":"x"}]}"#,
        r#"{"selector":"","flags":[{"key":1}]}"#,
    ] {
        assert!(compile_in(unfit.as_bytes(), 1).is_none(), "{unfit}");
    }
    let long = format!(
        r#"{{"selector":"","flags":[{{"key":"a","variants":{{"x":"{}"}}}}]}}"#,
        "x".repeat(MAX_FLAG)
    );
    assert!(compile_in(long.as_bytes(), 1 << 20).is_none());
}
