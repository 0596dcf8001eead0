//! Where the filter differs from the crate, each with its reason, as one table. What is not in it is the same
//! (`super`), or is what the crate panics at.

use serde_json::{Value, json};

use super::shapes::IdentityAsked;
use super::{ours, theirs};
use crate::surfaces::flagsmith::engine::tests::support::{
    compile, condition, document, segment, state,
};

/// One difference.
struct Difference {
    why: &'static str,
    document: Value,
    asked: IdentityAsked,
    /// The value of the feature `f`, of the crate and of the filter.
    theirs: Value,
    ours: Value,
}

/// A document with one segment of one condition.
fn one_condition(operator: &str, property: &str, value: &str) -> Value {
    let rules = json!([condition(operator, &json!(property), &json!(value))]);
    document(&[state(1, "f", &json!("out"))], &[segment(1, &rules)])
}

/// A document with a feature of these variants: id, share, value. Its state has the id 101.
fn variants(variants: &[(u32, u32, &str)]) -> Value {
    let mut state = state(1, "f", &json!("control"));
    state["multivariate_feature_state_values"] = variants
        .iter()
        .map(|(id, share, value)| {
            json!({
                "id": id,
                "percentage_allocation": share,
                "multivariate_feature_option": {"value": value},
            })
        })
        .collect();
    document(&[state], &[])
}

fn table() -> Vec<Difference> {
    let nobody = IdentityAsked::new("i", &[]);
    let with = |value: Value| IdentityAsked::new("i", &[("t", value)]);
    vec![
        Difference {
            why: "variants go by their ids, as in the SDKs: a user gets one variant everywhere",
            document: variants(&[(2, 50, "second"), (1, 50, "first")]),
            asked: IdentityAsked::new("8", &[]),
            theirs: json!("second"),
            ours: json!("first"),
        },
        Difference {
            why: "a variant ends before its last percentage, as in the SDKs: this identity is at exactly 50",
            document: variants(&[(1, 50, "first"), (2, 50, "second")]),
            asked: IdentityAsked::new("2916", &[]),
            theirs: json!("first"),
            ours: json!("second"),
        },
        Difference {
            why: "a hash of exactly 100 is made anew, as in the SDKs: at once 100, then 27.77",
            document: one_condition("PERCENTAGE_SPLIT", "", "99"),
            asked: IdentityAsked::new("2978", &[]),
            theirs: json!("out"),
            ours: json!("in"),
        },
        Difference {
            why: "patterns have no tables of Unicode, for the size of the filter: a class of it is a bad pattern",
            document: one_condition("REGEX", "t", r"\p{L}"),
            asked: with(json!("a")),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "and a digit is an ASCII one",
            document: one_condition("REGEX", "t", r"\d"),
            asked: with(json!("٣")),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "and letters of both cases are ASCII ones",
            document: one_condition("REGEX", "t", "(?i)É"),
            asked: with(json!("é")),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "and a class has no class in it",
            document: one_condition("REGEX", "t", "[a-z&&[^b]]"),
            asked: with(json!("a")),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "large patterns are bad ones: time and memory of a worker are bounded",
            document: one_condition("REGEX", "t", "^(a{100}){20}|a$"),
            asked: with(json!("a")),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "JSONPath is a subset, for the size of the filter: wildcards are the name of a trait",
            document: one_condition("IS_SET", "$.environment.*", ""),
            asked: nobody.clone(),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "and so are segments",
            document: one_condition("IS_SET", "$.segments['1'].key", ""),
            asked: nobody.clone(),
            theirs: json!("in"),
            ours: json!("out"),
        },
        Difference {
            why: "a whole number above i64::MAX counts as a float; the crate panics at it in a document with JSONPath",
            document: one_condition("EQUAL", "t", "18446744073709551615"),
            asked: with(json!(u64::MAX)),
            theirs: json!("out"),
            ours: json!("in"),
        },
    ]
}

#[test]
fn differences_are_agreed_on() {
    for difference in table() {
        let environment = compile(difference.document.to_string().as_bytes()).unwrap();
        let asked = Some(&difference.asked);
        let (ours, theirs) = (
            ours(&environment, asked),
            theirs::flags(&difference.document, asked),
        );
        let value = |flags: &Value| flags[0]["feature_state_value"].clone();
        assert_eq!(
            value(&theirs),
            difference.theirs,
            "theirs: {}",
            difference.why
        );
        assert_eq!(value(&ours), difference.ours, "ours: {}", difference.why);
    }
}

/// A document that one takes and the other does not.
struct Refused {
    why: &'static str,
    text: String,
}

#[test]
fn documents_that_the_crate_alone_takes_are_agreed_on() {
    let whole = document(&[state(1, "f", &json!(1))], &[]);
    let text = whole.to_string();
    let list_of =
        |value: &Value| Value::Array(value.as_object().unwrap().values().cloned().collect());
    let mut project = whole.clone();
    // In the order in which the crate has them.
    project["project"] = json!([
        1,
        "",
        list_of(&json!({"1": 1, "2": "", "3": true, "4": true, "5": true})),
        true,
        []
    ]);
    for refused in [
        Refused {
            why: "a member that comes twice: canonical JSON has none",
            text: text.replacen("\"id\":1", "\"id\":1,\"id\":1", 1),
        },
        Refused {
            why: "a list in place of an object that is split: nobody writes one",
            text: project.to_string(),
        },
    ] {
        let read = serde_json::from_str(&refused.text).unwrap();
        assert!(theirs::read(&read).is_ok(), "{}", refused.why);
        assert!(compile(refused.text.as_bytes()).is_err(), "{}", refused.why);
    }
}
