//! The crate that Flagsmith's own proxy evaluates with, asked the same.
//!
//! It is never asked what makes it panic: whole numbers above `i64::MAX`, and texts as `created_date` that are no time.

mod agreed;
mod shapes;
mod theirs;

use proptest::prelude::*;
use serde_json::{Value, json};

use self::shapes::IdentityAsked;
use super::support::{compile, recorded, request, written};
use crate::surfaces::flagsmith::engine::{Environment, Flags, Sees, hash};

/// Our flags in the shape of theirs.
fn ours(environment: &Environment, asked: Option<&IdentityAsked>) -> Value {
    let list = |flags: &Flags<'_>| written(flags);
    match asked {
        None => list(&environment.flags(Sees::Everything, false)),
        Some(asked) => {
            let traits: Vec<_> = asked
                .traits
                .iter()
                .map(|(k, v)| (&**k, v.clone()))
                .collect();
            let request = request(&asked.identifier, &traits);
            list(&environment.identity(&request, Sees::Everything, false))
        }
    }
}

/// Whether a hash that could decide is so near to a whole percentage that 32 bits see it differently: all shares in
/// [`shapes`] are whole.
fn is_on_a_bound(document: &Value, asked: Option<&IdentityAsked>) -> bool {
    let Some(asked) = asked else { return false };
    let identity = format!("k_{}", asked.identifier);
    let mut texts = vec![identity];
    texts.extend(asked.traits.iter().map(|(_, value)| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }));
    let project = &document["project"]["segments"];
    let segments = project.as_array().into_iter().flatten();
    let mut keys: Vec<String> = segments.clone().map(|s| s["id"].to_string()).collect();
    let states = segments
        .flat_map(|segment| segment["feature_states"].as_array().unwrap())
        .chain(document["feature_states"].as_array().unwrap());
    keys.extend(states.map(|state| match &state["django_id"] {
        Value::Null => state["featurestate_uuid"].as_str().unwrap().to_owned(),
        id => id.to_string(),
    }));
    keys.iter().any(|key| {
        texts.iter().any(|text| {
            let share = hash::percentage(&[key, ",", text]);
            (share - share.round()).abs() < 1e-4
        })
    })
}

#[test]
fn recorded_document() {
    let document: Value = serde_json::from_str(recorded()).unwrap();
    let environment = compile(recorded().as_bytes()).unwrap();
    for identifier in ["vip-1", "vip-2", "blocked", "id-0", "id-1", "user"] {
        for traits in [
            vec![],
            vec![
                ("plan", json!("pro")),
                ("age", json!(20)),
                ("app", json!("3.0.0")),
            ],
            vec![
                ("email", json!("a@acme.test")),
                ("verified", json!(true)),
                ("seq", json!(6)),
            ],
            vec![
                ("role", json!("staff")),
                ("city", json!("Oslo")),
                ("score", json!(1.7)),
            ],
        ] {
            let asked = IdentityAsked::new(identifier, &traits);
            let theirs = theirs::flags(&theirs::sorted_variants(&document), Some(&asked));
            assert_eq!(
                ours(&environment, Some(&asked)),
                theirs,
                "{identifier} {traits:?}"
            );
        }
    }
    assert_eq!(ours(&environment, None), theirs::flags(&document, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_document_gives_the_same_flags(
        document in shapes::document(),
        asked in proptest::option::weighted(0.9, shapes::asked()),
    ) {
        prop_assume!(!is_on_a_bound(&document, asked.as_ref()));
        let environment = compile(document.to_string().as_bytes()).unwrap();
        let theirs = theirs::flags(&theirs::sorted_variants(&document), asked.as_ref());
        prop_assert_eq!(ours(&environment, asked.as_ref()), theirs);
    }

    #[test]
    fn the_same_documents_fit(mut document in shapes::document(), changes in shapes::changes()) {
        for change in changes {
            shapes::change(&mut document, &change);
        }
        let text = document.to_string();
        let ours = compile(text.as_bytes());
        let theirs = theirs::read(&document);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours.err(), theirs.err());
    }
}
