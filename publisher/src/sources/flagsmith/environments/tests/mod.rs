mod polled;
mod simulated;

use std::collections::VecDeque;

use super::*;
use flag_definitions_filter::surfaces::flagsmith::records::{Condition, EnvironmentState};
use simulated::{Listed, PROXY_KEY, Simulated, configuration, failed, read, tenant};

#[test]
fn records_are_told_when_each_environment_was_polled() {
    let mut simulated = Simulated::new(&configuration(2, !PROXY_KEY));
    assert!(simulated.told().records.is_empty());
    simulated.answer(|_| read("a", true));
    let told = simulated.told();
    assert_eq!(told.documents.len(), 2);
    assert_eq!(
        told.of_key("c0"),
        Some(FlagsmithRecord::ClientKey(tenant("c0")))
    );
    let server_key = FlagsmithRecord::ServerKey {
        environment: tenant("c1"),
        expires_at: 0,
    };
    assert_eq!(told.of_key("ser.1"), Some(server_key));
    let round = Round {
        completed_at: 1_000_000,
        grace: Some(120),
        knows_keys: true,
    };
    assert_eq!(told.round(), round);
    let polled = EnvironmentState {
        condition: Condition::Polled,
        since: 1_000_000,
    };
    assert_eq!(told.state("c0"), Some(polled));
    let each = |key| (tenant(key), 1_000_000);
    let mut listed = vec![each("c0"), each("c1")];
    listed.sort_unstable();
    let polled = Polled {
        oldest: 1_000_000,
        count: 2,
        listed,
    };
    assert_eq!(told.polled(), polled);
    assert_eq!(told.records[0].len(), 8);
    simulated.pass(5_000);
    assert!(simulated.told().records.is_empty(), "nothing changed");
}

#[test]
fn who_is_never_answered_holds_records_up_for_two_timeouts_at_most() {
    let mut simulated = Simulated::new(&configuration(2, !PROXY_KEY));
    let polls = simulated.due();
    assert_eq!(polls.len(), 2);
    simulated.pass(9_999);
    assert!(simulated.told().records.is_empty());
    simulated.pass(1);
    let told = simulated.told();
    assert_eq!(told.state("c0"), None);
    assert_eq!(told.round().completed_at, 0);
}

#[test]
fn a_failure_keeps_the_document_and_is_told_once() {
    let mut simulated = Simulated::new(&configuration(2, !PROXY_KEY));
    simulated.answer(|_| read("a", true));
    simulated.told();
    simulated.pass(60_000);
    simulated.answer(|key| {
        if key == "c0" {
            failed()
        } else {
            read("a", true)
        }
    });
    let told = simulated.told();
    assert!(told.documents.is_empty() && told.gone.is_empty());
    let failing = EnvironmentState {
        condition: Condition::Failing,
        since: 1_060_000,
    };
    assert_eq!(told.state("c0"), Some(failing));
    assert_eq!(told.round().completed_at, 1_000_000);
    // It fails again, and nothing is told; it is polled again sooner than the others.
    simulated.pass(2_000);
    simulated.answer(|key| {
        if key == "c0" {
            failed()
        } else {
            panic!("{key} is not due")
        }
    });
    assert!(simulated.told().records.is_empty());
    simulated.pass(4_000);
    simulated.answer(|_| Ok(DocumentAnswer::Unchanged));
    let told = simulated.told();
    assert_eq!(told.state("c0").unwrap().condition, Condition::Polled);
    assert_eq!(
        told.round().completed_at,
        1_066_000,
        "both were polled since the last one"
    );
    assert!(told.documents.is_empty(), "the version is the same");
}

#[test]
fn a_document_that_does_not_fit_is_refused_until_another_one_comes() {
    let mut simulated = Simulated::new(&configuration(1, !PROXY_KEY));
    simulated.answer(|_| read("a", true));
    simulated.told();
    let mut poll = |answer: Result<DocumentAnswer, UpstreamProblem>| {
        simulated.pass(60_000);
        let poll = simulated.due().pop().unwrap();
        let Poll::Document { place, .. } = poll else {
            panic!("{poll:?}")
        };
        simulated.answered(PollAnswer::Document { place, answer });
        let told = simulated.told();
        (
            told.state("c0").map(|state| state.condition),
            told.documents.len() + told.unfit.len(),
        )
    };
    assert_eq!(poll(read("b", false)), (Some(Condition::Refused), 0));
    assert_eq!(poll(failed()), (Some(Condition::Failing), 0));
    // Unchanged since the one that was refused.
    assert_eq!(
        poll(Ok(DocumentAnswer::Unchanged)),
        (Some(Condition::Refused), 0)
    );
    assert_eq!(
        poll(read("a", true)),
        (Some(Condition::Polled), 0),
        "the one before"
    );
    assert_eq!(poll(read("c", true)).1, 1);
}

