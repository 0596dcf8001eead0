use super::*;
use crate::sources::flagsmith::config;
use serde_json::json;

const FREQUENCY: Duration = Duration::from_secs(60);

fn key(text: &str) -> FlagsmithKey {
    FlagsmithKey::new(text).unwrap()
}

fn config(has_proxy_key: bool) -> FlagsmithConfig {
    let mut file = json!({"environment_key_pairs": [
        {"client_side_key": "static", "server_side_key": "ser.static"},
    ]});
    if has_proxy_key {
        file["proxy_key"] = json!("pk.a");
    }
    config::parse(file.to_string().as_bytes()).unwrap().0
}

fn server_key(text: &str, expires_at: Option<u64>) -> ServerKey {
    ServerKey {
        expires_at,
        ..ServerKey::lasting(key(text))
    }
}

fn listed(client_key: &str, server_keys: &[ServerKey]) -> ListedEnvironment {
    ListedEnvironment {
        client_key: key(client_key),
        server_keys: server_keys.to_vec(),
    }
}

/// Those who read, `client: ser.a ser.b`.
fn readers(keys: &mut Keys, unix: u64) -> Vec<String> {
    let shown = |environment: &FollowedEnvironment| {
        let server_keys = environment.server_keys.iter();
        let server_keys: Vec<_> = server_keys
            .map(|server_key| server_key.key.text())
            .collect();
        format!(
            "{}: {}",
            environment.client_key.text(),
            server_keys.join(" ")
        )
    };
    keys.at(unix).0.iter().map(shown).collect()
}

#[test]
fn the_file_alone_is_known_at_once_and_for_ever() {
    let start = Instant::now();
    let mut keys = Keys::new(&config(false), false, start);
    assert!(!keys.begin_if_due(start));
    assert!(keys.are_known(start + FREQUENCY * 1_000) && keys.were_read() && keys.are_in_round());
    assert_eq!(readers(&mut keys, 0), ["static: ser.static"]);
    assert_eq!(
        keys.at(0).0[0].tenant,
        tenants(&[key("static")])[&key("static")]
    );
}

#[test]
fn a_list_is_known_for_two_polls_and_a_timeout() {
    let start = Instant::now();
    let mut keys = Keys::new(&config(true), false, start);
    assert!(keys.begin_if_due(start));
    assert!(!keys.begin_if_due(start), "it is under way");
    assert!(!keys.are_known(start) && !keys.were_read() && !keys.are_in_round());
    let list = || Ok(vec![listed("client", &[server_key("ser.a", None)])]);
    let answered = start + Duration::from_secs(3);
    assert!(keys.answered(start, list(), answered));
    assert!(keys.are_known(answered) && keys.were_read() && keys.are_in_round());
    let last = start + FREQUENCY * 2 + Duration::from_secs(5);
    assert!(keys.are_known(last));
    assert!(!keys.are_known(last + Duration::from_millis(1)));
    keys.end_round();
    assert!(!keys.are_in_round());
    assert!(!keys.answered(last, list(), last), "nothing new");
    assert!(keys.are_known(last) && keys.are_in_round());
    let expected = ["static: ser.static", "client: ser.a"];
    assert_eq!(readers(&mut keys, 0), expected);
}

#[test]
fn a_failure_and_an_empty_list_change_nothing() {
    let start = Instant::now();
    let mut keys = Keys::new(&config(true), false, start);
    keys.answered(
        start,
        Ok(vec![listed("client", &[server_key("ser.a", None)])]),
        start,
    );
    let expected = ["static: ser.static", "client: ser.a"];
    for answer in [Err(UpstreamProblem::Status(500)), Ok(Vec::new())] {
        let later = start + FREQUENCY * 3;
        assert!(!keys.answered(later, answer, later));
        assert_eq!(readers(&mut keys, 0), expected);
        assert!(!keys.are_known(later) && !keys.are_in_round());
    }
    let mut trusting = Keys::new(&config(true), true, start);
    trusting.answered(
        start,
        Ok(vec![listed("client", &[server_key("ser.a", None)])]),
        start,
    );
    assert!(trusting.answered(start, Ok(Vec::new()), start));
    assert_eq!(readers(&mut trusting, 0), ["static: ser.static"]);
}

#[test]
fn keys_that_do_not_count_go_and_with_the_last_one_the_environment() {
    let start = Instant::now();
    let mut keys = Keys::new(&config(true), false, start);
    let inactive = ServerKey {
        is_active: false,
        ..server_key("ser.b", Some(700))
    };
    let list = vec![
        listed(
            "client",
            &[
                server_key("ser.a", Some(500)),
                inactive,
                server_key("ser.c", Some(900)),
            ],
        ),
        listed("none", &[]),
    ];
    keys.answered(start, Ok(list), start);
    assert_eq!(
        readers(&mut keys, 499),
        ["static: ser.static", "client: ser.a ser.c"]
    );
    assert_eq!(keys.at(499).1, Some(500));
    assert_eq!(
        readers(&mut keys, 500),
        ["static: ser.static", "client: ser.c"]
    );
    assert_eq!(keys.at(500).1, Some(900));
    assert_eq!(readers(&mut keys, 900), ["static: ser.static"]);
    assert_eq!(keys.at(900).1, None);
}

#[test]
fn no_key_is_of_two_environments() {
    let start = Instant::now();
    let mut keys = Keys::new(&config(true), false, start);
    let list = vec![
        listed("static", &[server_key("ser.other", None)]),
        listed("thief", &[server_key("ser.static", None)]),
        listed("first", &[server_key("ser.a", None)]),
        listed(
            "second",
            &[server_key("ser.a", None), server_key("ser.b", None)],
        ),
        listed("first", &[server_key("ser.c", None)]),
    ];
    keys.answered(start, Ok(list), start);
    assert_eq!(
        readers(&mut keys, 0),
        ["static: ser.static", "first: ser.a"]
    );
}
