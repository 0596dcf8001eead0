//! Which documents fit.

use serde_json::{Value, json};

use super::support::{
    compile, condition, document, fits, recorded, recorded_value as value, request, segment, state,
    values, written,
};
use crate::surfaces::flagsmith::engine::Sees;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The document with another value at a JSON pointer.
fn with(pointer: &str, to: Value) -> Value {
    let mut document = value();
    *document.pointer_mut(pointer).expect(pointer) = to;
    document
}

/// The document without a member.
fn without(pointer: &str, member: &str) -> Value {
    let mut document = value();
    let object = document.pointer_mut(pointer).unwrap().as_object_mut();
    object.unwrap().remove(member).expect(member);
    document
}

const RULE: &str = "/project/segments/1/rules/0/rules/0";
const CONDITION: &str = "/project/segments/1/rules/0/rules/0/conditions/0";
const STATE: &str = "/feature_states/6";

#[test]
fn what_does_not_fit_is_said_with_its_place() {
    let at = |pointer: &str, member: &str| format!("{pointer}/{member}");
    for (pointer, to, words) in [
        ("/id".to_owned(), json!(-1), "id does not fit, expected u32"),
        (
            "/api_key".to_owned(),
            json!(null),
            "api_key does not fit, expected a string",
        ),
        (
            "/name".to_owned(),
            json!(null),
            "name does not fit, expected a string",
        ),
        (
            "/project".to_owned(),
            json!(null),
            "project does not fit, expected an object",
        ),
        (
            "/feature_states".to_owned(),
            json!({}),
            "feature_states does not fit, expected a list",
        ),
        (
            "/identity_overrides".to_owned(),
            json!(null),
            "identity_overrides does not fit, expected a list",
        ),
        (
            "/project/organisation".to_owned(),
            json!("secret"),
            "project.organisation does not fit, expected struct OrganisationText",
        ),
        (
            "/project/hide_disabled_flags".to_owned(),
            json!(1),
            "project.hide_disabled_flags does not fit, expected a boolean",
        ),
        (
            "/project/segments/3".to_owned(),
            json!([]),
            "project.segments[3] does not fit, expected an object",
        ),
        (
            "/project/server_key_only_feature_ids".to_owned(),
            json!([1, "secret"]),
            "project.server_key_only_feature_ids[1] does not fit, expected u32",
        ),
        (
            "/project/segments/0/id".to_owned(),
            json!(1.5),
            "project.segments[0].id does not fit, expected u32",
        ),
        (
            "/project/segments/1/rules".to_owned(),
            json!(null),
            "project.segments[1].rules does not fit, expected a list",
        ),
        (
            at(RULE, "type"),
            json!(7),
            "project.segments[1].rules[0].rules[0].type does not fit, expected a string",
        ),
        (
            at(RULE, "conditions"),
            json!(null),
            "project.segments[1].rules[0].rules[0].conditions does not fit, expected a sequence",
        ),
        (
            at(CONDITION, "value"),
            json!(18),
            "project.segments[1].rules[0].rules[0].conditions[0].value does not fit, expected a string",
        ),
        (
            at(STATE, "enabled"),
            json!("secret"),
            "feature_states[6].enabled does not fit, expected a boolean",
        ),
        (
            at(STATE, "feature_state_value"),
            json!(["secret"]),
            "feature_states[6].feature_state_value does not fit, expected text, a number, true, false or null",
        ),
        (
            at(STATE, "django_id"),
            json!("secret"),
            "feature_states[6].django_id does not fit, expected u32",
        ),
        (
            at(STATE, "feature/name"),
            json!(null),
            "feature_states[6].feature.name does not fit, expected a string",
        ),
        (
            at(STATE, "featurestate_uuid"),
            json!(null),
            "feature_states[6].featurestate_uuid does not fit, expected a string",
        ),
        (
            at(
                STATE,
                "multivariate_feature_state_values/0/percentage_allocation",
            ),
            json!(null),
            "feature_states[6].multivariate_feature_state_values[0].percentage_allocation does not fit, expected f64",
        ),
        (
            "/project/segments/0/feature_states/0/feature_segment/priority".to_owned(),
            json!(1.0),
            "project.segments[0].feature_states[0].feature_segment.priority does not fit, expected u32",
        ),
        (
            "/identity_overrides/1/created_date".to_owned(),
            json!("secret"),
            "identity_overrides[1].created_date does not fit, expected an RFC 3339 time",
        ),
        (
            "/identity_overrides/1/identity_traits/0/trait_value".to_owned(),
            json!({}),
            "identity_overrides[1].identity_traits[0].trait_value does not fit, expected text, a number, true, false or null",
        ),
    ] {
        assert_eq!(
            fits(&with(&pointer, to)).map(|_| ()),
            Err(words.to_owned()),
            "{pointer}"
        );
    }
    for (pointer, member, words) in [
        ("", "api_key", "the document has no `api_key`"),
        ("", "feature_states", "the document has no `feature_states`"),
        ("/project", "organisation", "project has no `organisation`"),
        (
            "/project/segments/4",
            "rules",
            "project.segments[4] has no `rules`",
        ),
        (
            "/identity_overrides/2",
            "created_date",
            "identity_overrides[2] has no `created_date`",
        ),
        (
            RULE,
            "conditions",
            "project.segments[1].rules[0].rules[0] missing field `conditions`",
        ),
        (
            STATE,
            "feature_state_value",
            "feature_states[6] missing field `feature_state_value`",
        ),
    ] {
        assert_eq!(
            fits(&without(pointer, member)).map(|_| ()),
            Err(words.to_owned()),
            "{member}"
        );
    }
}

