//! Answers of Flagsmith's own proxy, recorded: `tests/flagsmith/cases.json`. Here are those that evaluation decides.

use serde_json::Value;

use super::support::{compile, recorded, values, written};
use crate::http::query::{decode, split_query};
use crate::surfaces::flagsmith::engine::{Environment, Sees, parse_identity};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CLIENT_KEY: &str = "pub.client.7Qm2";

fn environment() -> Environment {
    compile(recorded().as_bytes()).unwrap()
}

/// The value of a query parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = decode(value.as_bytes());
        (key == name).then(|| String::from_utf8_lossy(&value).into_owned())
    })
}

/// Status and body of an answer; `None` when it is not evaluation that decides it.
fn answer(environment: &Environment, request: &Value) -> Option<(u16, Value)> {
    let (path, query) = split_query(request["path"].as_str()?.as_bytes());
    let query = std::str::from_utf8(query).unwrap();
    let json = |out: Vec<u8>| serde_json::from_slice(&out).unwrap();
    let mut out = Vec::new();
    let body = match (&request["body_json"], &request["body_text"]) {
        (Value::Null, text) => text.as_str().unwrap_or_default().to_owned(),
        (body, _) => body.to_string(),
    };
    let method = request["method"].as_str()?;
    match (method, std::str::from_utf8(path).unwrap().trim_matches('/')) {
        ("GET", "api/v1/flags") if query.is_empty() => {
            Some((200, written(&environment.flags(Sees::Public, false))))
        }
        ("GET", "api/v1/flags") => {
            let name = parameter(query, "feature")?;
            match environment.flag(&name, Sees::Public, false) {
                Some(flag) => flag.write(&mut out),
                None => return Some((404, Value::Null)),
            }
            Some((200, json(out)))
        }
        ("GET" | "POST", "api/v1/identities") => {
            let body = match method {
                "POST" => body,
                _ => serde_json::json!({"identifier": parameter(query, "identifier")?}).to_string(),
            };
            let asked = match parse_identity(body.as_bytes()) {
                Ok(asked) => asked,
                Err(problem) => return Some((problem.status(), problem.text().into())),
            };
            let flags = environment.identity(&asked, Sees::Public, false);
            flags.write_identity(&asked.traits, &mut out);
            Some((200, json(out)))
        }
        _ => None,
    }
}

/// Lists of flags by the id of their feature.
fn sorted(mut body: Value) -> Value {
    let flags = match &mut body {
        Value::Array(flags) => Some(flags),
        Value::Object(members) => members.get_mut("flags").and_then(Value::as_array_mut),
        _ => None,
    };
    if let Some(flags) = flags {
        flags.sort_by_key(|flag| flag["feature"]["id"].as_u64());
    }
    body
}

#[test]
fn recorded_answers_are_given() {
    let environment = environment();
    let cases: Value =
        serde_json::from_str(include_str!("../../../../../tests/flagsmith/cases.json")).unwrap();
    let mut compared = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let (id, request, expected) = (&case["id"], &case["request"], &case["expect"]);
        let status = expected["status"].as_u64().unwrap();
        if case["setup"] != "main"
            || request["headers"]["X-Environment-Key"] != CLIENT_KEY
            || status == 415
            || case["request"]["path"]
                .as_str()
                .unwrap()
                .matches("feature=")
                .count()
                > 1
        {
            continue;
        }
        let Some((given, body)) = answer(&environment, request) else {
            continue;
        };
        assert_eq!(u64::from(given), status, "{id}");
        match status {
            200 => assert_eq!(body, sorted(expected["body_json"].clone()), "{id}"),
            400 | 422 => {
                let (given, expected) = (body.as_str().unwrap(), &expected["body_text"]);
                let (prefix, _) = expected.as_str().unwrap().split_once(": ").unwrap();
                assert!(given.starts_with(&format!("{prefix}: ")), "{id}: {given}");
            }
            _ => assert_eq!(status, 404, "{id}"),
        }
        compared.push(id.as_str().unwrap());
    }
    assert_eq!(compared.len(), 40, "{compared:?}");
}

#[test]
fn features_come_in_the_order_of_their_ids() {
    let environment = environment();
    let ids: Vec<u32> = environment.features().map(|(id, _)| id).collect();
    assert_eq!(ids, (1..=17).collect::<Vec<_>>());
    assert_eq!(environment.api_key, CLIENT_KEY);
    assert_eq!(environment.name, "Aurora Production");
    assert_eq!(
        environment.updated_at(),
        Some("2026-05-04T03:02:01.654321+00:00")
    );
    assert!(environment.hides_disabled_flags());
    assert_eq!(environment.patterns_left_out(), 0);
}

#[test]
fn a_server_key_sees_everything() {
    let environment = environment();
    let public = values(&environment.flags(Sees::Public, false));
    let all = values(&environment.flags(Sees::Everything, false));
    assert_eq!(public.len() + 1, all.len());
    assert_eq!(all["secret_limits"], 99);
    assert!(
        environment
            .flag("secret_limits", Sees::Public, false)
            .is_none()
    );
    assert!(
        environment
            .flag("secret_limits", Sees::Everything, false)
            .is_some()
    );
}

#[test]
fn disabled_flags_are_hidden_when_that_is_asked() {
    let environment = environment();
    let shown = written(&environment.flags(Sees::Public, true));
    let shown = shown.as_array().unwrap();
    assert!(shown.iter().all(|flag| flag["enabled"] == true));
    // Off in the environment, and on in the segment of those who are not onboarded.
    assert!(environment.flag("dark_mode", Sees::Public, true).is_some());
    assert!(environment.flag("score_gate", Sees::Public, true).is_none());
    assert!(
        environment
            .flag("score_gate", Sees::Public, false)
            .is_some()
    );
}

#[test]
fn each_flag_is_the_same_alone() {
    let environment = environment();
    for flag in environment.flags(Sees::Everything, false).iter() {
        let mut in_list = Vec::new();
        flag.write(&mut in_list);
        let read: Value = serde_json::from_slice(&in_list).unwrap();
        let name = read["feature"]["name"].as_str().unwrap();
        let mut alone = Vec::new();
        let flag = environment.flag(name, Sees::Everything, false).unwrap();
        flag.write(&mut alone);
        assert_eq!(in_list, alone, "{name}");
    }
}
