use super::simulated::{PROXY_KEY, Simulated, Told, configuration, failed, read, tenant};
use super::*;

#[test]
fn when_environments_were_polled_is_told_while_one_fails_and_failures_are_counted() {
    let mut simulated = Simulated::new(&configuration(2, !PROXY_KEY));
    let only_c1 = |key: &str| match key {
        "c0" => failed(),
        _ => read("a", true),
    };
    simulated.answer(only_c1);
    let told = simulated.told();
    let of = |told: &Told, key: &str| {
        let listed = told.polled().listed;
        listed
            .iter()
            .find(|(own, _)| *own == tenant(key))
            .unwrap()
            .1
    };
    assert_eq!((of(&told, "c0"), of(&told, "c1")), (0, 1_000_000));
    assert_eq!(told.polled().oldest, 0, "one was never polled well");
    let mut tellings = 0;
    for _ in 0..150 {
        simulated.pass(1_000);
        simulated.answer(only_c1);
        let told = simulated.told();
        if !told.records.is_empty() {
            tellings += 1;
            assert_eq!(of(&told, "c0"), 0);
            assert!(of(&told, "c1") > 1_000_000);
        }
    }
    assert!(
        (1..=3).contains(&tellings),
        "once in a frequency: {tellings}"
    );
    let figures = simulated.polls.figures();
    assert!(figures.failed(PollFailure::Status) > 3);
    assert_eq!(figures.failed(PollFailure::Refused), 0);
    assert_eq!(figures.completed, None);
    simulated.pass(60_000);
    simulated.answer(|key| read("b", key != "c1"));
    assert_eq!(simulated.polls.figures().failed(PollFailure::Refused), 1);
    simulated.pass(60_000);
    simulated.answer(|_| read("c", true));
    assert_eq!(
        simulated.polls.figures().completed,
        Some(simulated.now().instant)
    );
}
