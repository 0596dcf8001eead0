//! Every operator against every type of a trait.

use serde_json::{Value, json};

use super::support::{compile, condition, document, is_in, request, segment, state, values};
use crate::surfaces::flagsmith::engine::Sees;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Whether a trait of this value meets a condition.
fn meets(operator: &str, value: impl Into<Value>, given: Value) -> bool {
    let rules = json!([condition(operator, &json!("t"), &value.into())]);
    is_in(&rules, "i", &[("t", given)])
}

/// Each row: a condition's value, a trait's value, and which of EQUAL, NOT_EQUAL, GREATER_THAN, GREATER_THAN_INCLUSIVE,
/// LESS_THAN, LESS_THAN_INCLUSIVE hold.
#[test]
fn comparisons_go_by_the_type_of_the_trait() {
    const EQUAL: &str = "EQUAL GREATER_THAN_INCLUSIVE LESS_THAN_INCLUSIVE";
    const GREATER: &str = "NOT_EQUAL GREATER_THAN GREATER_THAN_INCLUSIVE";
    const LESS: &str = "NOT_EQUAL LESS_THAN LESS_THAN_INCLUSIVE";
    const NOTHING: &str = "";
    for (value, given, held) in [
        // Whole numbers: both, or nothing.
        ("18", json!(18), EQUAL),
        ("18", json!(19), GREATER),
        ("+018", json!(17), LESS),
        ("1.5", json!(2), NOTHING),
        ("18.0", json!(18), NOTHING),
        ("x", json!(2), NOTHING),
        ("", json!(0), NOTHING),
        // Floats.
        ("1.5", json!(1.5), EQUAL),
        ("1", json!(1.0), EQUAL),
        ("1.5", json!(2.0), GREATER),
        ("1e3", json!(2.0), LESS),
        ("nan", json!(2.0), "NOT_EQUAL"),
        ("inf", json!(1e300), LESS),
        ("x", json!(2.0), NOTHING),
        // What fits no i64 is compared as a float.
        ("18446744073709551615", json!(u64::MAX), EQUAL),
        ("1", json!(u64::MAX), GREATER),
        ("1e30", json!(u64::MAX), LESS),
        // Truth has no order.
        ("true", json!(true), "EQUAL"),
        ("TRUE", json!(true), "EQUAL"),
        ("False", json!(true), "NOT_EQUAL"),
        ("false", json!(false), "EQUAL"),
        ("1", json!(true), "EQUAL"),
        ("1", json!(false), "NOT_EQUAL"),
        ("0", json!(false), NOTHING),
        ("0", json!(true), NOTHING),
        ("yes", json!(true), NOTHING),
        // Text: truth, then whole numbers, then floats, then text.
        ("true", json!("True"), "EQUAL"),
        ("false", json!("True"), "NOT_EQUAL"),
        (
            "1",
            json!("true"),
            "NOT_EQUAL GREATER_THAN GREATER_THAN_INCLUSIVE",
        ),
        ("2", json!("18"), GREATER),
        ("018", json!("18"), EQUAL),
        ("2.5", json!("18"), GREATER),
        ("18.0", json!("18"), EQUAL),
        ("pro", json!("pro"), EQUAL),
        ("pro", json!("Pro"), LESS),
        ("", json!(""), EQUAL),
        ("a", json!(""), LESS),
        ("2", json!("b"), GREATER),
        // Versions: text alone.
        ("1.2.3:semver", json!("1.2.3"), EQUAL),
        ("1.10.0:semver", json!("1.9.0"), LESS),
        ("1.0.0-beta:semver", json!("1.0.0"), GREATER),
        ("1.2.3:semver", json!("1.2"), NOTHING),
        ("1.2:semver", json!("1.2.3"), NOTHING),
        ("1.2:semver", json!("1.2:semver"), NOTHING),
        ("1.2.3:semver", json!(1.2), NOTHING),
        (":semver", json!("1.2.3"), NOTHING),
        // Null, lists and objects compare with nothing.
        ("", json!(null), NOTHING),
        ("null", json!(null), NOTHING),
        ("a", json!(["a"]), NOTHING),
        ("{}", json!({}), NOTHING),
    ] {
        for operator in [
            "EQUAL",
            "NOT_EQUAL",
            "GREATER_THAN",
            "GREATER_THAN_INCLUSIVE",
            "LESS_THAN",
            "LESS_THAN_INCLUSIVE",
        ] {
            let expected = held.split(' ').any(|held| held == operator);
            let found = meets(operator, value, given.clone());
            assert_eq!(found, expected, "{given} {operator} {value}");
        }
    }
}

