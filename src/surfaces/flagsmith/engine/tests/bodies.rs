//! Bodies of identities.

use proptest::prelude::*;
use serde_json::Value;

use crate::surfaces::flagsmith::engine::{IdentityRequest, Scalar, TraitValue, parse_identity};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Status and text of a refused body.
fn refused(body: &str) -> (u16, String) {
    let problem = parse_identity(body.as_bytes()).expect_err(body);
    (problem.status(), problem.text().to_owned())
}

/// The traits of a body as they are written into the answer.
fn echoed(body: &str) -> String {
    let request = parse_identity(body.as_bytes()).unwrap();
    let traits: Vec<String> = request
        .traits
        .iter()
        .map(|given| {
            let mut out = Vec::new();
            given.write(&mut out);
            String::from_utf8(out).unwrap()
        })
        .collect();
    traits.join(" ")
}

#[test]
fn what_is_no_json_is_400() {
    for body in [
        "",
        " ",
        "{",
        "{\"identifier\": ",
        "{\"identifier\":\"u\"}}",
        "{\"identifier\":\"u\"} x",
        "{\"identifier\":\"u\",}",
        "{\"identifier\":\"\u{1}\"}",
        "{\"identifier\":\"u\",\"traits\":[{\"trait_key\":\"k\",\"trait_value\":1e400}]}",
        "{\"identifier\":\"u\",\"traits\":[{\"trait_key\":\"k\",\"trait_value\":01}]}",
        "nul",
    ] {
        let (status, text) = refused(body);
        assert_eq!(status, 400, "{body}");
        assert!(
            text.starts_with("Failed to parse the request body as JSON: "),
            "{text}"
        );
    }
    let not_utf8 = parse_identity(b"{\"identifier\":\"\xff\"}").unwrap_err();
    assert_eq!(not_utf8.status(), 400);
}

#[test]
fn what_is_other_json_is_422_and_says_where() {
    for (body, words) in [
        (
            "{\"traits\":[]}",
            "missing field `identifier` at line 1 column 13",
        ),
        (
            "{\"identifier\":5}",
            "identifier: does not fit, expected a string at line 1 column 15",
        ),
        (
            "{\"identifier\":null}",
            "identifier: does not fit, expected a string at line 1 column 18",
        ),
        (
            "{\"identifier\":\"a\",\"identifier\":\"b\"}",
            "identifier: duplicate field `identifier` at ",
        ),
        (
            "{\"identifier\":\"a\",\"traits\":null}",
            "traits: does not fit, expected a sequence at ",
        ),
        (
            "{\"identifier\":\"a\",\"traits\":{}}",
            "traits: does not fit, expected a sequence at ",
        ),
        (
            "{\"identifier\":\"a\",\"traits\":[1]}",
            "traits[0]: does not fit, expected struct ",
        ),
        (
            "{\"identifier\":\"u\",\"traits\":[{\"trait_key\":\"plan\"}]}",
            "traits[0]: missing field `trait_value` at line 1 column 48",
        ),
        (
            "{\"identifier\":\"u\",\"traits\":[{\"trait_value\":1}]}",
            "traits[0]: missing field `trait_key`",
        ),
        (
            "{\"identifier\":\"u\",\"traits\":[{\"trait_key\":1,\"trait_value\":1}]}",
            "traits[0].trait_key: does not fit",
        ),
        ("5", "does not fit, expected struct "),
        ("\"secret\"", "does not fit, expected struct "),
        ("[]", ""),
    ] {
        let (status, text) = refused(body);
        assert_eq!(status, 422, "{body}");
        let rest = text.strip_prefix("Failed to deserialize the JSON body into the target type: ");
        assert!(rest.is_some_and(|rest| rest.starts_with(words)), "{text}");
    }
}

#[test]
fn a_refusal_quotes_nothing() {
    for body in [
        r#"{"identifier":["secret"]}"#,
        r#"{"identifier":"secret","traits":[{"trait_key":"secret","trait_value":"secret"},"secret"]}"#,
        r#"{"secret":{"secret":tru}}"#,
        r#"{"identifier":"secret","traits":"secret, expected secret"}"#,
        r#"{"identifier":"secret","traits":" at line secret"}"#,
        r#""secret""#,
        r#"{"identifier":"secret""#,
    ] {
        let problem = parse_identity(body.as_bytes()).unwrap_err();
        assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
    }
    let request = parse_identity(
        br#"{"identifier":"secret","traits":[{"trait_key":"secret","trait_value":"secret"}]}"#,
    );
    assert_eq!(format!("{request:?}"), "Ok(an identity with 1 traits)");
}

