//! Reports of requests that were served.

use std::time::Duration;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_publisher::sources::usage::{UsageAnswer, UsageBatch, UsageNews, UsageRow};
use serde_json::{Value, json};

use crate::followed::{Followed, configuration, tenant};
use crate::stub::{Flagsmith, Reply, Request, document, eventually};

/// Reports are answered with this, the list has one environment.
fn answering(report: Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| match (request.is_report(), request.is_of_list()) {
        (true, _) => report.clone(),
        (_, true) => Reply::json(&json!([{
            "client_side_key": "a", "server_side_keys": [{"key": "ser.a", "active": true}],
        }])),
        _ => Reply::json(&document("a")),
    }
}

fn batch(id: &str) -> UsageBatch {
    let row = |name: &str, resource, count| UsageRow {
        reported_as: Sha256Hash::of(name.as_bytes()),
        resource,
        count,
    };
    UsageBatch {
        id: id.to_owned(),
        hour: 7,
        rows: vec![row("a", 0, 2), row("a", 1, 3), row("gone", 0, 5)],
    }
}

#[test]
fn a_report_goes_to_the_proxys_address_and_its_answer_is_told() {
    let flagsmith = Flagsmith::start(answering(Reply::status(202)));
    let config = configuration(&flagsmith, 1, &json!({"proxy_key": "pk.hunter2"}));
    let followed = Followed::with(config);
    let reports = followed.reports.as_ref().unwrap();
    assert_eq!(reports.name, "flagsmith");
    assert_eq!(reports.interval, Duration::from_secs(60));
    let of_the_list = [(tenant("a"), Sha256Hash::of(b"a"))];
    followed.wait("who is reported", |told| {
        (told.usage == [UsageNews::Tenants(of_the_list.into())]).then_some(())
    });
    let requests = || {
        let requests = flagsmith.requests().into_iter();
        requests.filter(Request::is_report).collect::<Vec<_>>()
    };
    for (place, (id, reply, is_answer)) in [
        ("taken", Reply::status(202), None),
        ("failing", Reply::status(503), Some("answered 503")),
        (
            "failing",
            Reply::status(301).with("Location", "/"),
            Some("answered 301"),
        ),
        ("failing", Reply::silence(), Some("no answer in 500ms")),
        ("failing", Reply::status(400), Some("refused: answered 400")),
    ]
    .into_iter()
    .enumerate()
    {
        flagsmith.answer(answering(reply));
        reports.send.send(batch(id)).unwrap();
        let sent = eventually("the report", || requests().get(place).cloned());
        assert_eq!(sent.header("x-proxy-key"), Some("pk.hunter2"));
        assert_eq!(sent.header("idempotency-key"), Some(id));
        assert_eq!(sent.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        let expected = json!([
            {"client_side_key": "a", "resource": "flags", "count": 2},
            {"client_side_key": "a", "resource": "identities", "count": 3},
        ]);
        assert_eq!(body, expected);
        let news = followed.wait("its answer", |told| told.usage.get(place + 1).cloned());
        let answer = match is_answer {
            None => UsageAnswer::Taken,
            Some(problem) => match problem.strip_prefix("refused: ") {
                Some(problem) => UsageAnswer::Refused(problem.to_owned()),
                None => UsageAnswer::Kept(problem.to_owned()),
            },
        };
        let expected = UsageNews::Answered {
            id: id.to_owned(),
            reported: 5,
            unknown: 5,
            answer,
        };
        assert_eq!(news, expected);
    }
}

#[test]
fn without_a_proxy_key_nothing_is_reported() {
    let flagsmith = Flagsmith::start(answering(Reply::status(202)));
    let followed = Followed::start(&flagsmith);
    assert!(followed.reports.is_none());
    followed.wait("its document", |told| told.text("client0"));
    followed.told(|told| assert_eq!(told.usage, []));
}
