//! A key goes to the origin of `api_url` and nowhere else.

use flag_definitions_filter::surfaces::flagsmith::records::Condition;

use crate::followed::Followed;
use crate::stub::{Flagsmith, Reply, document};

#[test]
fn a_redirect_within_the_origin_is_followed() {
    let flagsmith = Flagsmith::start(|request| match request.target.as_str() {
        "/elsewhere" => Reply::json(&document("moved")),
        _ => Reply::status(308).with("Location", "/elsewhere"),
    });
    let followed = Followed::start(&flagsmith);
    followed.wait_for_document("moved");
    assert!(
        flagsmith
            .requests()
            .iter()
            .all(|request| request.key() == "ser.0")
    );
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    let other = Flagsmith::start(|_| Reply::json(&document("stolen")));
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/environment-document/", other.url());
        let flagsmith = Flagsmith::start(move |_| Reply::status(status).with("Location", &target));
        let followed = Followed::start(&flagsmith);
        followed.wait_for("client0", Condition::Failing);
        followed.told(|told| assert!(told.documents.is_empty()));
    }
    assert!(other.requests().is_empty());
}

#[test]
fn redirects_without_an_end_or_a_target_are_given_up() {
    for location in [Some("/again"), Some("http://["), None] {
        let flagsmith = Flagsmith::start(move |_| match location {
            Some(location) => Reply::status(302).with("Location", location),
            None => Reply::status(302),
        });
        let followed = Followed::start(&flagsmith);
        followed.wait_for("client0", Condition::Failing);
    }
}

#[test]
fn a_next_page_of_another_origin_is_an_error() {
    let other = Flagsmith::start(|_| Reply::json(&document("stolen")));
    let target = format!("{}/environment-document/?page_id=2", other.url());
    let flagsmith = Flagsmith::start(move |_| Reply::json(&document("first")).next(&target));
    let followed = Followed::start(&flagsmith);
    followed.wait_for("client0", Condition::Failing);
    followed.told(|told| assert!(told.documents.is_empty()));
    assert!(other.requests().is_empty());
}

#[test]
fn a_next_page_is_not_answered_by_another_origin() {
    let other = Flagsmith::start(|_| Reply::json(&document("stolen")));
    let target = format!("{}/stolen", other.url());
    let flagsmith = Flagsmith::start(move |request| match request.target.contains("page_id") {
        true => Reply::status(307).with("Location", &target),
        false => Reply::json(&document("first")).next("?page_id=2"),
    });
    let followed = Followed::start(&flagsmith);
    followed.wait_for("client0", Condition::Failing);
    assert!(other.requests().is_empty());
}
