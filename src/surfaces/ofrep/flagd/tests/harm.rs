//! No definitions and no body do harm.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::support::{Defined, NOW, compile_in, context, documents, recorded, value};
use crate::surfaces::ofrep::flagd::rules::{RuleEvaluation, TargetingRule};
use crate::surfaces::ofrep::flagd::{
    EvaluationContext, FlagdDocument, Fractional, InvalidContext, JsonValue, Members,
    PartialAnswer, PartialContext, Selector, selections,
};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const OPERATORS: [&str; 46] = [
    "and",
    "or",
    "if",
    "?:",
    "map",
    "filter",
    "reduce",
    "all",
    "none",
    "some",
    "var",
    "missing",
    "missing_some",
    "==",
    "!=",
    "===",
    "!==",
    "<",
    "<=",
    ">",
    ">=",
    "!",
    "!!",
    "+",
    "-",
    "*",
    "/",
    "%",
    "abs",
    "min",
    "max",
    "in",
    "cat",
    "substr",
    "merge",
    "set",
    "contains_all",
    "contains_any",
    "contains_none",
    "fractional",
    "sem_ver",
    "starts_with",
    "ends_with",
    "$ref",
    "log",
    "",
];

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_filter_map("finite", |n| serde_json::Number::from_f64(n)
            .map(Json::from)),
        prop::sample::select(vec![
            "",
            "a",
            "l",
            "o.x",
            "l.0",
            "$flagd.timestamp",
            "1",
            "-1e9",
            "1.2.3",
            ">=",
            "é\u{1f600}"
        ])
        .prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ]
}

