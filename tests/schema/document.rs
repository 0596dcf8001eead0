//! The source document.

use std::sync::LazyLock;

use flag_definitions_filter::surfaces::posthog::document;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{read, root};

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = read(&root().join("filter-config/snapshot.schema.json"));
    jsonschema::validator_for(&schema).unwrap()
});

const UUID: &str = "0190d6f1-0000-7000-8000-00000000000A";

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// What the schema says and what the parser says.
fn accepted(document: &Value) -> (bool, bool) {
    let parsed = document::parse(document.to_string().as_bytes());
    (SCHEMA.is_valid(document), parsed.is_ok())
}

/// A document with everything in it.
fn full() -> Value {
    json!({
        "$schema": "snapshot.schema.json",
        "format": 1,
        "teams": [
            {"id": 1, "api_token": "phc_a", "organization_id": UUID, "secret_token_sha256": [hash('a'), hash('B')]},
            {"id": 4_294_967_295_u32, "api_token": "~", "organization_id": null, "secret_token_sha256": []},
        ],
        "project_secret_keys": [
            {"sha256": format!("sha256${}", hash('c')), "team_id": 1, "scopes": ["feature_flag:read"]},
            {"sha256": hash('d'), "team_id": 1, "scopes": null},
        ],
        "personal_keys": [
            {
                "sha256": hash('e'), "user_active": true, "organization_ids": [UUID], "scoped_teams": [0, 1],
                "scoped_organizations": [UUID], "scopes": [],
            },
            {
                "sha256": hash('f'), "user_active": false, "organization_ids": [], "scoped_teams": null,
                "scoped_organizations": null, "scopes": null,
            },
        ],
        "ofrep_keys": [
            {"sha256": hash('1'), "selector": "flagSetId=shop"},
            {"sha256": format!("sha256${}", hash('2')), "selector": null},
        ],
    })
}

#[test]
fn the_samples_are_accepted_by_both() {
    let sample = read(&root().join("envoy/samples/snapshot.json"));
    for document in [sample, full(), json!({"format": 1})] {
        assert_eq!(accepted(&document), (true, true), "{document}");
    }
}

#[test]
fn both_refuse_the_same() {
    for (pointer, bad) in [
        ("", json!([])),
        ("/format", json!(2)),
        ("/format", json!("1")),
        ("/$schema", json!(null)),
        ("/teams", json!(null)),
        ("/teams/0", json!("phc_a")),
        ("/teams/0/id", json!(0)),
        ("/teams/0/id", json!(-1)),
        ("/teams/0/id", json!(4_294_967_296_u64)),
        ("/teams/0/id", json!("1")),
        ("/teams/0/api_token", json!("")),
        ("/teams/0/api_token", json!("phc a")),
        ("/teams/0/api_token", json!("phc_é")),
        ("/teams/0/api_token", json!("phc_a\n")),
        ("/teams/0/api_token", json!("a".repeat(201))),
        ("/teams/0/organization_id", json!("")),
        ("/teams/0/organization_id", json!(UUID.replace('-', ""))),
        ("/teams/0/secret_token_sha256", json!(null)),
        ("/teams/0/secret_token_sha256/0", json!("phs_clear")),
        ("/teams/0/secret_token_sha256/0", json!("a".repeat(63))),
        ("/teams/0/secret_token_sha256/0", json!("g".repeat(64))),
        ("/project_secret_keys/0/team_id", json!(0)),
        ("/project_secret_keys/0/team_id", json!(null)),
        ("/project_secret_keys/0/scopes", json!("*")),
        ("/project_secret_keys/0/scopes/0", json!(1)),
        ("/personal_keys/0/user_active", json!(1)),
        ("/personal_keys/0/organization_ids", json!(null)),
        ("/personal_keys/0/organization_ids/0", json!("x")),
        ("/personal_keys/0/scoped_teams/0", json!(-1)),
        ("/personal_keys/0/scoped_organizations/0", json!(null)),
        ("/ofrep_keys", json!(null)),
        ("/ofrep_keys/0", json!("key")),
        ("/ofrep_keys/0/sha256", json!("clear")),
        ("/ofrep_keys/0/selector", json!(1)),
    ] {
        let mut document = full();
        *document.pointer_mut(pointer).unwrap() = bad;
        assert_eq!(accepted(&document), (false, false), "{pointer} {document}");
    }
}

#[test]
fn what_is_required_and_what_is_unknown_is_the_same() {
    for (pointer, required) in [
        ("", &["format"][..]),
        ("/teams/0", &["id", "api_token"]),
        ("/project_secret_keys/0", &["sha256", "team_id"]),
        (
            "/personal_keys/0",
            &["sha256", "user_active", "organization_ids"],
        ),
        ("/ofrep_keys/0", &["sha256"]),
    ] {
        let fields: Vec<String> = object(&mut full(), pointer).keys().cloned().collect();
        for field in fields {
            let mut document = full();
            object(&mut document, pointer).remove(&field);
            if field == "teams" {
                object(&mut document, "").remove("project_secret_keys");
            }
            let expected = !required.contains(&field.as_str());
            assert_eq!(
                accepted(&document),
                (expected, expected),
                "{pointer}/{field}"
            );
        }
        let mut document = full();
        object(&mut document, pointer).insert("secret".to_owned(), json!("x"));
        assert_eq!(accepted(&document), (false, false), "{pointer}");
    }
}

fn object<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    document
        .pointer_mut(pointer)
        .unwrap()
        .as_object_mut()
        .unwrap()
}

/// The places of all values.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found)),
        _ => {}
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(UUID.to_owned()),
        Just(hash('0')),
        "[ -~]{0,3}",
        "(sha256[$])?[0-9a-fA-F]{63,65}",
        "[!-~]{199,201}",
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    prop_oneof![
        3 => leaf.clone(),
        1 => prop::collection::vec(leaf, 0..3).prop_map(Value::from),
        1 => Just(json!({})),
    ]
}

proptest! {
    /// But for what spans several records, which a schema cannot say.
    #[test]
    fn both_decide_alike(changes in prop::collection::vec((any::<prop::sample::Index>(), replacement()), 0..3)) {
        let mut document = full();
        for (place, value) in changes {
            let mut places = Vec::new();
            pointers(&document, "", &mut places);
            let place: &String = place.get(&places);
            *document.pointer_mut(place).unwrap() = value;
        }
        let parsed = document::parse(document.to_string().as_bytes());
        let across = parsed.as_ref().is_err_and(|error| {
            ["is also the id", "is the same secret", "is not the id of a team"]
                .iter()
                .any(|problem| error.problem.starts_with(problem))
        });
        if !across {
            prop_assert_eq!(SCHEMA.is_valid(&document), parsed.is_ok(), "{} {:?}", document, parsed.err());
        }
    }
}
