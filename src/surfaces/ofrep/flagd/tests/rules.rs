//! Rules: what flagd's engine gave, and what bounds them.

use serde_json::{Value as Json, json};

use super::support::value;
use crate::surfaces::ofrep::flagd::rules::{RuleEvaluation, RuleFailure, TargetingRule};
use crate::surfaces::ofrep::flagd::{Fractional, JsonValue, MAX_DEPTH, MAX_STEPS};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn evaluate_as(fractional: Fractional, rule: &Json, data: &Json) -> Result<JsonValue, RuleFailure> {
    RuleEvaluation::new(fractional).evaluate(&TargetingRule::new(&value(rule)), &value(data))
}

fn evaluate(rule: &Json, data: &Json) -> Result<JsonValue, RuleFailure> {
    evaluate_as(Fractional::V2, rule, data)
}

#[test]
fn results_are_those_of_flagd() {
    let text = include_str!("../../../../../tests/ofrep/rules.json");
    let recorded: Json = serde_json::from_str(text).unwrap();
    let mut count = 0;
    for case in recorded["cases"].as_array().unwrap() {
        let context = usize::try_from(case["context"].as_u64().unwrap()).unwrap();
        let found = evaluate(&case["rule"], &recorded["contexts"][context]).ok();
        assert_eq!(found, case.get("result").map(value), "{case}");
        count += 1;
    }
    assert!(count > 500, "{count}");
}

/// Where flagd puts values into rules as if they were text, and runs what came of it.
#[test]
fn data_is_never_run_as_a_rule() {
    let data = json!({"o": {"log": "x"}, "rule": {"var": "secret"}, "secret": 1, "list": [{"var": "secret"}]});
    for (rule, expected) in [
        (json!({"if": [true, {"var": "o"}]}), json!({"log": "x"})),
        (
            json!({"if": [true, {"var": "rule"}]}),
            json!({"var": "secret"}),
        ),
        (
            json!({"map": [{"var": "list"}, {"var": ""}]}),
            json!([{"var": "secret"}]),
        ),
        (
            json!({"filter": [{"var": "list"}, {"var": "secret"}]}),
            json!([{"var": "secret"}]),
        ),
    ] {
        assert_eq!(evaluate(&rule, &data), Ok(value(&expected)), "{rule}");
    }
}

#[test]
fn generations_of_fractional_bucket_differently() {
    let data =
        json!({"targetingKey": "bob", "n": 5, "null": null, "$flagd": {"flagKey": "split-half"}});
    let split = |arguments: Json| json!({"fractional": arguments});
    let buckets = [json!(["left", 50]), json!(["right", 50])];
    let with = |first: Json| json!([first, buckets[0], buckets[1]]);
    for (arguments, v2, v3) in [
        (json!(buckets), json!("left"), json!("right")),
        (with(json!({"var": "null"})), json!("left"), Json::Null),
        (with(json!("")), json!("left"), json!("left")),
    ] {
        let rule = split(arguments);
        assert_eq!(evaluate(&rule, &data), Ok(value(&v2)), "{rule}");
        assert_eq!(
            evaluate_as(Fractional::V3, &rule, &data),
            Ok(value(&v3)),
            "{rule}"
        );
    }
    // A number buckets in the newer one alone, whatever its form.
    let rule = split(with(json!({"var": "n"})));
    assert_eq!(evaluate(&rule, &data), Ok(JsonValue::Null));
    let of = |n: Json| evaluate_as(Fractional::V3, &rule, &json!({"n": n}));
    assert_ne!(of(json!(5)), Ok(JsonValue::Null));
    assert_eq!(of(json!(5)), of(json!(5.0)));
}

#[test]
fn values_bucket_as_in_the_newer_generation() {
    let text = include_bytes!("../../../../../tests/ofrep/fractional_v3.json");
    let recorded = JsonValue::read(text).unwrap();
    let buckets: Vec<Json> = (0..1_000).map(|n| json!([n, 1])).collect();
    let bucket = |first: Option<JsonValue>, data: Json| {
        let rule = json!({"fractional": buckets});
        let rule = match (first, value(&rule)) {
            (None, rule) => rule,
            (Some(first), rule) => {
                let mut arguments = vec![JsonValue::object(vec![(
                    "var".into(),
                    JsonValue::text("v"),
                )])];
                let Some(JsonValue::List(buckets)) = rule.member("fractional").cloned() else {
                    panic!()
                };
                arguments.extend_from_slice(&buckets);
                let rule = vec![("fractional".into(), JsonValue::list(arguments))];
                let data = JsonValue::object(vec![("v".into(), first)]);
                return RuleEvaluation::new(Fractional::V3)
                    .evaluate(&TargetingRule::new(&JsonValue::object(rule)), &data)
                    .ok();
            }
        };
        RuleEvaluation::new(Fractional::V3)
            .evaluate(&TargetingRule::new(&rule), &value(&data))
            .ok()
    };
    let list = |name: &str| match recorded.member(name) {
        Some(JsonValue::List(list)) => list.to_vec(),
        _ => panic!("{name}"),
    };
    for case in list("values") {
        let found = bucket(case.member("value").cloned(), Json::Null);
        assert_eq!(found.as_ref(), case.member("bucket"), "{case:?}");
    }
    for case in list("keys") {
        let text = |name: &str| {
            case.member(name)
                .and_then(JsonValue::as_text)
                .unwrap()
                .to_string()
        };
        let data = json!({"targetingKey": text("key"), "$flagd": {"flagKey": text("flag")}});
        assert_eq!(
            bucket(None, data).as_ref(),
            case.member("bucket"),
            "{case:?}"
        );
    }
}