#[test]
fn an_unknown_operator_is_equality() {
    for operator in ["", "equal", "NEW"] {
        assert!(meets(operator, "a", json!("a")) && !meets(operator, "a", json!("b")));
    }
}

#[test]
fn texts_are_looked_for_in_the_text_of_any_type() {
    for (value, given, contains) in [
        ("b", json!("abc"), true),
        ("x", json!("abc"), false),
        ("", json!("abc"), true),
        ("8", json!(18), true),
        (".5", json!(1.5), true),
        (".0", json!(2.0), false),
        ("000", json!(1e21), true),
        ("e", json!(1e21), false),
        ("551615", json!(u64::MAX), true),
        ("ru", json!(true), true),
        ("n", json!(null), false),
        ("", json!(null), true),
        ("a", json!(["a"]), false),
    ] {
        assert_eq!(
            meets("CONTAINS", value, given.clone()),
            contains,
            "{given} {value}"
        );
        assert_eq!(
            meets("NOT_CONTAINS", value, given.clone()),
            !contains,
            "{given} {value}"
        );
    }
}

#[test]
fn a_list_is_split_at_commas_and_trimmed() {
    for (value, given, is_one) in [
        ("Paris,Lima, Oslo", json!("Oslo"), true),
        ("Paris,Lima, Oslo", json!(" Oslo"), false),
        ("Paris,Lima, Oslo", json!("Paris,Lima"), false),
        ("1,2", json!(2), true),
        ("1,2", json!(2.0), true),
        ("1,2.0", json!(2.0), false),
        ("1.5", json!(1.5), true),
        ("true", json!(true), false),
        ("true", json!("true"), true),
        (r#"["a","b"]"#, json!("a"), false),
        (r#"["a","b"]"#, json!("\"b\"]"), true),
        ("a,,b", json!(""), true),
        ("a,,b", json!(null), true),
        ("a,b", json!([]), false),
        ("", json!(""), true),
    ] {
        assert_eq!(meets("IN", value, given.clone()), is_one, "{given} {value}");
    }
    assert!(
        meets("IN", json!(null), json!("")),
        "no value is an empty one"
    );
}

#[test]
fn patterns_are_found_in_the_text_of_any_type() {
    for (value, given, found) in [
        ("b+", json!("abbc"), true),
        ("^b", json!("abbc"), false),
        ("^18$", json!(18), true),
        ("^2$", json!(2.0), true),
        ("^true$", json!(true), true),
        ("^$", json!(null), true),
        ("a", json!(["a"]), false),
        ("(", json!("("), false),
        ("a(?=b)", json!("ab"), false),
        ("", json!("ab"), true),
    ] {
        assert_eq!(
            meets("REGEX", value, given.clone()),
            found,
            "{given} {value}"
        );
    }
}

#[test]
fn remainders_are_those_of_whatever_is_a_number() {
    for (value, given, remains) in [
        ("3|0", json!(9), true),
        ("3|0", json!("9"), true),
        ("3|1", json!(9), false),
        ("4|3", json!("35.0"), true),
        ("2|0.5", json!(2.5), true),
        ("0.1|0.1", json!(0.3), true),
        ("3|0", json!(u64::MAX), false),
        ("3|0", json!("nine"), false),
        ("3|0", json!(true), false),
        ("3|0", json!(null), false),
        ("0|0", json!(9), false),
        ("3", json!(9), false),
        ("3|0|0", json!(9), false),
        ("x|0", json!(9), false),
        ("3|", json!(9), false),
        (" 3|0", json!(9), false),
        ("3|NaN", json!(9), false),
    ] {
        assert_eq!(
            meets("MODULO", value, given.clone()),
            remains,
            "{given} {value}"
        );
    }
}

#[test]
fn whatever_is_given_is_set() {
    for given in [
        json!("a"),
        json!(""),
        json!(0),
        json!(null),
        json!([]),
        json!({}),
    ] {
        assert!(meets("IS_SET", json!(null), given.clone()), "{given}");
        assert!(!meets("IS_NOT_SET", json!(null), given.clone()), "{given}");
    }
    let unknown = |operator| {
        let rules = json!([condition(operator, &json!("other"), &json!(null))]);
        is_in(&rules, "i", &[("t", json!(1))])
    };
    assert!(!unknown("IS_SET") && unknown("IS_NOT_SET") && !unknown("NOT_EQUAL"));
}

/// Shares of MD5("1,k_i"), MD5("1,2") and MD5("1,") by the Python SDK.
#[test]
fn percentages_split_identities_or_texts() {
    let split = |property: Value, value: &str, given: Value| {
        let rules = json!([condition("PERCENTAGE_SPLIT", &property, &json!(value))]);
        is_in(&rules, "i", &[("t", given)])
    };
    for (property, given, share) in [
        (json!(""), json!(null), SHARE_OF_IDENTITY),
        (json!(null), json!(null), SHARE_OF_IDENTITY),
        (json!("$.identity.key"), json!(null), SHARE_OF_IDENTITY),
        (json!("t"), json!(2), SHARE_OF_2),
        (json!("t"), json!(2.0), SHARE_OF_2),
        (json!("t"), json!("2"), SHARE_OF_2),
        (json!("t"), json!(null), SHARE_OF_NOTHING),
    ] {
        let at = |share: f64| split(property.clone(), &share.to_string(), given.clone());
        assert!(at(share + 0.01) && !at(share - 0.01), "{property} {given}");
    }
    assert!(split(json!(""), "100", json!(1)) && split(json!(""), "inf", json!(1)));
    for value in ["", "x", "NaN", "-1", " 100"] {
        assert!(!split(json!(""), value, json!(1)), "{value}");
    }
    assert!(!split(json!("other"), "100", json!(1)), "no trait");
}

const SHARE_OF_IDENTITY: f64 = 92.668534;
const SHARE_OF_2: f64 = 26.595319;
const SHARE_OF_NOTHING: f64 = 78.475695;

#[test]
fn places_hold_what_is_known_of_the_request() {
    let holds = |property: &str, operator: &str, value: &str| {
        let states = [state(1, "f", &json!("out")), state(2, "g", &json!(2.0))];
        let rules = json!([condition(operator, &json!(property), &json!(value))]);
        let text = document(&states, &[segment(1, &rules)]).to_string();
        let environment = compile(text.as_bytes()).unwrap();
        let traits = [
            ("age", json!(7)),
            ("nothing", json!(null)),
            ("whole", json!(3.0)),
            ("$.identity", json!("a trait")),
            ("$.identity.traits.nothing", json!("another")),
        ];
        let flags = environment.identity(&request("i", &traits), Sees::Public, false);
        values(&flags)["f"] == "in"
    };
    for (property, operator, value) in [
        ("$.environment.key", "EQUAL", "k"),
        ("$.environment.name", "EQUAL", "Environment"),
        ("$.identity.identifier", "EQUAL", "i"),
        ("$.identity.key", "EQUAL", "k_i"),
        ("$.identity.traits.age", "EQUAL", "7"),
        ("$.identity.traits['age']", "LESS_THAN", "8"),
        ("$.identity.traits.other", "IS_NOT_SET", ""),
        // A place's float is written as JSON, a trait's is not.
        ("$.identity.traits.whole", "REGEX", r"^3\.0$"),
        ("whole", "REGEX", "^3$"),
        ("$.features.g.value", "EQUAL", "2"),
        ("$.features.g.value", "CONTAINS", "2.0"),
        ("$.features.g.enabled", "EQUAL", "true"),
        ("$.features['g'].name", "EQUAL", "g"),
        ("$.features.g.key", "EQUAL", "102"),
        ("$.features.g.metadata.feature_id", "EQUAL", "2"),
        ("$.features.h.enabled", "IS_NOT_SET", ""),
        // As the environment has it, whatever the segment says.
        ("$.features.f.value", "EQUAL", "out"),
        // What finds nothing is a trait's name. A place holds nothing where the trait is null.
        ("$.identity", "EQUAL", "a trait"),
        ("$.identity.traits.nothing", "EQUAL", "another"),
    ] {
        assert!(holds(property, operator, value), "{property}");
        assert!(!holds(property, "EQUAL", "something else"), "{property}");
    }
    let nobody = condition("IS_NOT_SET", &json!("$.identity.key"), &json!(null));
    let text = document(&[state(1, "f", &json!(0))], &[segment(1, &json!([nobody]))]).to_string();
    let environment = compile(text.as_bytes()).unwrap();
    assert_eq!(values(&environment.flags(Sees::Public, false))["f"], "in");
}

#[test]
fn a_property_without_a_name_is_never_set() {
    for property in [json!(""), json!(null)] {
        for (operator, holds) in [
            ("IS_SET", false),
            ("IS_NOT_SET", true),
            ("NOT_EQUAL", false),
        ] {
            let rules = json!([condition(operator, &property, &json!("x"))]);
            assert_eq!(is_in(&rules, "i", &[("", json!("y"))]), holds, "{operator}");
        }
    }
}

/// Rules by type; `t` holds, `f` does not. A list is a rule of this type, its letters are conditions, what follows `/` are
/// sub-rules of one condition each.
#[test]
fn rules_hold_by_their_type() {
    let test = |letter: char| {
        json!({
            "operator": if letter == 't' { "IS_NOT_SET" } else { "IS_SET" },
            "property_": "nothing",
            "value": null,
        })
    };
    let rule = |kind: &str, conditions: &str, subs: &str| {
        let conditions: Vec<_> = conditions.chars().map(test).collect();
        let subs: Vec<_> = subs
            .chars()
            .map(|sub| json!({"type": "ALL", "rules": [], "conditions": [test(sub)]}))
            .collect();
        json!({"type": kind, "conditions": conditions, "rules": subs})
    };
    for (kind, conditions, subs, holds) in [
        ("ALL", "", "", true),
        ("ANY", "", "", true),
        ("NONE", "", "", true),
        ("ALL", "tt", "", true),
        ("ALL", "tf", "", false),
        ("ANY", "ft", "", true),
        ("ANY", "ff", "", false),
        ("NONE", "ff", "", true),
        ("NONE", "ft", "", false),
        ("ALL", "t", "tt", true),
        ("ALL", "t", "tf", false),
        ("ALL", "f", "tt", false),
        ("ANY", "f", "t", false),
        ("ANY", "t", "ft", true),
        ("ANY", "t", "ff", false),
        ("ANY", "", "ft", true),
        ("NONE", "f", "ff", true),
        ("NONE", "f", "ft", false),
        ("NONE", "", "t", false),
        ("NEW", "tt", "t", true),
        ("NEW", "tf", "t", false),
    ] {
        let rule = rule(kind, conditions, subs);
        assert_eq!(
            is_in(&json!([rule]), "i", &[]),
            holds,
            "{kind} {conditions}/{subs}"
        );
    }
    let (yes, no) = (rule("ALL", "t", ""), rule("ALL", "f", ""));
    assert!(is_in(&json!([yes, yes]), "i", &[]));
    assert!(!is_in(&json!([yes, no]), "i", &[]) && !is_in(&json!([no, yes]), "i", &[]));
    assert!(!is_in(&json!([]), "i", &[]), "a segment without rules");
}