#[test]
fn what_may_be_missing_may_be_missing() {
    for (pointer, member) in [
        ("", "name"),
        ("", "updated_at"),
        ("", "identity_overrides"),
        ("", "webhook_config"),
        ("/project", "server_key_only_feature_ids"),
        ("/project/segments/1", "feature_states"),
        ("/identity_overrides/0", "identity_features"),
        ("/identity_overrides/0", "identity_traits"),
        ("/identity_overrides/0", "identity_uuid"),
        ("/identity_overrides/0", "django_id"),
        (STATE, "django_id"),
        (STATE, "featurestate_uuid"),
        (STATE, "feature_segment"),
        (STATE, "multivariate_feature_state_values"),
        ("/feature_states/6/feature", "type"),
        (CONDITION, "value"),
        (CONDITION, "property_"),
    ] {
        assert!(
            fits(&without(pointer, member)).is_ok(),
            "{pointer} {member}"
        );
    }
    for (pointer, to) in [
        ("/updated_at", json!(5)),
        ("/webhook_config", json!([[[]]])),
        (&format!("{RULE}/type"), json!("NEW")),
        (&format!("{CONDITION}/operator"), json!("NEW")),
        (&format!("{CONDITION}/value"), json!(null)),
        (&format!("{STATE}/feature_state_value"), json!(u64::MAX)),
    ] {
        assert!(fits(&with(pointer, to)).is_ok(), "{pointer}");
    }
}

#[test]
fn what_is_no_json_does_not_fit() {
    let text = value().to_string();
    for (from, to) in [
        ("\"id\":41", "\"id\":41,"),
        ("\"id\":41", "\"id\" 41"),
        ("\"id\":41", "id:41"),
        ("\"id\":41", "\"id\":041"),
        ("\"id\":41", "\"id\":41,\"x\":1e999"),
        ("\"id\":41", "\"id\":41,\"x\":nul"),
        ("\"id\":41", "\"id\":41,\"x\":[1,]"),
        ("\"id\":41", "\"id\":41,\"x\":\"\\q\""),
        ("\"id\":41", "\"id\":41,,\"x\":1"),
        ("\"feature_states\":[{", "\"feature_states\":[,{"),
        ("\"feature_states\":[{", "\"feature_states\":[{}{"),
        (
            "\"amplitude_config\":null",
            "\"amplitude_config\":{\"a\":\u{1}}",
        ),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        assert!(compile(broken.as_bytes()).is_err(), "{to}");
    }
    assert!(compile(format!("{text}{text}").as_bytes()).is_err());
    assert!(compile(format!("[{text}]").as_bytes()).is_err());
    let mut bytes = text.clone().into_bytes();
    let place = text.find("shh").unwrap();
    bytes[place] = 0xff;
    assert!(
        compile(&bytes).is_err(),
        "no UTF-8, in a member that is not read"
    );
    assert!(compile(text.as_bytes()).is_ok());
}

