use std::collections::BTreeSet;

use super::*;
use serde_json::{Value, json};

fn key(number: usize) -> FlagsmithKey {
    FlagsmithKey::new(&format!("client{number:04}")).unwrap()
}

fn next(report: &mut UsageReport) -> Option<UsageBatch> {
    report.batch().unwrap().cloned()
}

fn rows(batch: &UsageBatch) -> Value {
    serde_json::from_slice(&batch.body).unwrap()
}

#[test]
fn a_batch_is_as_flagsmith_takes_it() {
    let mut report = UsageReport::default();
    report.add(&key(1), UsageResource::Flags, 2);
    report.add(&key(1), UsageResource::Flags, 3);
    report.add(&key(1), UsageResource::EnvironmentDocument, 1);
    report.add(&key(2), UsageResource::Identities, 7);
    report.add(&key(3), UsageResource::Identities, 0);
    let batch = next(&mut report).unwrap();
    let expected = json!([
        {"client_side_key": "client0001", "resource": "flags", "count": 5},
        {"client_side_key": "client0001", "resource": "environment-document", "count": 1},
        {"client_side_key": "client0002", "resource": "identities", "count": 7},
    ]);
    assert_eq!(rows(&batch), expected);
    assert_eq!(batch.rows, 3);
    assert!(!format!("{batch:?} {report:?}").contains("client0001"));
}

#[test]
fn an_id_is_a_random_uuid() {
    let ids: BTreeSet<_> = (0..100).map(|_| uuid().unwrap()).collect();
    assert_eq!(ids.len(), 100);
    for id in ids {
        let parts: Vec<_> = id.split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert!(
            parts
                .iter()
                .all(|part| u64::from_str_radix(part, 16).is_ok())
        );
        assert!(
            parts[2].starts_with('4') && parts[3].starts_with(|digit| "89ab".contains(digit)),
            "{id}"
        );
    }
}

#[test]
fn a_batch_is_sent_unchanged_until_it_is_taken() {
    let mut report = UsageReport::default();
    assert_eq!(next(&mut report), None);
    report.add(&key(1), UsageResource::Flags, 2);
    let batch = next(&mut report).unwrap();
    for status in [None, Some(500), Some(503), Some(302)] {
        // What is counted meanwhile is no part of it.
        report.add(&key(1), UsageResource::Flags, 1);
        assert_eq!(report.answered(&batch.id, status), UsageAnswer::Kept);
        assert_eq!(next(&mut report), Some(batch.clone()));
    }
    assert_eq!(report.answered(&batch.id, Some(202)), UsageAnswer::Taken);
    let later = next(&mut report).unwrap();
    assert_ne!(later.id, batch.id);
    assert_eq!(rows(&later)[0]["count"], 4);
    assert_eq!(report.answered(&later.id, Some(200)), UsageAnswer::Taken);
    assert_eq!(next(&mut report), None);
}

#[test]
fn a_batch_that_is_refused_is_dropped() {
    let mut report = UsageReport::default();
    report.add(&key(1), UsageResource::Flags, 2);
    let batch = next(&mut report).unwrap();
    assert_eq!(report.answered(&batch.id, Some(400)), UsageAnswer::Dropped);
    assert_eq!(next(&mut report), None);
}

#[test]
fn many_counts_are_several_batches_and_one_that_fails_holds_up_none() {
    let mut report = UsageReport::default();
    for number in 0..2_001 {
        report.add(&key(number), UsageResource::Flags, 1);
    }
    let first = next(&mut report).unwrap();
    report.answered(&first.id, None);
    let second = next(&mut report).unwrap();
    report.answered(&second.id, Some(200));
    let third = next(&mut report).unwrap();
    report.answered(&third.id, Some(200));
    assert_eq!([first.rows, second.rows, third.rows], [1_000, 1_000, 1]);
    assert_eq!(next(&mut report), Some(first.clone()));
    report.answered(&first.id, Some(200));
    assert_eq!(next(&mut report), None);
}
