//! No document and no identity does harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{
    compile, condition, document, fits, recorded_value as value, request, segment, state, values,
    written,
};
use crate::surfaces::flagsmith::engine::{Environment, Sees};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A document with a thousand segments of one condition each.
fn thousand(operator: &str, value: impl Fn(u32) -> String) -> Environment {
    let segments: Vec<Value> = (0..1_000)
        .map(|id| {
            segment(
                id,
                &json!([condition(operator, &json!("t"), &json!(value(id)))]),
            )
        })
        .collect();
    fits(&document(&[state(1, "f", &json!("out"))], &segments)).unwrap()
}

#[test]
fn work_is_bounded() {
    for (operator, value) in [
        (
            "REGEX",
            Box::new(|id| format!("(a|aa)*b{id}$")) as Box<dyn Fn(u32) -> String>,
        ),
        ("CONTAINS", Box::new(|id| format!("aab{id}"))),
        ("PERCENTAGE_SPLIT", Box::new(|_| "0".to_owned())),
        ("EQUAL", Box::new(|id| format!("1.2.{id}:semver"))),
    ] {
        let environment = thousand(operator, value);
        let evaluate = |given: String| {
            let request = request("i", &[("t", json!(given))]);
            let flags = environment.identity(&request, Sees::Public, false);
            assert_eq!(values(&flags)["f"], "out", "{operator}");
            flags.is_cut_short()
        };
        assert!(
            evaluate(format!("1.2.3-{}", "a".repeat(2 << 20))),
            "{operator}"
        );
        assert!(!evaluate(format!("1.2.3-{}", "a".repeat(40))), "{operator}");
    }
    // The identity itself is hashed for each feature with variants.
    let variant =
        json!({"percentage_allocation": 100, "multivariate_feature_option": {"value": "on"}});
    let states: Vec<Value> = (0..100)
        .map(|id| {
            let mut state = state(id, &format!("f{id}"), &json!("off"));
            state["multivariate_feature_state_values"] = json!([variant]);
            state
        })
        .collect();
    let environment = fits(&document(&states, &[])).unwrap();
    let long = request(&"i".repeat(1 << 20), &[]);
    let flags = environment.identity(&long, Sees::Public, false);
    assert!(flags.is_cut_short());
    let values = values(&flags);
    assert_eq!(
        (&values["f0"], &values["f99"]),
        (&json!("on"), &json!("off"))
    );
}

#[test]
fn patterns_beyond_the_bounds_are_left_out() {
    let environment = thousand("REGEX", |id| format!("({id}{{50}}){{9}}"));
    let left_out = environment.patterns_left_out();
    assert!((1..1_000).contains(&left_out), "{left_out}");
    assert_eq!(
        thousand("REGEX", |id| format!("({id}")).patterns_left_out(),
        1_000
    );
    assert_eq!(
        thousand("REGEX", |id| format!("a{id}")).patterns_left_out(),
        0
    );
}

/// What must hold for any bytes: an answer, and of what fits every evaluation.
fn holds(text: &[u8]) {
    if let Ok(environment) = compile(text) {
        assert!(serde_json::from_slice::<Value>(text).is_ok());
        let names: Vec<String> = environment
            .features()
            .map(|(_, name)| name.to_owned())
            .collect();
        let request = request("vip-1", &[("plan", json!("pro")), ("age", json!(u64::MAX))]);
        for sees in [Sees::Public, Sees::Everything] {
            let _ = written(&environment.flags(sees, true));
            let _ = written(&environment.identity(&request, sees, false));
            for name in &names {
                let _ = environment.flag(name, sees, false);
            }
        }
    }
}

#[test]
fn no_part_of_a_document_fits() {
    let mut document = value();
    let part_of = |text: &str, end: usize| compile(&text.as_bytes()[..end]);
    let whole = document.to_string();
    for end in (0..whole.len()).step_by(16) {
        assert!(part_of(&whole, end).is_err(), "{end}");
    }
    // Each end of a shorter one, with each kind of element.
    let shorten = |list: &mut Value, most| list.as_array_mut().unwrap().truncate(most);
    shorten(&mut document["project"]["segments"], 3);
    shorten(&mut document["feature_states"], 8);
    shorten(&mut document["identity_overrides"], 2);
    let short = document.to_string();
    assert!(compile(short.as_bytes()).is_ok());
    for end in 0..short.len() {
        assert!(part_of(&short, end).is_err(), "{end}");
    }
}

/// Any JSON, of the members that documents have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z_]{1,8}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(text: Vec<u8>) {
        holds(&text);
    }

    #[test]
    fn any_value_gets_an_answer_wherever_it_stands(at: prop::sample::Index, to in any_json()) {
        let mut document = value();
        let mut places = Vec::new();
        collect(&document, String::new(), &mut places);
        *document.pointer_mut(at.get::<String>(&places)).unwrap() = to;
        holds(document.to_string().as_bytes());
    }

    #[test]
    fn any_change_of_bytes_gets_an_answer(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut text = value().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at % text.len();
            text[at] = byte;
        }
        holds(&text);
    }
}

/// The pointers of all values.
fn collect(value: &Value, pointer: String, places: &mut Vec<String>) {
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect(element, format!("{pointer}/{index}"), places);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                collect(member, format!("{pointer}/{name}"), places);
            }
        }
        _ => {}
    }
    places.push(pointer);
}
