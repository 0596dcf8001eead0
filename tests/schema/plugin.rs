//! The plugin configuration.

use flag_definitions_filter::config::Settings;
use serde_json::{Value, json};

use crate::{read, root};

fn folder() -> std::path::PathBuf {
    root().join("filter-config")
}

fn schema() -> jsonschema::Validator {
    jsonschema::validator_for(&read(&folder().join("plugin.schema.json"))).unwrap()
}

fn accepted(document: &Value) -> (bool, bool) {
    let settings = Settings::from_json(document.to_string().as_bytes());
    (schema().is_valid(document), settings.is_ok())
}

#[test]
fn every_example_is_accepted_by_both() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(accepted(&read(&path)), (true, true), "{}", path.display());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_example_of_all_settings_has_all_of_them_with_their_defaults() {
    let example = read(&folder().join("examples/all-settings.json"));
    let settings = Settings::from_json(example.to_string().as_bytes()).unwrap();
    assert_eq!(settings, Settings::default());
    compare(&example, &read(&folder().join("plugin.schema.json")));
}

/// Each property of the schema stands in the example, and has its default as value where it has one.
fn compare(example: &Value, schema: &Value) {
    let properties = schema["properties"].as_object().unwrap();
    let names: Vec<_> = example.as_object().unwrap().keys().collect();
    assert_eq!(names, properties.keys().collect::<Vec<_>>());
    for (name, property) in properties {
        if property["properties"].is_object() {
            compare(&example[name], property);
        } else if let Some(default) = property.get("default") {
            assert_eq!(&example[name], default, "{name}");
        }
    }
}

#[test]
fn both_refuse_the_same() {
    for document in [
        json!({"nonsense": 1}),
        json!({"role": "both"}),
        json!({"redis": {"other": {}}}),
        json!({"redis": {"default": {"cluster": ""}}}),
        json!({"redis": {"default": {"dialect": "resp"}}}),
        json!({"redis": {"default": {"timeout": 250}}}),
        json!({"redis": {"default": {"timeout": "250"}}}),
        json!({"redis": {"default": {"timeout": "1.5s"}}}),
        json!({"snapshot": {"prefix": ""}}),
        json!({"snapshot": {"prefix": "a\nb"}}),
        json!({"snapshot": {"buckets": 0}}),
        json!({"snapshot": {"buckets": 1_048_577}}),
        json!({"snapshot": {"max_age": "10 m"}}),
        json!({"definitions": {"max_bytes": 0}}),
        json!({"definitions": {"max_bytes": 64_000_000}}),
        json!({"definitions": {"body_cache_bytes": 1}}),
        json!({"definitions": {"body_cache_bytes": 65_535}}),
        json!({"definitions": {"body_cache_bytes": 1_073_741_825}}),
        json!({"definitions": {"body_cache_bytes": -1}}),
        json!({"definitions": {"large_bytes_per_second": 1_048_575}}),
        json!({"definitions": {"gzip": 1}}),
        json!({"upstream": "maybe"}),
        json!({"unknown_credential": null, "upstream": null}),
        json!({"posthog": {"enabled": "yes"}}),
        json!({"posthog": {"nonsense": 1}}),
        json!({"health": {"paths": ["/flags/definitions"]}}),
        json!({"health": {"paths": "/ready"}}),
        json!({"flagsmith": {"upstream": "maybe"}}),
        json!({"flagsmith": {"rate_limit": "600/fortnight"}}),
        json!({"flagsmith": {"max_document_bytes": 1_023}}),
        json!({"flagsmith": {"documents_bytes": 1_073_741_825}}),
        json!({"flagsmith": {"answers_bytes": -1}}),
        json!({"ofrep": {"keys": "maybe"}}),
        json!({"ofrep": {"fractional": "v1"}}),
        json!({"ofrep": {"max_body_bytes": 1_023}}),
        json!({"ofrep": {"max_document_bytes": 33_554_433}}),
        json!({"ofrep": {"context": {"static": []}}}),
        json!({"ofrep": {"context": {"headers": {"a b": "c"}}}}),
        json!({"ofrep": {"context": {"headers": {"a": 1}}}}),
        json!({"ofrep": {"context": {"other": {}}}}),
        json!({"ofrep": {"cors_origins": vec!["a"; 65]}}),
        json!({"ofrep": {"rate_limit": "600/fortnight"}}),
        json!([]),
    ] {
        assert_eq!(accepted(&document), (false, false), "{document}");
    }
}
