//! Many environments at once.

use std::time::Duration;

use serde_json::json;

use crate::followed::{Followed, configuration};
use crate::stub::{Flagsmith, Reply, Request, document};

const ENVIRONMENTS: usize = 1_000;

fn hangs(request: &Request) -> bool {
    let number = request
        .key()
        .trim_start_matches("ser.")
        .parse::<usize>()
        .unwrap();
    number % 50 == 7
}

#[test]
fn a_thousand_environments_are_read_though_some_hang() {
    let flagsmith = Flagsmith::start(|request| match hangs(request) {
        true => Reply::silence(),
        false => Reply::json(&document(request.key())),
    });
    let mut config = configuration(&flagsmith, ENVIRONMENTS, &json!({}));
    config.poll_frequency = Duration::from_secs(60);
    // Whoever waited for one that hangs would come too late.
    config.poll_timeout = Duration::from_secs(60);
    let followed = Followed::with(config);
    followed.wait("all that answer", |told| {
        (told.documents.len() == ENVIRONMENTS - 20).then_some(())
    });
    followed.told(|told| {
        assert_eq!(told.documents_told, ENVIRONMENTS - 20);
        assert_eq!(told.text("client8").unwrap()["name"], "ser.8");
        assert_eq!(told.text("client7"), None);
    });
}
