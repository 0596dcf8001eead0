//! Whether a document is asked for again that did not change.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use flag_definitions_filter::surfaces::flagsmith::records::Condition;
use serde_json::json;

use crate::followed::Followed;
use crate::stub::{Flagsmith, Reply, Request, document, eventually, rfc3339};

const UPDATED_AT: &str = "Mon, 04 May 2026 03:02:01 GMT";

/// 304 to whom the document is known.
fn unless_known(request: &Request, etag: &str, name: &str) -> Reply {
    match request.header("if-none-match") {
        Some(known) if known == etag => Reply::status(304),
        _ => Reply::json(&document(name)).with("ETag", etag),
    }
}

#[test]
fn a_document_that_did_not_change_is_kept() {
    let flagsmith = Flagsmith::start(|request| unless_known(request, "\"one\"", "one"));
    let followed = Followed::start(&flagsmith);
    followed.wait_for_document("one");
    let known = |request: &Request| {
        request.header("if-none-match") == Some("\"one\"")
            && request.header("if-modified-since") == Some(UPDATED_AT)
    };
    eventually("five polls", || {
        (flagsmith.requests().len() > 5).then_some(())
    });
    let requests = flagsmith.requests();
    let (first, later) = requests.split_first().unwrap();
    assert_eq!(first.header("if-none-match"), None);
    assert_eq!(first.header("if-modified-since"), None);
    assert!(later.iter().all(known), "{later:?}");
    followed.wait_for("client0", Condition::Polled);
    followed.told(|told| assert_eq!(told.documents_told, 1));
    flagsmith.answer(|request| unless_known(request, "\"two\"", "two"));
    followed.wait_for_document("two");
}

#[test]
fn a_date_alone_is_a_validator() {
    let flagsmith = Flagsmith::start(|request| match request.header("if-modified-since") {
        Some(UPDATED_AT) => Reply::status(304),
        _ => Reply::json(&document("one")),
    });
    let followed = Followed::start(&flagsmith);
    followed.wait_for_document("one");
    eventually("five polls", || {
        (flagsmith.requests().len() > 5).then_some(())
    });
    followed.wait_for("client0", Condition::Polled);
    followed.told(|told| assert_eq!(told.documents_told, 1));
}

#[test]
fn a_tag_of_the_first_page_says_nothing_of_the_others() {
    let flagsmith = Flagsmith::start(|request| {
        let page = Reply::json(&document("paged")).with("ETag", "\"one\"");
        match request.target.contains("page_id") {
            true => page,
            false => page.next("?page_id=2"),
        }
    });
    let followed = Followed::start(&flagsmith);
    followed.wait_for_document("paged");
    eventually("five polls", || {
        (flagsmith.requests().len() > 10).then_some(())
    });
    let requests = flagsmith.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.header("if-none-match").is_none())
    );
    let (first, second) = (&requests[2], &requests[3]);
    assert_eq!(first.header("if-modified-since"), Some(UPDATED_AT));
    assert_eq!(
        second.header("if-modified-since"),
        None,
        "only with the first page"
    );
}

#[test]
fn a_date_says_nothing_of_what_changed_just_now() {
    // Within the second of a date a document may change once more.
    let flagsmith = Flagsmith::start(|_| {
        let mut document = document("new");
        document["updated_at"] = json!(rfc3339(SystemTime::now()));
        Reply::json(&document)
    });
    let _followed = Followed::start(&flagsmith);
    eventually("five polls", || {
        (flagsmith.requests().len() > 5).then_some(())
    });
    let requests = flagsmith.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.header("if-modified-since").is_none())
    );
}

#[test]
fn a_document_that_was_refused_stays_refused_when_it_did_not_change() {
    let flagsmith = Flagsmith::start(|request| unless_known(request, "\"one\"", "one"));
    let followed = Followed::start(&flagsmith);
    followed.wait_for_document("one");
    let broken = |request: &Request| match request.header("if-none-match") {
        Some("\"broken\"") => Reply::status(304),
        _ => Reply::json(&json!({"api_key": 7})).with("ETag", "\"broken\""),
    };
    flagsmith.answer(broken);
    followed.wait_for("client0", Condition::Refused);
    sleep(Duration::from_millis(300));
    followed.wait_for("client0", Condition::Refused);
    followed.wait_for_document("one");
    flagsmith.answer(|request| unless_known(request, "\"two\"", "two"));
    followed.wait_for_document("two");
    followed.wait_for("client0", Condition::Polled);
}

#[test]
fn unchanged_is_no_answer_to_who_knows_nothing() {
    let flagsmith = Flagsmith::start(|_| Reply::status(304));
    let followed = Followed::start(&flagsmith);
    followed.wait_for("client0", Condition::Failing);
    followed.told(|told| assert_eq!(told.round().unwrap().completed_at, 0));
}
