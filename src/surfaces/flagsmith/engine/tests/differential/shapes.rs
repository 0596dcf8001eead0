//! Random documents and identities, of few names, so that they meet.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::surfaces::flagsmith::engine::tests::support;

/// An identity that is asked for.
#[derive(Clone, Debug)]
pub struct IdentityAsked {
    pub identifier: String,
    pub traits: Vec<(String, Value)>,
}

impl IdentityAsked {
    pub fn new(identifier: &str, traits: &[(&str, Value)]) -> Self {
        Self {
            identifier: identifier.to_owned(),
            traits: traits
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect(),
        }
    }
}

const OPERATORS: &[&str] = &[
    "EQUAL",
    "NOT_EQUAL",
    "GREATER_THAN",
    "GREATER_THAN_INCLUSIVE",
    "LESS_THAN",
    "LESS_THAN_INCLUSIVE",
    "CONTAINS",
    "NOT_CONTAINS",
    "IN",
    "REGEX",
    "PERCENTAGE_SPLIT",
    "MODULO",
    "IS_SET",
    "IS_NOT_SET",
    "UNKNOWN",
];

const PROPERTIES: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "$.environment.name",
    "$.environment.key",
    "$.identity.identifier",
    "$.identity.key",
    "$.identity.traits.a",
    "$.identity.traits['b']",
    "$.features.f1.enabled",
    "$.features.f2.value",
    "$.features['f3'].name",
    "$.features.f4.key",
    "$.features.f1.metadata.feature_id",
    "$.nothing",
    "$.not[a path",
];

/// Values of conditions, and of traits as text.
const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "b",
    "A",
    "é",
    "true",
    "True",
    "FALSE",
    "0",
    "1",
    "2",
    "-3",
    "+2",
    "02",
    "18",
    "1.5",
    "2.0",
    "1e3",
    "-0",
    "inf",
    "nan",
    ".5",
    "k",
    "k_i1",
    "i1",
    "i1,i2",
    "a,b,1",
    "a, b ,2",
    "[\"a\"]",
    "1.2.3",
    "1.10.0",
    "1.2.3:semver",
    "2.0.0-rc.1",
    "2.0.0-rc.1:semver",
    "1.2:semver",
    "^a",
    "a|b",
    "^.$",
    "[0-9]+",
    "^$",
    "(",
    "3|0",
    "2|1",
    "1.5|0",
    "0|0",
    "2|",
    "10",
    "25",
    "75",
    "99",
    "9007199254740993",
    "Environment",
    "f3",
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => select(TEXTS).prop_map(str::to_owned),
        1 => "[ -~é]{0,12}".prop_filter("not a pattern that means more there", |text| !text.contains('\\')),
    ]
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => texts().prop_map(Value::from),
        2 => (-3_i64..20).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => select([0.0, -0.0, 0.5, 1.5, 2.0, 1e21, 1e300, -1e-7].as_slice()).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn variants() -> impl Strategy<Value = Vec<Value>> {
    let variant = (proptest::option::of(0_u32..3), 0..40_u32, scalars());
    proptest::collection::vec(variant, 0..3).prop_map(|variants| {
        let with_ids = |(index, (id, share, value)): (usize, (Option<u32>, u32, Value))| {
            json!({
                // No two are the same.
                "id": id.map(|id| id * 10 + u32::try_from(index).unwrap()),
                "mv_fs_value_uuid": format!("{index}0000000-0000-4000-8000-000000000000"),
                "percentage_allocation": share,
                "multivariate_feature_option": {"id": null, "value": value},
            })
        };
        variants.into_iter().enumerate().map(with_ids).collect()
    })
}

fn states(most: usize) -> impl Strategy<Value = Vec<Value>> {
    let state = (
        (1_u32..7, scalars(), any::<bool>(), variants()),
        proptest::option::of(0_u32..3),
        proptest::option::of(1_u32..40),
        select(["STANDARD", "MULTIVARIATE", ""].as_slice()),
    );
    let made = state.prop_map(
        |((id, value, enabled, variants), priority, django_id, kind)| {
            let mut state = support::state(id, &format!("f{id}"), &value);
            state["enabled"] = enabled.into();
            state["django_id"] = django_id.into();
            state["multivariate_feature_state_values"] = variants.into();
            state["feature_segment"] = priority.map_or(Value::Null, |at| json!({"priority": at}));
            state["feature"]["type"] = match kind {
                "" => Value::Null,
                kind => kind.into(),
            };
            state
        },
    );
    proptest::collection::vec(made, 0..most)
}