#[test]
fn a_document_that_does_not_fit_is_told_where_none_fitted() {
    let mut simulated = Simulated::new(&configuration(1, !PROXY_KEY));
    // The condition and when a round was complete, where that is told; whether a document was told, and whether it fits.
    let mut poll = |answer: &dyn Fn() -> Result<DocumentAnswer, UpstreamProblem>| {
        simulated.pass(60_000);
        simulated.answer(|_| answer());
        let told = simulated.told();
        let of = |tenants: &[Tenant]| tenants == [tenant("c0")];
        let condition = told.state("c0").map(|state| state.condition);
        let records = !told.records.is_empty();
        let round = records.then(|| told.round().completed_at);
        assert!(told.documents.len() + told.unfit.len() <= 1);
        let document = (of(&told.unfit), of(&told.documents));
        (condition.zip(round), document)
    };
    const NOTHING: (bool, bool) = (false, false);
    const UNFIT: (bool, bool) = (true, false);
    const FITS: (bool, bool) = (false, true);
    let unchanged = || Ok(DocumentAnswer::Unchanged);
    let refused = Some((Condition::Refused, 0));
    assert_eq!(poll(&|| read("a", false)), (refused, UNFIT));
    assert_eq!(poll(&|| read("a", false)), (None, NOTHING));
    assert_eq!(poll(&unchanged), (None, NOTHING));
    assert_eq!(poll(&|| read("b", false)), (None, UNFIT), "another one");
    let failing = Some((Condition::Failing, 0));
    assert_eq!(poll(&failed), (failing, NOTHING));
    assert_eq!(poll(&|| read("b", false)), (refused, NOTHING));
    let polled = |millis: u64| Some((Condition::Polled, 1_000_000 + millis));
    assert_eq!(poll(&|| read("b", true)), (polled(420_000), FITS));
    let refused = Some((Condition::Refused, 1_420_000));
    assert_eq!(poll(&|| read("c", false)), (refused, NOTHING));
    assert_eq!(poll(&|| read("d", false)), (None, NOTHING));
    assert_eq!(poll(&|| read("d", true)), (polled(600_000), FITS));
}

#[test]
fn a_refused_document_completes_no_round() {
    let mut simulated = Simulated::new(&configuration(2, !PROXY_KEY));
    simulated.answer(|key| read("a", key == "c0"));
    let told = simulated.told();
    assert_eq!(told.round().completed_at, 0);
    assert_eq!(told.documents, [tenant("c0")]);
    assert_eq!(told.unfit, [tenant("c1")]);
    assert_eq!(told.state("c1").unwrap().condition, Condition::Refused);
}

#[test]
fn rounds_are_told_at_most_each_second_and_keys_at_once() {
    let mut config = configuration(0, PROXY_KEY);
    config.poll_frequency = Duration::from_millis(100);
    let mut simulated = Simulated::new(&config);
    simulated.answer_list(&[("a", &[("ser.a", None), ("ser.b", None)])]);
    simulated.answer(|_| read("a", true));
    assert_eq!(simulated.told().records.len(), 1);
    let mut told = 0;
    for _ in 0..100 {
        simulated.pass(50);
        simulated.answer_list(&[("a", &[("ser.a", None), ("ser.b", None)])]);
        simulated.answer(|_| Ok(DocumentAnswer::Unchanged));
        told += simulated.told().records.len();
    }
    assert_eq!(told, 5);
    simulated.pass(10);
    simulated.answer_list(&[("a", &[("ser.b", None)])]);
    let told = simulated.told();
    assert_eq!(told.of_key("ser.a"), None);
    assert!(told.of_key("ser.b").is_some());
}