/// Checks of flagd-testbed: the bucketing value is the hash's edge.
#[test]
fn edges_of_hashes_are_in_the_outer_buckets() {
    for (key, expected) in [
        ("ejOoVL", "first"),
        ("bY9fO-", "first"),
        ("SI7p-", "first"),
        ("6LvT0", "second"),
        ("ceQdGm", "second"),
    ] {
        let rule = json!({"fractional": [key, ["first", 1], ["second", 1]]});
        assert_eq!(
            evaluate(&rule, &json!({})),
            Ok(value(&json!(expected))),
            "{key}"
        );
    }
}

#[test]
fn rules_that_read_the_time_are_marked() {
    for (rule, marked) in [
        (json!({"var": "$flagd.timestamp"}), true),
        (json!({"var": [".$flagd..timestamp", 1]}), true),
        (json!({"var": "$flagd"}), true),
        (json!({"var": ""}), true),
        (json!({"var": []}), true),
        (json!({"var": "."}), true),
        (
            json!({"if": [{">": [{"var": {"cat": ["$flagd", ".timestamp"]}}, 1]}, "a"]}),
            true,
        ),
        (json!({"var": ["a", {"var": "$flagd.timestamp"}]}), true),
        (json!({"missing": ["a", "$flagd.timestamp"]}), true),
        (json!({"missing": {"var": "a"}}), true),
        (json!({"missing_some": [1, ["a", "$flagd"]]}), true),
        (json!({"missing_some": [1, {"merge": ["a"]}]}), true),
        (json!({"var": "$flagd.flagKey"}), false),
        (json!({"var": "flagd.timestamp"}), false),
        (json!({"var": "timestamp"}), false),
        (json!({"missing": ["a", "b"]}), false),
        (json!({"missing_some": [1, ["a", "b"]]}), false),
        (json!({"fractional": [["a", 1]]}), false),
        (json!({"in": ["$flagd.timestamp", {"var": "a"}]}), false),
        (json!({"var": "$flagd.timestamp", "x": 1}), false),
        // An element is looked into alone, and no time is in it.
        (
            json!({"some": [{"var": "l"}, {"==": [{"var": ""}, 1]}]}),
            false,
        ),
        (
            json!({"all": [{"var": "l"}, {"in": [{"var": ".$flagd.timestamp"}, "x"]}]}),
            false,
        ),
        (
            json!({"map": [{"filter": [{"var": "l"}, {"var": ""}]}, {"reduce": [{"var": ""}, {"var": ""}, 0]}]}),
            false,
        ),
        (json!({"filter": [{"var": ""}, {"var": ""}]}), true),
        (
            json!({"reduce": [{"var": "l"}, {"var": ""}, {"var": ""}]}),
            true,
        ),
        (json!({"some": [{"var": "l"}, {"var": [""]}]}), true),
        (
            json!({"some": [{"var": "l"}, {"var": ["x", {"var": ""}]}]}),
            true,
        ),
        (json!({"none": [{"var": "l"}, {"var": "$flagd"}]}), true),
        (
            json!({"some": [{"var": "l"}, {"var": {"cat": ["a"]}}]}),
            true,
        ),
    ] {
        assert_eq!(
            TargetingRule::new(&value(&rule)).reads_time(),
            marked,
            "{rule}"
        );
    }
}

#[test]
fn nesting_of_rules_is_bounded() {
    let nested = |depth: u32| {
        let nots = usize::try_from(depth).unwrap();
        let text = r#"{"!":"#.repeat(nots) + "true" + &"}".repeat(nots);
        // Deeper than a body may nest, so that it is built here.
        let mut rule = JsonValue::Bool(true);
        for _ in 0..depth {
            rule = JsonValue::object(vec![("!".into(), rule)]);
        }
        assert_eq!(JsonValue::read(text.as_bytes()).is_ok(), depth <= MAX_DEPTH);
        RuleEvaluation::new(Fractional::V2).evaluate(&TargetingRule::new(&rule), &JsonValue::Null)
    };
    assert_eq!(nested(MAX_DEPTH), Ok(JsonValue::Bool(true)));
    assert_eq!(nested(MAX_DEPTH + 1), Err(RuleFailure));
    assert_eq!(nested(1_000), Err(RuleFailure));
}