/// Any JSON, with operators at every depth.
fn rule() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(6, 64, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            (
                prop::sample::select(OPERATORS.to_vec()),
                prop::collection::vec(inner.clone(), 0..5)
            )
                .prop_map(|(operator, arguments)| json!({operator: arguments})),
            (prop::sample::select(OPERATORS.to_vec()), inner.clone())
                .prop_map(|(operator, argument)| json!({operator: argument})),
            prop::collection::btree_map("[a-c]?", inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

/// What must hold for any bytes that a publisher reads, or a filter.
fn holds(text: &[u8], asked: &EvaluationContext) {
    let Ok(document) = FlagdDocument::parse("s", text) else {
        return;
    };
    for (selector, text) in selections(&[document]) {
        let selection = compile_in(text.as_bytes(), 1 << 16).expect("what is written here is read");
        for fractional in [Fractional::V2, Fractional::V3] {
            let answer = selection.bulk(&selector, asked, fractional, NOW);
            let read: Json = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(read["flags"].as_array().unwrap().len(), selection.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_rule_with_any_data_ends(rule in rule(), data in rule()) {
        let compiled = TargetingRule::new(&value(&rule));
        for fractional in [Fractional::V2, Fractional::V3] {
            let once = RuleEvaluation::new(fractional).evaluate(&compiled, &value(&data));
            let again = RuleEvaluation::new(fractional).evaluate(&compiled, &value(&data));
            // NaN is not equal to itself.
            prop_assert!(once == again || once.is_ok_and(|value| !value.is_json()));
        }
    }

    #[test]
    fn any_definitions_are_refused_or_answer(flags in prop::collection::btree_map("[a-z]{0,2}", rule(), 0..4), targeting in rule(), evaluator in rule()) {
        let mut flags: Json = json!(flags);
        flags["k"] = json!({"variants": {"a": targeting, "b": 1}, "targeting": targeting, "defaultVariant": "b"});
        let document = json!({"flags": flags, "$evaluators": {"a": evaluator, "l": {"$ref": "a"}}});
        holds(document.to_string().as_bytes(), &context(&json!({"l": [1], "o": {"x": 1}})));
        flags.as_object_mut().unwrap().retain(|key, _| key == "k");
        holds(json!({"flags": flags}).to_string().as_bytes(), &context(&json!({"a": targeting})));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (JsonValue::read(&bytes), EvaluationContext::parse(&bytes), Selector::parse(&bytes), compile_in(&bytes, 10));
        holds(&bytes, &EvaluationContext::default());
    }

    #[test]
    fn any_body_has_one_form(context in prop::collection::btree_map("[a-z$]{0,3}", rule(), 0..5)) {
        let body = json!({"context": context}).to_string();
        let parsed = EvaluationContext::parse(body.as_bytes());
        // serde_json agrees on what is JSON.
        prop_assert!(parsed.is_ok());
        let pretty = serde_json::to_string_pretty(&json!({"context": context})).unwrap();
        prop_assert_eq!(parsed.unwrap().hash(), EvaluationContext::parse(pretty.as_bytes()).unwrap().hash());
    }

    #[test]
    fn any_body_may_be_read_in_slices(
        context in prop::collection::btree_map("[a-c$]{0,2}", rule(), 0..5),
        end in 0_usize..200,
        budget in 1_usize..100,
    ) {
        let body = json!({"context": context}).to_string();
        // Some are cut off.
        let body = body.get(..end).unwrap_or(&body).as_bytes();
        let fixed = [("b".into(), JsonValue::text("fixed"))];
        let additions = || EvaluationContext::additions(&fixed, [("c", "header")]);
        let whole = EvaluationContext::parse(body).map(|context| context.with(additions()));
        let sliced = read_in(body, budget, additions());
        prop_assert_eq!(whole.as_ref().map(EvaluationContext::hash), sliced.as_ref().map(EvaluationContext::hash));
    }
}

/// Reads a body, so many bytes at a time.
fn read_in(
    body: &[u8],
    budget: usize,
    additions: Members,
) -> Result<EvaluationContext, InvalidContext> {
    let mut partial = PartialContext::new(body, additions);
    // What is read, and then written: each step is one byte at least.
    let mut steps = 0..body.len() * 2 + 100;
    steps.find_map(|_| partial.step(budget)).unwrap()
}

#[test]
fn all_flags_may_be_evaluated_in_slices() {
    let selection = Defined::recorded().selection(&Selector::All);
    let asked = context(&json!({"targetingKey": "ann", "email": "ann@example.com"}));
    let answer = selection.bulk(&Selector::All, &asked, Fractional::V2, NOW);
    for budget in [1, 500, 5_000] {
        let mut partial = PartialAnswer::new(&asked, Fractional::V2, NOW);
        let mut steps = 0;
        let body = loop {
            steps += 1;
            if let Some(body) = partial.step(&selection, &Selector::All, budget) {
                break body;
            }
        };
        assert_eq!(body, answer.body);
        assert!((2..=selection.len()).contains(&steps), "{steps}");
    }
}

/// A slice ends by what its rules take, too: one that takes all of its steps is alone in the rest of its slice.
#[test]
fn costly_flags_with_short_answers_are_evaluated_in_slices_of_their_own() {
    let slices = |elements: usize, flags: usize| {
        let list: Vec<_> = (0..elements).collect();
        let flag = json!({"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on",
            "targeting": {"if": [{"all": [{"var": "l"}, {">=": [{"var": ""}, 0]}]}, "on"]}});
        let flags = (0..flags).map(|number| (format!("flag-{number}"), flag.clone()));
        let flags: serde_json::Map<_, _> = flags.collect();
        let list_of = json!([{"source": "s", "document": {"flags": flags}}]);
        let selection = Defined::new(&list_of, Fractional::V2).selection(&Selector::All);
        let asked = context(&json!({"l": list}));
        let mut partial = PartialAnswer::new(&asked, Fractional::V2, NOW);
        let slice = |_: &usize| {
            partial
                .step(&selection, &Selector::All, 128 << 10)
                .is_some()
        };
        (1..100).find(slice).unwrap()
    };
    assert_eq!(slices(30_000, 4), 4);
    let many = slices(1_000, 40);
    assert!((20..=40).contains(&many), "{many}");
    assert_eq!(slices(1, 40), 1);
}

/// Members that come in any order, more than are sorted at once, the last of each name counting.
#[test]
fn many_members_are_in_order_whatever_the_slices() {
    let members: Vec<_> = (0..5_000_u64)
        .map(|number| format!("\"k{}\":{number}", number * 7_919 % 3_001))
        .collect();
    let body = format!(r#"{{"context":{{{}}}}}"#, members.join(","));
    let whole: Json = serde_json::from_str(&body).unwrap();
    let expected = context(&whole["context"]);
    for budget in [1, 1_000, usize::MAX] {
        let read = read_in(body.as_bytes(), budget, Members::new()).unwrap();
        assert_eq!(read.hash(), expected.hash());
    }
    let read = EvaluationContext::parse(body.as_bytes()).unwrap();
    assert_eq!(read, expected);
}

#[test]
fn no_part_of_a_body_or_of_definitions_fits() {
    let body = r#"{"context":{"a":[1,{"b":"\u00e9\n"}],"c":-1.5e3}}"#;
    for end in 1..body.len() {
        assert!(
            EvaluationContext::parse(&body.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
    let text = recorded()["documents"][0]["document"].to_string();
    for end in (0..text.len()).step_by(7) {
        assert!(
            FlagdDocument::parse("s", &text.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
}

#[test]
fn large_definitions_compile_and_answer() {
    let flag = |n: usize| {
        json!({"key": format!("flag-{n}"), "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"in": [{"var": "country"}, ["DE", "FR", n]]}, "on"]}, "metadata": {"owner": format!("crew-{n}")}})
    };
    let flags: Vec<Json> = (0..10_000).map(flag).collect();
    let list = json!([{"source": "s", "document": {"flags": flags}}]);
    assert_eq!(documents(&list)[0].len(), 10_000);
    let flags = Defined::new(&list, Fractional::V2);
    let answer = flags.bulk(&Selector::All, &context(&json!({"country": "DE"})), NOW);
    let read: Json = serde_json::from_slice(&answer.body).unwrap();
    let matched = |flag: &&Json| flag["reason"] == "TARGETING_MATCH";
    assert_eq!(
        read["flags"]
            .as_array()
            .unwrap()
            .iter()
            .filter(matched)
            .count(),
        10_000
    );
}

/// Ten thousand long lists take more steps together than one rule may.
#[test]
fn a_flag_is_the_same_among_many_and_alone() {
    let ids: Vec<String> = (0..100).map(|id| format!("user-{id}")).collect();
    let flag = |n: usize| {
        json!({"key": format!("flag-{n}"), "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"in": [{"var": "targetingKey"}, ids]}, "on"]}})
    };
    let flags: Vec<Json> = (0..6_000).map(flag).collect();
    let list = json!([{"source": "s", "document": {"flags": flags}}]);
    let defined = Defined::new(&list, Fractional::V2);
    let asked = context(&json!({"targetingKey": "nobody"}));
    let read: Json =
        serde_json::from_slice(&defined.bulk(&Selector::All, &asked, NOW).body).unwrap();
    let flags = read["flags"].as_array().unwrap();
    assert!(flags.iter().all(|flag| flag["reason"] == "DEFAULT"));
    let key = flags[5_999]["key"].as_str().unwrap();
    let alone: Json =
        serde_json::from_slice(&defined.single(key, &Selector::All, &asked).body).unwrap();
    assert_eq!(alone, flags[5_999]);
}
