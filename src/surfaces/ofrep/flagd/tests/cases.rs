//! What flagd's own code answered, as far as it can be said without HTTP.

use std::rc::Rc;

use serde_json::{Value as Json, json};

use super::support::{Defined, NOW, body, recorded, value};
use crate::http::{ETag, IfNoneMatch};
use crate::surfaces::ofrep::flagd::{
    EvaluationContext, FlagAnswer, Fractional, JsonValue, Selector,
};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What these cases are about is decided before or after all that is here.
const OF_HTTP: [(&str, &str); 6] = [
    ("http.get", "methods"),
    ("http.slash-in-key", "routes"),
    ("http.too-big", "the bound of a body"),
    ("etag.query-param-veto", "the query"),
    ("cors.preflight", "CORS"),
    ("cors.expose-etag", "CORS"),
];

/// An answer, and the tag that goes with it.
struct Answered {
    answer: FlagAnswer,
    tag: Option<ETag>,
}

fn cases() -> Vec<Json> {
    let text = include_str!("../../../../../tests/ofrep/cases.json");
    let all: Json = serde_json::from_str(text).unwrap();
    all["cases"].as_array().unwrap().clone()
}

/// Asks as a request does, without routes.
fn ask(flags: &Defined, config: &Json, request: &Json, tags: &[Option<ETag>]) -> Answered {
    let headers = &request["headers"];
    let path = request["path"].as_str().unwrap();
    let key = path.strip_prefix("/ofrep/v1/evaluate/flags").unwrap();
    let key = key.strip_prefix('/').unwrap_or(key).replace("%20", " ");
    let key = Some(key.as_str()).filter(|key| !key.is_empty());
    let untagged = |answer| Answered { answer, tag: None };
    let selector = headers["flagd-selector"].as_str().unwrap_or_default();
    let selector = match Selector::parse(selector.as_bytes()) {
        Ok(selector) => selector,
        Err(problem) => return untagged(FlagAnswer::bad_selector(key, &problem)),
    };
    let sent = match &request["body"] {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        body => body.to_string(),
    };
    let Ok(context) = EvaluationContext::parse(sent.as_bytes()) else {
        return untagged(FlagAnswer::invalid_context(key));
    };
    let fixed = config["context_values"].as_object().into_iter().flatten();
    let fixed: Vec<(Rc<str>, JsonValue)> = fixed
        .map(|(name, json)| (name.as_str().into(), value(json)))
        .collect();
    let mapped = config["context_from_header"]
        .as_object()
        .into_iter()
        .flatten();
    let mapped = mapped.filter_map(|(header, name)| {
        Some((name.as_str()?, headers[header.to_lowercase()].as_str()?))
    });
    let context = context.with(EvaluationContext::additions(&fixed, mapped));
    let Some(key) = key else {
        let tag = flags.tag(&selector, &context, NOW);
        let mut held = IfNoneMatch::default();
        let sent = headers["if-none-match"]
            .as_str()
            .map(|sent| with_tags(sent, tags));
        if let Some(sent) = &sent {
            held.add(sent.as_bytes());
        }
        let answer = match held.matches(&tag) {
            true => FlagAnswer {
                status: 304,
                body: Vec::new(),
            },
            false => flags.bulk(&selector, &context, NOW),
        };
        return Answered {
            answer,
            tag: Some(tag),
        };
    };
    untagged(flags.single(key, &selector, &context))
}

/// A header with tags in place of the words for them.
fn with_tags(header: &str, tags: &[Option<ETag>]) -> String {
    let mut header = header.to_owned();
    for (step, tag) in tags.iter().enumerate() {
        let Some(tag) = tag else { continue };
        let tag = std::str::from_utf8(tag.as_bytes()).unwrap();
        header = header.replace(&format!("$etag-opaque:{step}"), &format!("\"{tag}\""));
        header = header.replace(&format!("$etag-unquoted:{step}"), tag);
        header = header.replace(&format!("$etag:{step}"), &format!("W/\"{tag}\""));
    }
    header
}

#[test]
fn answers_are_those_of_flagd() {
    let mut seen = Vec::new();
    for case in cases() {
        let id = case["id"].as_str().unwrap();
        if OF_HTTP.iter().any(|(other, _)| *other == id) {
            seen.push(id.to_owned());
            continue;
        }
        let recorded = recorded();
        let own = case.get("documents").unwrap_or(&recorded["documents"]);
        let config = case.get("config").cloned().unwrap_or(json!({}));
        let fractional = match config["fractional"].as_str() {
            Some("v3") => Fractional::V3,
            _ => Fractional::V2,
        };
        let mut flags = Defined::new(own, fractional);
        let mut tags: Vec<Option<ETag>> = Vec::new();
        for step in case["steps"].as_array().unwrap() {
            if let Some(documents) = step.get("replace_documents") {
                flags = Defined::new(documents, fractional);
            }
            if step["instance"] == "B" {
                flags = Defined::new(own, fractional);
            }
            let Answered { answer, tag } = ask(&flags, &config, &step["request"], &tags);
            let expected = &step["expect"];
            assert_eq!(expected["status"], answer.status, "{id}");
            if let Some(json) = expected.get("body") {
                assert_eq!(body(&answer), value(json), "{id}");
            }
            for (name, json) in expected["body_subset"].as_object().into_iter().flatten() {
                assert_eq!(
                    body(&answer).member(name),
                    Some(&value(json)),
                    "{id}: {name}"
                );
            }
            match expected["etag"]
                .as_str()
                .map(|words| words.split_once(':').unwrap_or((words, "")))
            {
                Some(("present", _)) => assert!(tag.is_some(), "{id}"),
                Some(("absent", _)) => assert_eq!(tag, None, "{id}"),
                Some(("same", step)) => {
                    assert_eq!(tag, tags[step.parse::<usize>().unwrap()], "{id}")
                }
                Some(("differs", step)) => {
                    assert_ne!(tag, tags[step.parse::<usize>().unwrap()], "{id}")
                }
                other => assert_eq!(other, None, "{id}"),
            }
            tags.push(tag);
        }
    }
    assert_eq!(seen.len(), OF_HTTP.len(), "not among the cases any more");
}
