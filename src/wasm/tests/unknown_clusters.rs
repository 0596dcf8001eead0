//! What becomes of a cluster that Envoy does not know.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::loaded_with;
use super::worker::{EnvoyVm, sent, statuses, worker};
use crate::config::{Settings, scopes};
use crate::snapshot::status::Status;
use crate::wasm::fake::host;
use crate::wasm::logger;
use crate::wasm::root::Root;
use crate::wasm::store::SharedData;
use crate::wasm::stream::Stream;

const STORE: &str = r#"{"snapshot":{"buckets":16},
    "definitions":{"negative_ttl":"0s","object_store":{"cluster":"store","bucket":"bucket"}}}"#;

/// What the health listener lists, with the same settings.
fn listed(config: &str) -> Vec<String> {
    let config = config.replacen('{', r#"{"role":"health","#, 1);
    let health = Rc::new(RefCell::new(Root::new(99)));
    host(|host| host.configuration = config.as_bytes().to_vec());
    assert!(health.borrow_mut().configure(config.len()));
    host(|host| {
        host.context = 99;
        let path = (":path".to_owned(), b"/health".to_vec());
        host.requests.insert(99, vec![path]);
        host.sent.clear();
    });
    Stream::new(99, Rc::clone(&health)).on_request_headers(true);
    let health: serde_json::Value = serde_json::from_slice(&sent().remove(0).body).unwrap();
    host(|host| host.sent.clear());
    let listed = health.get("unknown_clusters").cloned();
    listed.map_or_else(Vec::new, |listed| serde_json::from_value(listed).unwrap())
}

fn lines(what: &str) -> usize {
    host(|host| host.logs.iter().filter(|line| line.contains(what)).count())
}

const UNKNOWN: &str = "Envoy does not know the cluster \"store\"";
const KNOWN: &str = "Envoy knows the cluster \"store\" now";

fn ask(worker: &mut EnvoyVm, id: u32) -> u32 {
    host(|host| host.sent.clear());
    let _stream = worker.get_as("c", id, None);
    // That of Redis, and that of the store.
    worker.answer_callouts();
    worker.answer_callouts();
    let (_, status) = statuses().remove(0);
    worker.run(Duration::from_secs(2));
    status
}

#[test]
fn it_is_named_in_log_and_health_until_a_callout_is_sent_to_it() {
    logger::install();
    let mut worker = loaded_with(STORE);
    assert_eq!(listed(STORE), [""; 0]);
    for round in 1..=2 {
        host(|host| host.unknown_cluster = "store".to_owned());
        for id in 0..5 {
            assert_eq!(ask(&mut worker, 10 * round + id), 503);
        }
        assert_eq!(listed(STORE), ["store"]);
        assert_eq!(lines(UNKNOWN), round as usize, "once a problem");
        host(|host| host.unknown_cluster.clear());
        assert_eq!(ask(&mut worker, 10 * round + 5), 200);
        assert_eq!(listed(STORE), [""; 0]);
        assert_eq!(lines(KNOWN), round as usize);
    }
}

#[test]
fn a_cluster_that_another_vm_did_not_know_is_struck_out_by_the_first_callout() {
    logger::install();
    let mut worker = loaded_with(STORE);
    let scope = scopes(&Settings::from_json(STORE.as_bytes()).unwrap().posthog).data;
    for round in 1..=2 {
        Status::note_cluster(&SharedData, &scope, "store", false).unwrap();
        worker.run(Duration::from_secs(2));
        assert_eq!(listed(STORE), ["store"]);
        assert_eq!(ask(&mut worker, 10 + round), 200);
        assert_eq!(listed(STORE), [""; 0]);
    }
    assert_eq!((lines(UNKNOWN), lines(KNOWN)), (0, 2));
}

#[test]
fn the_cluster_of_the_snapshot_is_named_before_the_first_one_is_loaded() {
    logger::install();
    let config = r#"{"snapshot":{"buckets":16},"redis":{"snapshot":{"cluster":"typo"}}}"#;
    let mut worker = worker(config);
    host(|host| host.unknown_cluster = "typo".to_owned());
    assert!(worker.configure());
    worker.run(Duration::from_secs(10));
    assert_eq!(listed(config), ["typo"]);
    assert_eq!(lines("Envoy does not know the cluster \"typo\""), 1);
    // Settings without it are not concerned.
    let other = config.replace("\"typo\"", "\"right\"");
    assert_eq!(listed(&other), [""; 0]);
}

#[test]
fn a_full_circuit_breaker_is_no_unknown_cluster() {
    logger::install();
    let mut worker = loaded_with(STORE);
    host(|host| host.closed_cluster = "store".to_owned());
    assert_eq!(ask(&mut worker, 10), 503);
    assert_eq!((listed(STORE), lines("Envoy does not know")), (vec![], 0));
}

#[test]
fn while_shared_data_fails_nothing_is_told_and_later_it_is() {
    logger::install();
    let mut worker = loaded_with(STORE);
    host(|host| {
        host.unknown_cluster = "store".to_owned();
        host.broken.extend([("proxy_set_shared_data", 10)]);
    });
    assert_eq!(ask(&mut worker, 10), 503);
    assert_eq!((listed(STORE), lines(UNKNOWN)), (vec![], 0));
    host(|host| host.broken.clear());
    worker.run(Duration::from_secs(2));
    assert_eq!(
        (listed(STORE), lines(UNKNOWN)),
        (vec!["store".to_owned()], 1)
    );
}
