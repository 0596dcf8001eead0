//! Flagsmith's list of environments and keys.

use std::time::{Duration, SystemTime};

use flag_definitions_filter::surfaces::flagsmith::records::FlagsmithRecord;
use serde_json::{Value, json};

use crate::followed::{Followed, configuration, tenant};
use crate::stub::{Flagsmith, Reply, Request, document, eventually, rfc3339};

fn listed(client_key: &str, server_keys: &[Value]) -> Value {
    json!({
        "id": 30, "name": "An environment", "client_side_key": client_key, "server_side_keys": server_keys,
        "updated_at": "2026-08-15T08:57:43.311081Z", "project_id": 35, "organisation_id": 82,
    })
}

fn key(key: &str) -> Value {
    json!({"key": key, "active": true, "expires_at": null})
}

/// Answers with this list, and with documents named as the key that asks.
fn with_list(list: Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| match request.is_of_list() {
        true => list.clone(),
        false => Reply::json(&document(request.key())),
    }
}

fn list(environments: &[Value]) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    with_list(Reply::json(&json!(environments)))
}

fn follow(flagsmith: &Flagsmith, pairs: usize) -> Followed {
    Followed::with(configuration(
        flagsmith,
        pairs,
        &json!({"proxy_key": "pk.hunter2"}),
    ))
}

impl Followed {
    #[track_caller]
    fn wait_for_keys(&self, there: &[&str], gone: &[&str]) {
        let what = format!("{there:?} and not {gone:?}");
        self.wait(&what, |told| {
            let all = there.iter().all(|key| told.of_key(key).is_some());
            let none = gone.iter().all(|key| told.of_key(key).is_none());
            (!told.records.is_empty() && all && none).then_some(())
        });
    }
}

#[test]
fn environments_of_the_list_are_followed_beside_those_of_the_file() {
    let flagsmith = Flagsmith::start(list(&[listed("a", &[key("ser.a")]), listed("none", &[])]));
    let followed = follow(&flagsmith, 1);
    followed.wait_for_keys(&["client0", "ser.0", "a", "ser.a"], &["none"]);
    followed.wait("its document", |told| told.text("a"));
    followed.wait("keys are known", |told| {
        told.round()?.knows_keys.then_some(())
    });
    let requests = flagsmith.requests();
    for request in requests {
        // Flagsmith counts a request for a document unless the proxy reports what it serves of it.
        let proxy_key = request.header("x-proxy-key");
        match request.is_of_list() {
            true => assert_eq!((proxy_key, request.key()), (Some("pk.hunter2"), "")),
            false if request.key() == "ser.0" => assert_eq!(proxy_key, None),
            false => assert_eq!((proxy_key, request.key()), (Some("pk.hunter2"), "ser.a")),
        }
    }
}

#[test]
fn keys_are_rotated_and_taken_away() {
    let flagsmith = Flagsmith::start(list(&[
        listed("a", &[key("ser.old")]),
        listed("b", &[key("ser.b")]),
    ]));
    let followed = follow(&flagsmith, 0);
    followed.wait_for_keys(&["a", "ser.old"], &[]);
    flagsmith.answer(list(&[
        listed("a", &[key("ser.old"), key("ser.new")]),
        listed("b", &[key("ser.b")]),
    ]));
    followed.wait_for_keys(&["a", "ser.old", "ser.new", "b"], &[]);
    let mut old = key("ser.old");
    old["active"] = json!(false);
    flagsmith.answer(list(&[
        listed("a", &[old, key("ser.new")]),
        listed("b", &[key("ser.b")]),
    ]));
    followed.wait_for_keys(&["a", "ser.new", "b"], &["ser.old"]);
    followed.wait("asked with the new key", |told| {
        (told.text("a")?["name"] == "ser.new").then_some(())
    });
    followed.told(|told| assert_eq!(told.gone, []));
    flagsmith.answer(list(&[listed("a", &[key("ser.new")])]));
    followed.wait_for_keys(&["a", "ser.new"], &["b", "ser.b"]);
    followed.wait("its document goes", |told| {
        (told.gone == [tenant("b")]).then_some(())
    });
}

#[test]
fn a_key_goes_when_it_expires_whatever_the_list_does() {
    let expires = SystemTime::now() + Duration::from_millis(1_300);
    let unix = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut expiring = key("ser.expiring");
    expiring["expires_at"] = json!(rfc3339(expires));
    let flagsmith = Flagsmith::start(list(&[listed("a", &[expiring, key("ser.lasting")])]));
    let followed = follow(&flagsmith, 0);
    followed.wait_for_keys(&["a", "ser.expiring", "ser.lasting"], &[]);
    followed.told(|told| {
        let expected = FlagsmithRecord::CountedServerKey {
            environment: tenant("a"),
            expires_at: unix.as_secs(),
        };
        assert_eq!(told.of_key("ser.expiring"), Some(expected));
    });
    // Nobody says so any more.
    flagsmith.answer(with_list(Reply::status(500)));
    followed.wait_for_keys(&["a", "ser.lasting"], &["ser.expiring"]);
    let late = SystemTime::now().duration_since(expires).unwrap();
    assert!(late < Duration::from_secs(1), "{late:?}");
}

#[test]
fn an_empty_or_a_broken_list_changes_no_key() {
    let flagsmith = Flagsmith::start(list(&[listed("a", &[key("ser.a")])]));
    let followed = follow(&flagsmith, 1);
    followed.wait_for_keys(&["a", "client0"], &[]);
    let mut expires = key("ser.a");
    expires["expires_at"] = json!("soon");
    let broken = [
        Reply::json(&json!([])),
        Reply::json(&json!({"detail": "hunter2"})),
        Reply::json(&json!([listed("a", &[expires])])),
        Reply::status(403),
        Reply::status(302).with("Location", "http://127.0.0.1:9/"),
        Reply::json(&json!([listed("a", &[])])).cut(),
        Reply::text("<html>"),
        Reply::json(&json!([])).gzip(),
    ];
    for reply in broken {
        flagsmith.answer(with_list(reply));
        let polls = flagsmith.requests().len();
        eventually("two polls of the list", || {
            let requests = flagsmith.requests();
            let polls = requests
                .iter()
                .skip(polls)
                .filter(|request| request.is_of_list());
            (polls.count() >= 2).then_some(())
        });
        followed.told(|told| {
            assert!(told.of_key("ser.a").is_some() && told.of_key("a").is_some());
            assert_eq!(told.gone, []);
        });
    }
    // Unknown keys are refused by fresh knowledge alone: two polls and a timeout of 500 ms.
    followed.wait("keys are not known", |told| {
        (!told.round()?.knows_keys).then_some(())
    });
    flagsmith.answer(list(&[listed("b", &[key("ser.b")])]));
    followed.wait_for_keys(&["b", "client0"], &["a", "ser.a"]);
    followed.wait("keys are known", |told| {
        told.round()?.knows_keys.then_some(())
    });
}