#[test]
fn steps_are_bounded() {
    let long = json!((0..1_000).collect::<Vec<_>>());
    let map = |rule: Json| json!({"map": [{"var": "l"}, rule]});
    let data = json!({"l": long, "t": "x".repeat(1 << 20)});
    let outer = json!({"l": long});
    for rule in [
        // A million elements, and more.
        map(json!({"reduce": [long, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]})),
        json!({"contains_all": [{"merge": [long, long]}, {"merge": [long, long]}]}),
        // Text that doubles a thousand times.
        json!({"reduce": [{"var": "l"}, {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "xx"]}),
        // A long text for each element.
        json!({"filter": [{"var": "l"}, {"in": ["y", {"var": "t"}]}]}),
    ] {
        assert_eq!(evaluate(&rule, &data), Err(RuleFailure), "{rule}");
    }
    assert!(evaluate(&map(json!({"+": [{"var": ""}, 1]})), &outer).is_ok());
    // Each rule has all of them.
    let mut evaluation = RuleEvaluation::new(Fractional::V2);
    let rule = TargetingRule::new(&value(&map(json!({"+": [{"var": ""}, 1]}))));
    for _ in 0..=MAX_STEPS / 1_000 {
        assert!(evaluation.evaluate(&rule, &value(&outer)).is_ok());
    }
    assert!(evaluation.taken() > MAX_STEPS);
}

/// A number is short, and the text that is made of it is not.
#[test]
fn steps_cover_the_texts_that_are_made_of_numbers() {
    let taken = |rule: &Json, number: f64| {
        let mut evaluation = RuleEvaluation::new(Fractional::V2);
        let data = value(&json!({"l": vec![number; 100]}));
        let rule = TargetingRule::new(&value(rule));
        // What they come to is as short.
        assert!(evaluation.evaluate(&rule, &data).is_ok(), "{rule:?}");
        evaluation.taken()
    };
    let each = |rule: Json| json!({"filter": [{"var": "l"}, rule]});
    for rule in [
        each(json!({"!": {"cat": [{"var": ""}]}})),
        each(json!({"!": {"substr": [{"var": ""}, 0, 1]}})),
        json!({"!": {"missing": {"var": "l"}}}),
        json!({"!": {"cat": {"var": "l"}}}),
        json!({"!": {"reduce": [{"var": "l"}, {"var": "current"}, ""]}}),
    ] {
        for number in [1e308, 5e-324] {
            let more = taken(&rule, number) - taken(&rule, 1.0);
            assert!(more >= 100 * 300 / 16, "{more}: {rule}");
        }
    }
}

/// What a client sends costs by its length, wherever in a value it is.
#[test]
fn steps_cover_the_texts_of_what_is_looked_at() {
    let long = "7".repeat(64 << 10);
    let data = json!({
        "l": (0..1_000).collect::<Vec<_>>(), "short": [0, 1],
        "t": long, "texts": vec![&long; 10], "o": {"t": vec![&long; 10]},
    });
    let each = |list: &str, rule: Json| json!({"filter": [{"var": list}, rule]});
    let thousand = |part: Json| Json::from(vec![part; 1_000]);
    for rule in [
        json!({"in": [1, {"var": "texts"}]}),
        json!({"in": ["x", {"var": "texts"}]}),
        json!({"contains_any": [{"var": "texts"}, ["x"]]}),
        json!({"missing_some": [1, {"var": "texts"}]}),
        json!({"missing": {"var": "texts"}}),
    ] {
        assert!(
            evaluate(&each("short", rule.clone()), &data).is_ok(),
            "{rule}"
        );
        assert_eq!(
            evaluate(&each("l", rule.clone()), &data),
            Err(RuleFailure),
            "{rule}"
        );
    }
    for rule in [
        // Read as numbers.
        json!({"reduce": [thousand(json!({"var": "t"})), {"var": "current"}, 0]}),
        // A result that says the same a thousand times.
        thousand(json!({"var": "t"})),
        thousand(json!({"var": "l"})),
        json!({"set": [{"var": "o"}, "more", thousand(json!({"var": "o"}))]}),
    ] {
        assert_eq!(
            evaluate(&rule, &data),
            Err(RuleFailure),
            "{}",
            &rule.to_string()[..40]
        );
    }
    // Hashed as CBOR.
    let object = json!({"set": [{"var": "o"}, "more", thousand(json!({"var": "o"}))]});
    let rule = json!({"fractional": [object, ["a", 1]]});
    assert_eq!(evaluate_as(Fractional::V3, &rule, &data), Err(RuleFailure));
    let rule = json!({"fractional": [{"var": "o"}, ["a", 1]]});
    assert!(evaluate_as(Fractional::V3, &rule, &data).is_ok());
}
