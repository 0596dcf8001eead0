//! What flagd's own code answered, asked as a client asks.

use serde_json::{Value as Json, json};

use super::*;
use crate::surfaces::ofrep::flagd::tests::support::value;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The plugin configuration of a case.
fn settings(config: &Json) -> String {
    let mut settings = json!({"context": {}});
    for (name, value) in config.as_object().into_iter().flatten() {
        match name.as_str() {
            "context_values" => settings["context"]["static"] = value.clone(),
            "context_from_header" => settings["context"]["headers"] = value.clone(),
            "fractional" | "cors_origins" => settings[name.as_str()] = value.clone(),
            other => panic!("{other}: what does this setting mean?"),
        }
    }
    settings.to_string()
}

/// A header with tags in place of the words for them.
fn with_tags(header: &str, tags: &[String]) -> String {
    let mut header = header.to_owned();
    for (step, tag) in tags.iter().enumerate() {
        let quoted = tag.trim_start_matches("W/");
        header = header.replace(&format!("$etag-opaque:{step}"), quoted);
        header = header.replace(&format!("$etag-unquoted:{step}"), quoted.trim_matches('"'));
        header = header.replace(&format!("$etag:{step}"), tag);
    }
    header
}

fn body_of(request: &Json) -> String {
    match (&request["body"], request["body_size"].as_u64()) {
        (_, Some(size)) => "x".repeat(usize::try_from(size).unwrap()),
        (Json::Null, _) => String::new(),
        (Json::String(text), _) => text.clone(),
        (body, _) => body.to_string(),
    }
}

#[test]
fn clients_get_what_flagd_answered() {
    let text = include_str!("../../../../../tests/ofrep/cases.json");
    let all: Json = serde_json::from_str(text).unwrap();
    let recorded = support::recorded();
    let mut asked = 0;
    for case in all["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let own = case.get("documents").unwrap_or(&recorded["documents"]);
        let settings = settings(&case["config"]);
        let mut worlds = [World::with(&settings, own), World::with(&settings, own)];
        let mut tags: Vec<String> = Vec::new();
        for step in case["steps"].as_array().unwrap() {
            let world = &mut worlds[usize::from(step["instance"] == "B")];
            if let Some(documents) = step.get("replace_documents") {
                world.publish(documents);
            }
            let request = &step["request"];
            let path = request["path"].as_str().unwrap();
            let headers = request["headers"].as_object().into_iter().flatten();
            let headers: Vec<_> = headers
                .map(|(name, value)| {
                    (
                        name.to_lowercase(),
                        with_tags(value.as_str().unwrap(), &tags),
                    )
                })
                .collect();
            let body = body_of(request);
            let length = body.len().to_string();
            let mut fields = vec![("content-length", length.as_str())];
            fields.extend(
                headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
            let method = request["method"].as_str().unwrap();
            let got = world.drive(method, path, &fields, Some(&body));
            check(id, &step["expect"], &got, &tags);
            tags.push(got.header("etag").unwrap_or_default().to_owned());
            asked += 1;
        }
    }
    assert!(asked >= 107, "{asked}");
}

fn check(id: &str, expected: &Json, got: &Got, tags: &[String]) {
    assert_eq!(expected["status"], got.status(), "{id}: {:?}", got.became);
    if let Some(json) = expected.get("body") {
        assert_eq!(value(&got.json()), value(json), "{id}");
    }
    for (name, json) in expected["body_subset"].as_object().into_iter().flatten() {
        assert_eq!(value(&got.json()[name]), value(json), "{id}: {name}");
    }
    if expected["body_empty"] == true {
        assert!(got.body.is_empty(), "{id}");
    }
    for (name, value) in expected["headers"].as_object().into_iter().flatten() {
        assert_eq!(got.header(name), value.as_str(), "{id}: {name}");
    }
    for (name, value) in expected["headers_contain"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let found = got.header(name).unwrap_or_default();
        assert!(
            found.contains(value.as_str().unwrap()),
            "{id}: {name}: {found}"
        );
    }
    let tag = got.header("etag");
    let other = |step: &str| tags[step.parse::<usize>().unwrap()].as_str();
    match expected["etag"]
        .as_str()
        .map(|word| word.split_once(':').unwrap_or((word, "")))
    {
        Some(("present", _)) => assert!(tag.is_some_and(|tag| tag.starts_with("W/\"")), "{id}"),
        Some(("absent", _)) => assert_eq!(tag, None, "{id}"),
        Some(("same", step)) => assert_eq!(tag, Some(other(step)), "{id}"),
        Some(("differs", step)) => assert_ne!(tag, Some(other(step)), "{id}"),
        other => assert_eq!(other, None, "{id}"),
    }
}
