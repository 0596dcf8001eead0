//! Documents of one page and of several.

use std::sync::atomic::{AtomicUsize, Ordering};

use flag_definitions_filter::surfaces::flagsmith::records::{Condition, FlagsmithRecord};
use serde_json::{Value, json};

use crate::followed::{Followed, configuration, tenant};
use crate::stub::{Flagsmith, Reply, document};

const FIRST: &str = "/api/v1/environment-document/";

fn page(name: &str, overrides: &[usize]) -> Value {
    let mut page = document(name);
    let of = |identity: &usize| {
        json!({
            "identifier": identity.to_string(), "environment_api_key": "client",
            "created_date": "2026-05-04T03:02:01Z",
        })
    };
    page["identity_overrides"] = overrides.iter().map(of).collect();
    page
}

#[test]
fn a_document_is_asked_for_and_told_with_its_keys() {
    let flagsmith = Flagsmith::start(|request| match request.key() {
        "ser.0" => Reply::json(&document("plain")),
        _ => Reply::json(&document("packed")).gzip(),
    });
    let followed = Followed::with(configuration(&flagsmith, 2, &json!({})));
    assert_eq!(followed.wait_for_document("plain"), document("plain"));
    followed.wait("the other one", |told| told.text("client1"));
    followed.wait_for("client1", Condition::Polled);
    followed.told(|told| {
        let server_key = FlagsmithRecord::ServerKey {
            environment: tenant("client0"),
            expires_at: 0,
        };
        assert_eq!(told.of_key("ser.0"), Some(server_key));
        let client_key = FlagsmithRecord::ClientKey(tenant("client1"));
        assert_eq!(told.of_key("client1"), Some(client_key));
        assert_eq!(told.text("client1"), Some(document("packed")));
        let round = told.round().unwrap();
        assert!(round.knows_keys && round.grace == Some(120));
        assert!(round.completed_at > 1_700_000_000_000);
    });
    let request = &flagsmith.requests()[0];
    assert_eq!(request.target, FIRST);
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    let agent = request.header("user-agent").unwrap();
    assert!(agent.starts_with("flag-definitions-publisher/"), "{agent}");
    assert_eq!(request.header("x-proxy-key"), None);
}

#[test]
fn pages_are_followed_to_the_last_one() {
    let flagsmith = Flagsmith::start(|request| {
        assert_eq!(request.key(), "ser.0");
        match request.target.as_str() {
            FIRST => Reply::json(&page("whole", &[1, 2]))
                .next("/api/v1/environment-document/?page_id=identity_override%3A1%3A2"),
            "/api/v1/environment-document/?page_id=identity_override%3A1%3A2" => {
                Reply::json(&page("second", &[3])).gzip().next("?page_id=3")
            }
            "/api/v1/environment-document/?page_id=3" => Reply::json(&page("third", &[4, 5])),
            other => panic!("{other}"),
        }
    });
    let followed = Followed::start(&flagsmith);
    let whole = followed.wait_for_document("whole");
    assert_eq!(whole, page("whole", &[1, 2, 3, 4, 5]));
}

#[test]
fn a_document_that_changes_between_its_pages_is_read_again() {
    let reads = AtomicUsize::new(0);
    let flagsmith = Flagsmith::start(move |request| {
        let is_first = request.target == FIRST;
        let reads =
            reads.fetch_add(usize::from(is_first), Ordering::SeqCst) + usize::from(is_first);
        let mut page = page("whole", &[reads]);
        // It changes during the first two reads.
        if reads < 3 && !is_first {
            page["updated_at"] = json!("2026-05-04T03:02:02Z");
        }
        match is_first {
            true => Reply::json(&page).next("?page_id=2"),
            false => Reply::json(&page),
        }
    });
    let followed = Followed::start(&flagsmith);
    let whole = followed.wait_for_document("whole");
    assert_eq!(whole, page("whole", &[3, 3]));
    followed.wait_for("client0", Condition::Polled);
    assert_eq!(flagsmith.requests()[..6].len(), 6);
}

#[test]
fn pages_without_an_end_are_given_up() {
    let flagsmith = Flagsmith::start(|_| Reply::json(&document("endless")).next("?page_id=again"));
    let followed = Followed::start(&flagsmith);
    followed.wait_for("client0", Condition::Failing);
    followed.told(|told| assert!(told.documents.is_empty()));
    let pages = flagsmith.requests();
    let first_again = pages.iter().skip(1).position(|page| page.target == FIRST);
    assert!(
        first_again.is_none_or(|pages| pages == 63),
        "{first_again:?}"
    );
    assert!(pages.len() >= 64);
}
