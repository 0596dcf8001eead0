use std::time::Duration;

use super::*;
use crate::sources::usage::UsageRow;
use serde_json::{Value, json};

fn key(number: usize) -> FlagsmithKey {
    FlagsmithKey::new(&format!("client{number}")).unwrap()
}

fn batch(id: &str, rows: &[(usize, u8, u64)]) -> UsageBatch {
    let rows = rows.iter().map(|(number, resource, count)| UsageRow {
        reported_as: key(*number).hash(),
        resource: *resource,
        count: *count,
    });
    UsageBatch {
        id: id.to_owned(),
        hour: 7,
        rows: rows.collect(),
    }
}

#[test]
fn a_report_is_as_flagsmith_takes_it() {
    let keys = [key(1), key(2)];
    let batch = batch("id", &[(1, 0, 5), (1, 2, 1), (2, 1, 7)]);
    let mut reports = Reports::default();
    reports.list(keys.iter(), Instant::now());
    let report = reports.report(&batch);
    let body: Value = serde_json::from_slice(&report.body).unwrap();
    let expected = json!([
        {"client_side_key": "client1", "resource": "flags", "count": 5},
        {"client_side_key": "client1", "resource": "environment-document", "count": 1},
        {"client_side_key": "client2", "resource": "identities", "count": 7},
    ]);
    assert_eq!(body, expected);
    assert_eq!((report.reported, report.unknown), (13, 0));
    assert!(!format!("{report:?}").contains("client1"));
}

#[test]
fn a_report_stays_as_it_was_whatever_becomes_of_its_environments() {
    let keys = [key(1), key(2)];
    let mut reports = Reports::default();
    let rows = [(1, 0, 5), (2, 1, 7)];
    let began = Instant::now();
    let after = |hours: u64| began + Duration::from_secs(3_600 * hours);
    reports.list(keys.iter(), began);
    let first = reports.report(&batch("a", &rows));
    // What was served while an environment was listed is reported when it is not any more, for as long as that may come.
    for (id, hours, expected) in [("b", 90, (12, 0)), ("c", 114, (12, 0)), ("d", 115, (5, 7))] {
        reports.list(keys[..1].iter(), after(hours));
        let next = reports.report(&batch(id, &rows));
        assert_eq!((next.reported, next.unknown), expected, "{id}");
    }
    reports.list(keys.iter(), after(116));
    assert_eq!(reports.report(&batch("d", &rows)).unknown, 7, "as it was");
    assert_eq!(reports.report(&batch("a", &rows)), first);
    // Counts that come back with an older state of Redis come under an id that they had, with what came since.
    let more = reports.report(&batch("a", &[(1, 0, 6), (2, 1, 7)]));
    assert_eq!((&more.id, more.reported), (&first.id, 13));
    assert_ne!(more.body, first.body);
    let of_nobody = reports.report(&batch("e", &[(1, 3, 2), (3, 0, 1)]));
    assert_eq!((of_nobody.reported, of_nobody.unknown), (0, 3));
    assert!(of_nobody.body.is_empty());
}

#[test]
fn only_success_takes_a_report_and_only_a_refusal_drops_it() {
    assert_eq!(answer(Ok(())), UsageAnswer::Taken);
    for status in [400, 403, 422, 499] {
        let refused = answer(Err(UpstreamProblem::Status(status)));
        assert!(matches!(refused, UsageAnswer::Refused(_)), "{status}");
    }
    for problem in [
        UpstreamProblem::Status(302),
        UpstreamProblem::Status(408),
        UpstreamProblem::Status(425),
        UpstreamProblem::Status(429),
        UpstreamProblem::Status(500),
        UpstreamProblem::Status(503),
        UpstreamProblem::Timeout(Duration::from_secs(5)),
        UpstreamProblem::Broken(String::new()),
    ] {
        assert!(matches!(answer(Err(problem)), UsageAnswer::Kept(_)));
    }
}
