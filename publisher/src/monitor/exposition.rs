//! The figures in Prometheus' text format, version 0.0.4. Every metric name stands here, once.

use std::fmt::Write;
use std::time::Instant;

use crate::watch::status::Figures;

const PREFIX: &str = "flag_definitions_publisher";

/// All metrics. What is not known yet has no sample.
pub fn text(figures: &Figures, now: Instant) -> String {
    let mut page = Page::default();
    let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at).as_secs_f64());
    let flag = |value: bool| if value { 1.0 } else { 0.0 };
    let records = figures.records;
    let skipped = figures.skipped;
    let errors = figures.errors;

    page.family("build_info", "gauge", "The program's version.");
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    page.sample(&version, 1.0);

    page.one(
        "active",
        "Whether this instance holds the lock.",
        Some(flag(figures.active)),
    );
    page.one(
        "generation",
        "Generation of the current snapshot.",
        Some(figures.generation as f64),
    );
    page.one(
        "lineage",
        "The lineage that is being continued.",
        Some(figures.lineage as f64),
    );
    page.labelled(
        "records",
        "gauge",
        "Published records.",
        "kind",
        &[
            ("team", records.teams),
            ("team_secret", records.team_secrets),
            ("project_secret_key", records.project_secret_keys),
            ("personal_key", records.personal_keys),
            ("etag", records.etags),
        ],
    );
    page.one(
        "last_read_age_seconds",
        "Since the last successful full read of the database began.",
        age(figures.last_read),
    );
    page.one(
        "listening",
        "Whether the database announces its changes.",
        Some(flag(figures.listening)),
    );
    page.one(
        "watermark_age_seconds",
        "Since the check of all ETags began that the last watermark tells of.",
        age(figures.watermark),
    );
    page.one(
        "sweep_seconds",
        "How long the last complete check of all ETags took.",
        figures.sweep.map(|sweep| sweep.as_secs_f64()),
    );
    page.one(
        "held_back_removals",
        "Removals held back, because one full read lacked too many records.",
        Some(figures.held_back as f64),
    );
    page.labelled(
        "skipped_rows",
        "gauge",
        "Rows that the last full read left out.",
        "reason",
        &[
            ("pbkdf2", skipped.pbkdf2),
            ("malformed", skipped.malformed),
            ("conflicting", skipped.conflicting),
            ("oversized", skipped.oversized),
        ],
    );
    page.labelled(
        "changes_total",
        "counter",
        "Published changes.",
        "kind",
        &[
            ("upsert", figures.upserts),
            ("removal", figures.removals),
            ("etag", figures.etag_changes),
        ],
    );
    page.counter("snapshots_total", "Snapshots written.", figures.snapshots);
    page.counter(
        "lineages_total",
        "Lineages begun: each makes every filter load the snapshot anew.",
        figures.lineages,
    );
    page.counter(
        "hints_total",
        "Teams that Redis itself named as changed.",
        figures.hints,
    );
    page.labelled(
        "errors_total",
        "counter",
        "Failures.",
        "dependency",
        &[
            ("redis", errors.redis),
            ("definitions_redis", errors.definitions_redis),
            ("postgres", errors.postgres),
        ],
    );
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {PREFIX}_{name} {help}");
        let _ = writeln!(self.text, "# TYPE {PREFIX}_{name} {kind}");
    }

    fn sample(&mut self, labels: &str, value: f64) {
        let _ = writeln!(self.text, "{PREFIX}_{}{labels} {value}", self.name);
    }

    fn one(&mut self, name: &'static str, help: &str, value: Option<f64>) {
        self.family(name, "gauge", help);
        if let Some(value) = value {
            self.sample("", value);
        }
    }

    fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample("", value as f64);
    }

    fn labelled(
        &mut self,
        name: &'static str,
        kind: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) {
        self.family(name, kind, help);
        for (value, count) in values {
            self.sample(&format!("{{{label}=\"{value}\"}}"), *count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_family_is_described_and_named_once() {
        let now = Instant::now() + Duration::from_secs(10);
        let figures = Figures {
            active: true,
            sweep: Some(Duration::from_millis(250)),
            watermark: Some(now - Duration::from_millis(1_500)),
            upserts: 12_345_678,
            ..Figures::default()
        };
        let text = text(&figures, now);
        let mut seen = BTreeSet::new();
        let mut described = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                described = rest.split(' ').next().unwrap();
                assert!(seen.insert(described), "{line}");
                assert_eq!(
                    rest.ends_with(" counter"),
                    described.ends_with("_total"),
                    "{line}"
                );
            } else if !line.starts_with("# HELP ") {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, described, "{line}");
                assert!(
                    line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(),
                    "{line}"
                );
            }
        }
        for sample in [
            "flag_definitions_publisher_active 1\n",
            "flag_definitions_publisher_sweep_seconds 0.25\n",
            "flag_definitions_publisher_watermark_age_seconds 1.5\n",
            "flag_definitions_publisher_changes_total{kind=\"upsert\"} 12345678\n",
            "flag_definitions_publisher_errors_total{dependency=\"definitions_redis\"} 0\n",
        ] {
            assert!(text.contains(sample), "{sample}");
        }
        // Nothing was read yet, so there is no age.
        assert!(!text.contains("\nflag_definitions_publisher_last_read_age_seconds "));
    }
}