fn rules() -> impl Strategy<Value = Vec<Value>> {
    let condition = (
        select(OPERATORS),
        proptest::option::weighted(0.95, select(PROPERTIES)),
        proptest::option::weighted(0.95, texts()),
    )
        .prop_map(|(operator, property, value)| {
            json!({"operator": operator, "property_": property, "value": value})
        })
        .boxed();
    let kind = select(["ALL", "ANY", "NONE", "OTHER"].as_slice());
    let rule = move |rules: BoxedStrategy<Vec<Value>>| {
        let conditions = proptest::collection::vec(condition.clone(), 0..3);
        (kind.clone(), conditions, rules).prop_map(|(kind, conditions, rules)| {
            json!({"type": kind, "conditions": conditions, "rules": rules})
        })
    };
    let leaf = rule(Just(Vec::new()).boxed());
    let nested = leaf.prop_recursive(3, 8, 3, move |inner| {
        rule(proptest::collection::vec(inner, 0..3).boxed())
    });
    proptest::collection::vec(nested, 0..3)
}

fn segments() -> impl Strategy<Value = Vec<Value>> {
    let segment = (1_u32..25, rules(), states(4)).prop_map(|(id, rules, states)| {
        json!({"id": id, "name": "", "rules": rules, "feature_states": states})
    });
    proptest::collection::vec(segment, 0..8)
}

fn identifiers() -> impl Strategy<Value = String> {
    select(["i1", "i2", "i3", "", "ä"].as_slice()).prop_map(str::to_owned)
}

fn overrides() -> impl Strategy<Value = Vec<Value>> {
    let time = select(["2026-01-02T03:04:05.678901+00:00", "2026-01-02T03:04:05"].as_slice());
    let identity = (identifiers(), states(4), time).prop_map(|(identifier, states, time)| {
        json!({
            "identifier": identifier,
            "environment_api_key": "k",
            "created_date": time,
            "identity_features": states,
            "identity_traits": [{"trait_key": "a", "trait_value": 1}],
            "django_id": null,
        })
    });
    proptest::collection::vec(identity, 0..4)
}

/// A document that fits.
pub fn document() -> impl Strategy<Value = Value> {
    (states(8), segments(), overrides()).prop_map(|(states, segments, overrides)| {
        let mut document = support::document(&states, &segments);
        document["identity_overrides"] = overrides.into();
        document
    })
}

/// An identity.
pub fn asked() -> impl Strategy<Value = IdentityAsked> {
    let value = prop_oneof![
        9 => scalars(),
        1 => select(vec![json!([]), json!({"a": 1}), json!(["a"])]),
    ];
    let key = select(["a", "b", "c", "$.nothing", ""].as_slice()).prop_map(str::to_owned);
    let traits = proptest::collection::vec((key, value), 0..5);
    (identifiers(), traits).prop_map(|(identifier, traits)| IdentityAsked { identifier, traits })
}

/// A change of a document: where, and to what; `None` takes it out.
pub type DocumentChange = (Vec<u16>, Option<Value>);

/// Changes that may make a document unfit.
pub fn changes() -> impl Strategy<Value = Vec<DocumentChange>> {
    let value = select(vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(true),
        json!("text"),
        json!([]),
        json!({}),
        json!([1, "f1", null]),
    ]);
    let change = (
        proptest::collection::vec(any::<u16>(), 1..9),
        proptest::option::weighted(0.7, value),
    );
    proptest::collection::vec(change, 0..3)
}

/// Objects that are split into their members, so that no list stands for one.
fn is_split(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path.as_slice(),
        ["project"] | ["project", "segments", _] | ["identity_overrides", _]
    )
}

/// Makes a change, unless it is one that the crate panics at or that is agreed on as a difference.
pub fn change(document: &mut Value, (way, to): &DocumentChange) {
    let mut path: Vec<String> = Vec::new();
    let mut at = document;
    let mut steps = way.iter().peekable();
    while let Some(step) = steps.next() {
        let is_last = steps.peek().is_none();
        let count = match at {
            Value::Array(elements) => elements.len(),
            Value::Object(members) => members.len(),
            _ => return,
        };
        if count == 0 {
            return;
        }
        let index = usize::from(*step) % count;
        let key = match at {
            Value::Object(members) => members.keys().nth(index).unwrap().clone(),
            _ => index.to_string(),
        };
        path.push(key.clone());
        if is_last {
            let is_time = key == "created_date" && to.as_ref().is_some_and(Value::is_string);
            let is_list = to.as_ref().is_some_and(Value::is_array) && is_split(&path);
            if is_time || is_list {
                return;
            }
        }
        match (at, is_last, to) {
            (Value::Object(members), true, None) => {
                members.remove(&key);
                return;
            }
            (Value::Array(elements), true, None) => {
                elements.remove(index);
                return;
            }
            (Value::Object(members), true, Some(to)) => {
                members.insert(key, to.clone());
                return;
            }
            (Value::Array(elements), true, Some(to)) => {
                elements[index] = to.clone();
                return;
            }
            (Value::Object(members), false, _) => at = members.get_mut(&key).unwrap(),
            (Value::Array(elements), false, _) => at = &mut elements[index],
            _ => return,
        }
    }
}