#[test]
fn nothing_is_told_before_there_was_a_list() {
    let mut simulated = Simulated::new(&configuration(1, PROXY_KEY));
    simulated.answer(|_| read("a", true));
    simulated.pass(3_600_000);
    let asked = simulated.now().instant;
    let answer = Err(UpstreamProblem::Status(500));
    simulated.answered(PollAnswer::List { asked, answer });
    assert!(simulated.told().records.is_empty(), "most keys would go");
    simulated.answer_list(&[]);
    assert!(simulated.told().records.is_empty());
    simulated.answer_list(&[("a", &[("ser.a", None)])]);
    assert!(simulated.told().records.is_empty(), "it was not polled yet");
    simulated.answer(|_| read("a", true));
    let told = simulated.told();
    assert!(told.of_key("a").is_some() && told.of_key("c0").is_some());
    assert!(told.round().knows_keys);
    // Two polls and a timeout later nobody is refused any more.
    simulated.pass(125_000);
    assert!(simulated.told().records.is_empty());
    simulated.pass(1);
    assert!(!simulated.told().round().knows_keys);
}

#[test]
fn a_key_goes_when_it_expires_and_with_the_last_one_the_environment() {
    let mut simulated = Simulated::new(&configuration(0, PROXY_KEY));
    let list: &[Listed<'_>] = &[
        ("a", &[("ser.a", Some(1_002_500)), ("ser.b", None)]),
        ("b", &[("ser.c", Some(1_002_500))]),
    ];
    simulated.answer_list(list);
    simulated.answer(|_| read("a", true));
    let told = simulated.told();
    let expiring = FlagsmithRecord::CountedServerKey {
        environment: tenant("a"),
        expires_at: 1_002,
    };
    assert_eq!(told.of_key("ser.a"), Some(expiring));
    simulated.pass(2_499);
    simulated.due();
    assert!(simulated.told().records.is_empty());
    simulated.pass(1);
    simulated.due();
    let told = simulated.told();
    assert_eq!(told.records.len(), 1);
    assert_eq!(told.of_key("ser.a"), None);
    assert!(told.of_key("ser.b").is_some() && told.of_key("a").is_some());
    assert_eq!(told.of_key("b"), None);
    assert_eq!(told.gone, [tenant("b")]);
}

#[test]
fn an_answer_for_an_environment_that_went_is_dropped() {
    let mut simulated = Simulated::new(&configuration(0, PROXY_KEY));
    simulated.answer_list(&[("a", &[("ser.a", None)]), ("b", &[("ser.b", None)])]);
    let mut late: VecDeque<_> = simulated.due().into();
    simulated.answer_list(&[("b", &[("ser.b", None)])]);
    // It comes back, as another one.
    simulated.answer_list(&[("a", &[("ser.a", None)]), ("b", &[("ser.b", None)])]);
    while let Some(poll) = late.pop_front() {
        if let Poll::Document { place, .. } = poll {
            let answer = read("late", true);
            simulated.answered(PollAnswer::Document { place, answer });
        }
    }
    let told = simulated.told();
    assert_eq!(told.documents, [tenant("b")]);
    // What is in Redis of the one before goes first.
    assert_eq!(told.gone, [tenant("a")]);
    simulated.answer(|_| read("new", true));
    assert_eq!(simulated.told().documents, [tenant("a")]);
}

#[test]
fn another_key_is_tried_after_a_failure() {
    let mut simulated = Simulated::new(&configuration(0, PROXY_KEY));
    simulated.answer_list(&[("a", &[("ser.a", None), ("ser.b", None)])]);
    let mut asked = Vec::new();
    for _ in 0..4 {
        for poll in simulated.due() {
            if let Poll::Document { place, request } = poll {
                asked.push(request.server_key.text().to_owned());
                simulated.answered(PollAnswer::Document {
                    place,
                    answer: failed(),
                });
            }
        }
        simulated.pass(60_000);
    }
    assert_eq!(asked, ["ser.a", "ser.b", "ser.a", "ser.b"]);
}