#[test]
fn members_that_are_not_known_are_ignored() {
    let request = parse_identity(
        br#" {"transient":true,"identifier":"","x":[{}],"traits":[{"trait_value":null,"trait_key":"","transient":1}]} "#,
    )
    .unwrap();
    assert_eq!(request.identifier, "");
    assert_eq!(request.traits.len(), 1);
    assert_eq!(request.traits[0].value, TraitValue::Scalar(Scalar::Null));
    // As serde takes it, and axum with it.
    let list = parse_identity(br#"["i",[["k",1]]]"#).unwrap();
    let object = br#"{"identifier":"i","traits":[{"trait_key":"k","trait_value":1}]}"#;
    assert!(list == parse_identity(object).unwrap());
}

#[test]
fn traits_are_echoed_as_they_came() {
    for (given, echo) in [
        ("1", "1"),
        ("-0", "-0.0"),
        ("10.0", "10.0"),
        ("-0.0", "-0.0"),
        ("1e21", "1e+21"),
        ("1E2", "100.0"),
        ("100000000000000000000", "1e+20"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807", "9223372036854775807"),
        ("5e-324", "5e-324"),
        ("null", "null"),
        ("true", "true"),
        (r#""Zaż\"\/\u0041\n""#, r#""Zaż\"/A\n""#),
        (r#"{"b":[1.0,{}],"a":-0.0}"#, r#"{"a":-0.0,"b":[1.0,{}]}"#),
        ("[ ]", "[]"),
    ] {
        let body = format!(
            r#"{{"identifier":"i","traits":[{{"trait_key":"k\u0041","trait_value":{given}}}]}}"#
        );
        let echo = format!(r#"{{"trait_key":"kA","trait_value":{echo}}}"#);
        assert_eq!(echoed(&body), echo, "{given}");
        let owned = parse_identity(body.as_bytes()).unwrap().into_owned();
        assert!(owned == parse_identity(body.as_bytes()).unwrap());
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"identifier":"i","traits":[{{"trait_key":"k","trait_value":{value}}}]}}"#)
    };
    // Below the body, its list and a trait.
    assert!(parse_identity(nested(124).as_bytes()).is_ok());
    for depth in [125, 1_000, 1_000_000] {
        assert_eq!(refused(&nested(depth)).0, 400, "{depth}");
    }
    let open = "[".repeat(1_000_000);
    assert!(parse_identity(open.as_bytes()).is_err());
    assert!(parse_identity(format!(r#"{{"x":{open}"#).as_bytes()).is_err());
}

/// What must hold for any body.
fn holds(body: &[u8]) {
    match parse_identity(body) {
        Err(problem) => assert!(matches!(problem.status(), 400 | 422)),
        Ok(request) => {
            // What a parser of any JSON reads as well.
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok());
            // Values aside: the parser may be one unit in the last place beside a long float.
            let again = written(&request);
            let again = parse_identity(&again).unwrap();
            assert_eq!(again.identifier, request.identifier);
            let keys = |of: &IdentityRequest<'_>| -> Vec<String> {
                of.traits
                    .iter()
                    .map(|given| given.key.to_string())
                    .collect()
            };
            assert_eq!(keys(&again), keys(&request));
        }
    }
}

fn written(request: &IdentityRequest<'_>) -> Vec<u8> {
    let mut out = b"{\"identifier\":".to_vec();
    serde_json::to_writer(&mut out, &request.identifier).unwrap();
    out.extend_from_slice(b",\"traits\":[");
    for (index, given) in request.traits.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        given.write(&mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let names = prop_oneof![
            Just("identifier".to_owned()),
            Just("traits".to_owned()),
            Just("trait_key".to_owned()),
            Just("trait_value".to_owned()),
            any::<String>(),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((names, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(body: Vec<u8>) {
        holds(&body);
    }

    #[test]
    fn any_json_gets_an_answer(body in any_json()) {
        holds(body.to_string().as_bytes());
    }

    #[test]
    fn any_traits_are_read(identifier: String, keys in proptest::collection::vec(any::<String>(), 0..4), value in any_json(), cut: usize) {
        let traits: Vec<_> = keys
            .iter()
            .map(|key| serde_json::json!({"trait_key": key, "trait_value": value}))
            .collect();
        let body = serde_json::json!({"identifier": identifier, "traits": traits}).to_string();
        holds(body.as_bytes());
        prop_assert!(parse_identity(body.as_bytes()).is_ok());
        let part = &body.as_bytes()[..cut % body.len()];
        prop_assert!(parse_identity(part).is_err_and(|problem| problem.status() == 400));
    }
}
