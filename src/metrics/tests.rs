//! Names and places.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TEAMS: [Tenant; 2] = [Tenant(1), Tenant(7)];

#[test]
fn names_are_unique_and_labels_are_plain() {
    let mut names: Vec<_> = Metric::all(&TEAMS).map(Metric::name).collect();
    let count = names.len();
    for name in &names {
        assert!(name.ends_with(';') && !name.contains("=other;"), "{name}");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ';' | '=');
        assert!(name.chars().all(plain), "{name}");
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_metric_has_a_place_of_its_own() {
    for (index, metric) in Metric::all(&TEAMS).enumerate() {
        let mut counts = Counts::new(&TEAMS);
        counts.add(metric);
        assert_eq!(
            counts.drain().collect::<Vec<_>>(),
            [(index, 1)],
            "{metric:?}"
        );
        assert_eq!(counts.drain().count(), 0);
    }
}

#[test]
fn what_has_no_place_is_not_counted() {
    let mut counts = Counts::new(&TEAMS);
    counts.add(Metric::PostHog(PostHogCount::TeamAnswer(Tenant(2), 200)));
    counts.add(Metric::PostHog(PostHogCount::TeamAnswer(Tenant(1), 418)));
    assert_eq!(counts.drain().count(), 0);
}

#[test]
fn no_team_has_a_label_unless_it_is_asked_for() {
    assert!(Metric::all(&[]).all(|metric| !metric.name().contains("team=")));
}