/// 1000 environments of which 200 never answer, for five minutes: more than there are places.
#[test]
fn environments_that_never_answer_delay_no_others() {
    const TIMEOUT: u64 = 5_000;
    let mut simulated = Simulated::new(&configuration(1_000, !PROXY_KEY));
    let hangs =
        |client_key: &str| client_key.trim_start_matches('c').parse::<u32>().unwrap() % 5 == 3;
    // When each poll ends, and the polls of who answers.
    let mut under_way: BTreeMap<u64, Vec<PollPlace>> = BTreeMap::new();
    let mut last_polls: BTreeMap<String, u64> = BTreeMap::new();
    let mut longest = 0;
    let mut most = 0;
    while simulated.millis < 300_000 {
        let millis = simulated.millis;
        let later = under_way.split_off(&(millis + 1));
        for place in std::mem::replace(&mut under_way, later)
            .into_values()
            .flatten()
        {
            let hung = hangs(place.client_key.text());
            let answer = if hung {
                Err(UpstreamProblem::Timeout(Duration::from_millis(TIMEOUT)))
            } else {
                Ok(DocumentAnswer::Unchanged)
            };
            simulated.answered(PollAnswer::Document { place, answer });
        }
        for poll in simulated.due() {
            let Poll::Document { place, .. } = poll else {
                continue;
            };
            let client_key = place.client_key.text().to_owned();
            let takes = if hangs(&client_key) { TIMEOUT } else { 50 };
            if !hangs(&client_key) {
                let before = last_polls.insert(client_key, millis).unwrap_or(0);
                // Who hangs is known after a first poll.
                longest = longest.max(millis - before);
            }
            under_way.entry(millis + takes).or_default().push(place);
        }
        most = most.max(under_way.values().map(Vec::len).sum());
        simulated.pass(100);
    }
    assert_eq!(last_polls.len(), 800);
    assert!(longest <= 60_200, "{longest}");
    assert!(last_polls.values().all(|last| *last > 239_000));
    assert!(most <= PLACES, "{most}");
}

#[test]
fn who_takes_the_number_of_another_one_waits_for_its_own_document() {
    let mut simulated = Simulated::new(&configuration(0, PROXY_KEY));
    simulated.answer_list(&[("a", &[("ser.a", None)]), ("b", &[("ser.b", None)])]);
    simulated.answer(|_| read("a", true));
    assert_eq!(simulated.told().documents.len(), 2);
    // It goes and comes back before that is told: its number is as good as another one's.
    simulated.answer_list(&[("b", &[("ser.b", None)])]);
    simulated.answer_list(&[("a", &[("ser.a", None)]), ("b", &[("ser.b", None)])]);
    let told = simulated.told();
    assert_eq!(told.gone, [tenant("a")]);
    assert!(told.of_key("a").is_none() && told.of_key("b").is_some());
    assert!(!told.round().knows_keys, "its keys are not wrong");
    simulated.answer(|_| failed());
    assert!(simulated.told().records.is_empty());
    simulated.pass(2_000);
    simulated.answer(|_| read("a", true));
    // First the document, then the keys.
    let news = simulated.told();
    assert_eq!(news.documents, [tenant("a")]);
    assert!(news.of_key("a").is_none());
    let news = simulated.told();
    assert!(news.of_key("a").is_some() && news.of_key("ser.a").is_some());
    assert!(news.round().knows_keys);
}

#[test]
fn environments_of_the_list_are_counted_and_reported_and_no_others() {
    let mut simulated = Simulated::new(&configuration(1, !PROXY_KEY));
    assert_eq!(simulated.reported(), Some(BTreeMap::new()));

    let mut simulated = Simulated::new(&configuration(1, PROXY_KEY));
    assert_eq!(simulated.reported(), None, "the list was not read yet");
    let [a, b] = ["a", "b"].map(|name| (tenant(name), Sha256Hash::of(name.as_bytes())));
    simulated.answer_list(&[("a", &[("ser.a", None)]), ("b", &[("ser.b", None)])]);
    assert_eq!(simulated.reported(), Some([a, b].into()));
    assert_eq!(simulated.reported(), None, "nothing changed");
    simulated.answer(|_| read("a", true));
    let told = simulated.told();
    let counted = FlagsmithRecord::CountedClientKey(tenant("a"));
    assert_eq!(told.of_key("a"), Some(counted));
    let counted = FlagsmithRecord::CountedServerKey {
        environment: tenant("b"),
        expires_at: 0,
    };
    assert_eq!(told.of_key("ser.b"), Some(counted));
    let of_the_file = FlagsmithRecord::ClientKey(tenant("c0"));
    assert_eq!(told.of_key("c0"), Some(of_the_file));
    simulated.answer_list(&[("b", &[("ser.b", None)])]);
    assert_eq!(simulated.reported(), Some([b].into()));
}
