//! A document in slices.

use std::rc::Rc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{
    compile, compile_in, condition, document, recorded, request, segment, state, written,
};
use crate::surfaces::flagsmith::engine::{Compiler, Environment, MAX_ELEMENT, Progress, Sees};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The document without blanks, its members sorted.
fn canonical() -> String {
    let value: Value = serde_json::from_str(recorded()).unwrap();
    value.to_string()
}

/// All that can be seen of an environment.
fn seen(environment: &Environment) -> (Value, Vec<Value>, usize, usize) {
    let identities = ["vip-1", "blocked", "id-0"].map(|identifier| {
        let traits = [("email", json!("joe@acme.test")), ("plan", json!("pro"))];
        let request = request(identifier, &traits);
        written(&environment.identity(&request, Sees::Everything, false))
    });
    (
        written(&environment.flags(Sees::Everything, false)),
        identities.to_vec(),
        environment.weight(),
        environment.patterns_left_out(),
    )
}

#[test]
fn any_budget_gives_the_same() {
    let expected = seen(&compile(recorded().as_bytes()).unwrap());
    for text in [recorded(), &canonical()] {
        for budget in [0, 1, 2, 100, 5_000, usize::MAX] {
            let environment = compile_in(text.as_bytes(), budget).unwrap();
            assert_eq!(seen(&environment), expected, "{budget}");
        }
    }
}

#[test]
fn a_compiler_that_is_done_is_done() {
    let mut compiler = Compiler::new(Rc::new(canonical().into_bytes()));
    while matches!(compiler.step(1 << 20), Progress::More) {}
    assert!(matches!(compiler.step(1 << 20), Progress::Unfit(_)));
}

/// A document of about four MiB, with each kind of element.
fn large() -> Vec<u8> {
    let states: Vec<Value> = (0..4_000)
        .map(|id| state(id, &format!("feature {id}"), &json!("x".repeat(120))))
        .collect();
    let segments: Vec<Value> = (0..2_500)
        .map(|id| {
            let rule = condition(
                "REGEX",
                &json!(format!("trait {}", id % 50)),
                &json!(format!("^a{id}b+$")),
            );
            segment(id, &json!([rule, rule]))
        })
        .collect();
    let mut document = document(&states, &segments);
    document["identity_overrides"] = (0..6_000)
        .map(|number| {
            json!({
                "identifier": format!("identity {number}"),
                "environment_api_key": "k",
                "created_date": "2026-01-02T03:04:05Z",
                "identity_features": [state(number % 4_000, &format!("feature {}", number % 4_000), &json!(number))],
            })
        })
        .collect();
    document.to_string().into_bytes()
}

#[test]
fn four_mebibytes_come_in_slices() {
    const BUDGET: usize = 64 << 10;
    let text = large();
    assert!(text.len() > 4 << 20, "{}", text.len());
    let mut compiler = Compiler::new(Rc::new(text.clone()));
    let (mut steps, mut at) = (0, 0);
    let environment = loop {
        let step = compiler.step(BUDGET);
        // No element of this one is larger than a thousand bytes.
        assert!(compiler.position() - at < BUDGET + 1_000);
        (steps, at) = (steps + 1, compiler.position());
        match step {
            Progress::More => {}
            Progress::Done(environment) => break environment,
            Progress::Unfit(unfit) => panic!("{unfit}"),
        }
    };
    // The patterns take steps as well.
    assert!(
        (text.len() / BUDGET + 100..1_000).contains(&steps),
        "{steps}"
    );
    assert_eq!(environment.features().count(), 4_000);
    assert_eq!(environment.patterns_left_out(), 0);
    let weight = environment.weight();
    assert!(
        (text.len() / 2..4 * text.len()).contains(&weight),
        "{weight}"
    );
    let request = request("identity 5999", &[("trait 7", json!("a7bb"))]);
    let flags = written(&environment.identity(&request, Sees::Public, false));
    assert_eq!(flags[1_999]["feature_state_value"], 5_999);
}

#[test]
fn an_element_is_bounded() {
    let with = |length: usize| {
        let states = [state(1, "f", &json!("x".repeat(length)))];
        compile(document(&states, &[]).to_string().as_bytes()).map(|_| ())
    };
    assert_eq!(with(MAX_ELEMENT - 1_000), Ok(()));
    let unfit = with(MAX_ELEMENT).unwrap_err();
    assert_eq!(unfit.path(), "feature_states[0]");
    assert_eq!(unfit.problem(), "is too large");
    let blanks = |count: usize| format!("{}{}", " ".repeat(count), canonical());
    assert!(compile(blanks(3 * MAX_ELEMENT).as_bytes()).is_ok());
    let inside = canonical().replacen(':', &format!(":{}", " ".repeat(MAX_ELEMENT)), 1);
    assert_eq!(
        compile(inside.as_bytes()).unwrap_err().problem(),
        "has too many blanks in it"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_budgets_give_the_same(budgets in proptest::collection::vec(0_usize..3_000, 1..8)) {
        let mut compiler = Compiler::new(Rc::new(canonical().into_bytes()));
        let mut budgets = budgets.iter().cycle();
        let environment = loop {
            match compiler.step(*budgets.next().unwrap()) {
                Progress::More => {}
                Progress::Done(environment) => break environment,
                Progress::Unfit(unfit) => panic!("{unfit}"),
            }
        };
        prop_assert_eq!(seen(&environment), seen(&compile(recorded().as_bytes()).unwrap()));
    }
}
