//! Documents for tests.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::surfaces::flagsmith::engine::{
    Compiler, Environment, Flags, IdentityRequest, Progress, Sees, Unfit, parse_identity,
};

/// The document that the cases are about.
pub fn recorded() -> &'static str {
    include_str!("../../../../../tests/flagsmith/environment.json")
}

/// Compiles a document, `budget` bytes at a time.
pub fn compile_in(text: &[u8], budget: usize) -> Result<Environment, Unfit> {
    let mut compiler = Compiler::new(Rc::new(text.to_vec()));
    // Each step reads a byte or more, and compiles a pattern or more.
    for _ in 0..=2 * text.len() + 2 {
        match compiler.step(budget) {
            Progress::More => {}
            Progress::Done(environment) => return Ok(*environment),
            Progress::Unfit(unfit) => return Err(unfit),
        }
    }
    panic!("a document of {} bytes takes too many steps", text.len());
}

/// Compiles a document.
pub fn compile(text: &[u8]) -> Result<Environment, Unfit> {
    compile_in(text, 1 << 16)
}

/// The recorded document.
pub fn recorded_value() -> Value {
    serde_json::from_str(recorded()).unwrap()
}

/// Compiles a document, or says what does not fit.
pub fn fits(document: &Value) -> Result<Environment, String> {
    compile(document.to_string().as_bytes()).map_err(|unfit| unfit.to_string())
}

/// A feature state.
pub fn state(id: u32, name: &str, value: &Value) -> Value {
    json!({
        "feature": {"id": id, "name": name, "type": "STANDARD"},
        "enabled": true,
        "feature_state_value": value,
        "django_id": 100 + id,
        "featurestate_uuid": format!("u{id}"),
        "multivariate_feature_state_values": [],
        "feature_segment": null,
    })
}

/// A document with these states of the environment, and these segments.
pub fn document(states: &[Value], segments: &[Value]) -> Value {
    json!({
        "id": 1,
        "api_key": "k",
        "name": "Environment",
        "feature_states": states,
        "project": {
            "id": 1,
            "name": "",
            "organisation": {
                "id": 1,
                "name": "",
                "feature_analytics": false,
                "stop_serving_flags": false,
                "persist_trait_data": true,
            },
            "hide_disabled_flags": false,
            "segments": segments,
        },
    })
}

/// A segment that gives the feature `f` the value `"in"`, where these rules hold.
pub fn segment(id: u32, rules: &Value) -> Value {
    json!({"id": id, "name": "", "rules": rules, "feature_states": [state(1, "f", &json!("in"))]})
}

/// A rule of one condition.
pub fn condition(operator: &str, property: &Value, value: &Value) -> Value {
    let condition = json!({"operator": operator, "property_": property, "value": value});
    json!({"type": "ALL", "rules": [], "conditions": [condition]})
}

/// The JSON of a list of flags.
pub fn written(flags: &Flags<'_>) -> Value {
    let mut out = Vec::new();
    flags.write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

/// The values of flags by name.
pub fn values(flags: &Flags<'_>) -> serde_json::Map<String, Value> {
    let list = written(flags);
    let named = |flag: &Value| {
        let name = flag["feature"]["name"].as_str().unwrap().to_owned();
        (name, flag["feature_state_value"].clone())
    };
    list.as_array().unwrap().iter().map(named).collect()
}

/// A request of an identity with these traits.
pub fn request(identifier: &str, traits: &[(&str, Value)]) -> IdentityRequest<'static> {
    let traits: Vec<_> = traits
        .iter()
        .map(|(key, value)| json!({"trait_key": key, "trait_value": value}))
        .collect();
    let body = json!({"identifier": identifier, "traits": traits}).to_string();
    parse_identity(body.as_bytes()).unwrap().into_owned()
}

/// Whether an identity with these traits is in the segment that these rules are.
pub fn is_in(rules: &Value, identifier: &str, traits: &[(&str, Value)]) -> bool {
    let text = document(&[state(1, "f", &json!("out"))], &[segment(1, rules)]);
    let environment = compile(text.to_string().as_bytes()).unwrap();
    let request = request(identifier, traits);
    values(&environment.identity(&request, Sees::Public, false))["f"] == "in"
}
