//! Documents that are taken, and those that are refused.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn error(json: &str) -> String {
    parse(json.as_bytes()).unwrap_err().to_string()
}

fn with_team(fields: &str) -> String {
    format!(r#"{{"format":1,"teams":[{{"id":1,"api_token":"phc_a"{fields}}}]}}"#)
}

#[test]
fn a_document_becomes_records() {
    let secret = Sha256Hash::of(b"phs_a").to_hex();
    let personal = Sha256Hash::of(b"phx_a").to_hex();
    let json = format!(
        r#"{{"format":1,
            "teams":[{{"id":1,"api_token":"phc_a","organization_id":null,
                "secret_token_sha256":["sha256${secret}"]}}],
            "personal_keys":[{{"sha256":"{personal}","user_active":true,"organization_ids":[],
                "scoped_teams":null,"scoped_organizations":null,"scopes":[]}}]}}"#
    );
    let records = parse(json.as_bytes()).unwrap();
    assert_eq!(records.by_hash.len(), 3);
    let record =
        |token: &str| Record::decode(&records.by_hash[&Sha256Hash::of(token.as_bytes())]).unwrap();
    assert_eq!(record("phs_a"), Record::TeamSecret(Tenant(1)));
    assert!(matches!(record("phx_a"), Record::Personal(key) if !key.reads_flags));
    assert_eq!(records.counts.teams, 1);
    assert_eq!(records.counts.team_secrets, 1);
    assert_eq!(records.counts.personal_keys, 1);
}

#[test]
fn an_error_names_the_record_and_the_field() {
    let good = "0".repeat(64);
    let keys = |fields: &str| format!(r#"{{"format":1,"project_secret_keys":[{{{fields}}}]}}"#);
    for (json, expected) in [
        ("", "document: EOF"),
        ("{}", "document: missing field `format`"),
        (r#"{"format":2}"#, "format: 2 is not supported, use 1"),
        (
            r#"{"format":1,"$schema":1}"#,
            "$schema: wrong type or range, expected a string",
        ),
        (
            r#"{"format":1,"team":[]}"#,
            "team: unknown field, expected one of `format`, `teams`",
        ),
        (
            r#"{"format":1,"teams":[{"id":1}]}"#,
            "teams[0]: missing field `api_token`",
        ),
        (
            r#"{"format":1,"teams":[[1,"a"]]}"#,
            "teams[0]: wrong type or range, expected a JSON object",
        ),
        (
            r#"{"format":1,"project_secret_keys":[["a",1]]}"#,
            "project_secret_keys[0]: wrong type or range, expected a JSON object",
        ),
        (
            r#"{"format":1,"teams":[{"id":0,"api_token":"a"}]}"#,
            "teams[0].id: must be positive",
        ),
        (
            r#"{"format":1,"teams":[{"id":1,"api_token":"a b"}]}"#,
            "teams[0].api_token: must be 1 to 200 visible",
        ),
        (
            r#"{"format":1,"teams":[{"id":1,"api_token":"a"},{"id":1,"api_token":"b"}]}"#,
            "teams[1].id: is also the id of teams[0]",
        ),
        (
            r#"{"format":1,"teams":[{"id":1,"api_token":"a"},{"id":2,"api_token":"a"}]}"#,
            "teams[1].api_token: is the same secret as teams[0].api_token",
        ),
        (
            &with_team(r#","organization_id":"x""#),
            "teams[0].organization_id: must be a UUID",
        ),
        (
            &with_team(r#","secret_token_sha256":["phs_clear"]"#),
            "teams[0].secret_token_sha256[0]: must be 64 hexadecimal digits",
        ),
        (
            r#"{"format":1,"ofrep_keys":[{"sha256":"hunter2"}]}"#,
            "ofrep_keys[0].sha256: must be 64 hexadecimal digits",
        ),
        (
            r#"{"format":1,"ofrep_keys":[{"sha256":"","selector":1}]}"#,
            "ofrep_keys[0].selector: wrong type or range, expected a string",
        ),
        (
            &format!(
                r#"{{"format":1,"ofrep_keys":[{{"sha256":"{good}"}},{{"sha256":"{good}"}}]}}"#
            ),
            "ofrep_keys[1].sha256: is the same secret as ofrep_keys[0].sha256",
        ),
        (
            &keys(&format!(r#""sha256":"{good}","team_id":9"#)),
            "project_secret_keys[0].team_id: is not the id of a team",
        ),
    ] {
        let message = error(json);
        assert!(message.starts_with(expected), "{json}: {message}");
    }
}

#[test]
fn keys_of_another_surface_are_no_records_and_share_no_hash_with_one() {
    let [key, other] = [b"key", b"two"].map(|key| Sha256Hash::of(key));
    let json = format!(
        r#"{{"format":1,"ofrep_keys":[{{"sha256":"{}","selector":"flagSetId=shop"}},
            {{"sha256":"sha256${}","selector":null}}]}}"#,
        key.to_hex(),
        other.to_hex()
    );
    let records = parse(json.as_bytes()).unwrap();
    let bound = Some("flagSetId=shop".to_owned());
    assert_eq!(records.ofrep_keys, [(key, bound), (other, None)]);
    assert!(records.by_hash.is_empty());
    let token = Sha256Hash::of(b"phc_a").to_hex();
    let twice = format!(
        r#"{{"format":1,"teams":[{{"id":1,"api_token":"phc_a"}}],"ofrep_keys":[{{"sha256":"{token}"}}]}}"#
    );
    let problem = "ofrep_keys[0].sha256: is the same secret as teams[0].api_token";
    assert_eq!(error(&twice), problem);
}

#[test]
fn a_backup_may_equal_its_secret() {
    let hash = Sha256Hash::of(b"phs_a").to_hex();
    let field = format!(r#","secret_token_sha256":["{hash}","{hash}"]"#);
    assert_eq!(
        parse(with_team(&field).as_bytes()).unwrap().by_hash.len(),
        2
    );
}

#[test]
fn an_error_never_repeats_a_value() {
    for json in [
        r#"{"format":1,"teams":[{"id":"phs_secret","api_token":"phs_secret"}]}"#,
        r#"{"format":1,"teams":["phs_secret"]}"#,
        r#"{"format":1,"teams":"phs_secret"}"#,
        &with_team(r#","secret_token_sha256":["phs_secret"]"#),
        &with_team(r#","secret_token_sha256":"phs_secret""#),
        r#"{"format":"phs_secret"}"#,
        r#"{"format":1,"phs_secret":1}"#,
        r#"{"format":1,"teams":[{"id":1,"api_token":"a","phs_secret":1}]}"#,
    ] {
        assert!(
            !error(json).contains("phs_secret"),
            "{json}: {}",
            error(json)
        );
    }
}