#[test]
fn a_refusal_quotes_nothing_of_the_document() {
    let text = value().to_string();
    for (from, to) in [
        ("\"id\":41", "\"id\":\"secret\""),
        ("\"id\":41", "\"id\":41,\"secret\":[secret"),
        ("\"STANDARD\"", "{\"secret\":\"secret\"}"),
        (
            "\"enabled\":",
            "\"secret\":{\"secret\":[]},\"enabled\":\"secret\",\"enabled\":",
        ),
    ] {
        let unfit = compile(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(
            !format!("{unfit} {unfit:?}").contains("secret"),
            "{unfit:?}"
        );
    }
}

#[test]
fn a_member_that_comes_twice_does_not_fit() {
    let text = value().to_string();
    for (member, again) in [
        ("\"api_key\":", "\"api_key\":\"other\","),
        ("\"feature_states\":", "\"feature_states\":[],"),
        ("\"segments\":", "\"segments\":[],"),
        ("\"identifier\":", "\"identifier\":\"other\","),
        ("\"django_id\":", "\"django_id\":1,"),
        ("\"conditions\":", "\"conditions\":[],"),
    ] {
        let twice = text.replacen(member, &format!("{again}{member}"), 1);
        assert!(compile(twice.as_bytes()).is_err(), "{member}");
    }
    // Members that are not known say nothing.
    let twice = text.replacen("\"api_key\":", "\"x\":1,\"x\":2,\"api_key\":", 1);
    assert!(compile(twice.as_bytes()).is_ok());
}

#[test]
fn nesting_is_bounded_as_in_any_json() {
    let nested = |depth: usize| {
        let rule = r#"{"type":"ALL","conditions":[],"rules":["#;
        let rules = format!("[{}{}]", rule.repeat(depth), "]}".repeat(depth));
        let text = document(
            &[state(1, "f", &json!(1))],
            &[segment(1, &json!(["RULES"]))],
        );
        text.to_string().replacen("[\"RULES\"]", &rules, 1)
    };
    let ignored = |depth: usize| {
        let lists = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        recorded().replacen("\"id\": 41", &format!("\"id\": 41, \"x\": {lists}"), 1)
    };
    for make in [&nested as &dyn Fn(usize) -> String, &ignored] {
        let mut fitted = 0;
        for depth in 1..150 {
            let text = make(depth);
            let is_json = serde_json::from_str::<Value>(&text).is_ok();
            assert_eq!(compile(text.as_bytes()).is_ok(), is_json, "{depth}");
            fitted += usize::from(is_json);
        }
        assert!((50..149).contains(&fitted), "{fitted}");
        assert!(compile(make(100_000).as_bytes()).is_err());
    }
    let deep = fits(&serde_json::from_str(&nested(61)).unwrap()).unwrap();
    assert_eq!(values(&deep.flags(Sees::Public, false))["f"], "in");
}

#[test]
fn a_feature_is_as_secret_as_what_overrides_it() {
    let mut text = document(&[state(1, "f", &json!(1)), state(2, "g", &json!(2))], &[]);
    text["project"]["server_key_only_feature_ids"] = json!([1, 9]);
    let rule = condition("EQUAL", &json!("$.environment.key"), &json!("k"));
    text["project"]["segments"] = json!([
        {"id": 1, "name": "", "rules": [rule], "feature_states": [state(7, "f", &json!(3)), state(9, "g", &json!(4))]},
    ]);
    let environment = fits(&text).unwrap();
    assert_eq!(written(&environment.flags(Sees::Public, false)), json!([]));
    let all = written(&environment.flags(Sees::Everything, false));
    assert_eq!(
        (&all[0]["feature"]["id"], &all[1]["feature"]["id"]),
        (&json!(7), &json!(9))
    );
}

#[test]
fn a_state_without_an_id_still_has_variants() {
    let variant =
        json!({"percentage_allocation": 100, "multivariate_feature_option": {"value": "on"}});
    let mut without = state(1, "f", &json!("off"));
    without["multivariate_feature_state_values"] = json!([variant]);
    let members = without.as_object_mut().unwrap();
    members.remove("django_id");
    members.remove("featurestate_uuid");
    let environment = fits(&document(&[without.clone()], &[])).unwrap();
    let flags = environment.identity(&request("i", &[]), Sees::Public, false);
    assert_eq!(values(&flags)["f"], "on");
    // An empty one is one.
    without["featurestate_uuid"] = json!("");
    let environment = fits(&document(&[without], &[])).unwrap();
    let flags = environment.identity(&request("i", &[]), Sees::Public, false);
    assert_eq!(values(&flags)["f"], "off");
}
