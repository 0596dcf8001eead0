//! The figures in Prometheus' text format, version 0.0.4. Every metric name stands here, once.

use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::postgres::Reason;
use crate::watch::status::Figures;

pub use prometheus_text::CONTENT_TYPE;

const PREFIX: &str = "flag_definitions_publisher";

/// All metrics. What is not known yet has no sample.
pub fn text(figures: &Figures, now: Instant) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let figures = figures.clone();
    registry.register_collector(Box::new(Moment { figures, now }));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// Figures, and when they are looked at.
#[derive(Debug)]
struct Moment {
    figures: Figures,
    now: Instant,
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.standing(&mut page)?;
        self.database(&mut page)?;
        self.written(&mut page)
    }
}

impl Moment {
    /// Of this instance, and of what is published.
    fn standing(&self, page: &mut Page<'_>) -> fmt::Result {
        let figures = &self.figures;
        let records = figures.records;
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        page.gauges("build_info", "The program's version.", "version", &version)?;
        page.gauge(
            "active",
            "Whether this instance holds the lock.",
            Some(u64::from(figures.active)),
        )?;
        page.gauge(
            "generation",
            "Generation of the current snapshot.",
            Some(figures.generation),
        )?;
        page.gauge(
            "lineage",
            "The lineage that is being continued.",
            Some(figures.lineage),
        )?;
        let kinds = [
            ("team", records.teams),
            ("team_secret", records.team_secrets),
            ("project_secret_key", records.project_secret_keys),
            ("personal_key", records.personal_keys),
            ("etag", records.etags),
        ];
        page.gauges("records", "Published records.", "kind", &kinds)
    }

    /// Of what is read.
    fn database(&self, page: &mut Page<'_>) -> fmt::Result {
        let figures = &self.figures;
        let age =
            |at: Option<Instant>| at.map(|at| self.now.saturating_duration_since(at).as_secs_f64());
        page.gauge(
            "last_read_age_seconds",
            "Since the last successful full read of the database began.",
            age(figures.last_read),
        )?;
        page.gauge(
            "listening",
            "Whether the database announces its changes.",
            Some(u64::from(figures.listening)),
        )?;
        page.gauge(
            "watermark_age_seconds",
            "Since the check of all ETags began that the last watermark tells of.",
            age(figures.watermark),
        )?;
        page.gauge(
            "sweep_seconds",
            "How long the last complete check of all ETags took.",
            figures.sweep.map(|sweep| sweep.as_secs_f64()),
        )?;
        page.gauge(
            "held_back_removals",
            "Removals held back, because one full read lacked too many records.",
            Some(figures.held_back),
        )?;
        page.gauges(
            "skipped_rows",
            "Rows that the last full read left out.",
            "reason",
            &Reason::ALL.map(|reason| (reason.label(), figures.skipped.of(reason))),
        )
    }

    /// Of what was done since the program began. Counters get their `_total` from the format.
    fn written(&self, page: &mut Page<'_>) -> fmt::Result {
        let figures = &self.figures;
        let errors = figures.errors;
        let changes = [
            ("upsert", figures.upserts),
            ("removal", figures.removals),
            ("etag", figures.etag_changes),
        ];
        page.counters("changes", "Published changes.", "kind", &changes)?;
        page.counter("snapshots", "Snapshots written.", figures.snapshots)?;
        page.counter(
            "lineages",
            "Lineages begun: each makes every filter load the snapshot anew.",
            figures.lineages,
        )?;
        page.counter(
            "hints",
            "Teams that Redis itself named as changed.",
            figures.hints,
        )?;
        let dependencies = [
            ("redis", errors.redis),
            ("definitions_redis", errors.definitions_redis),
            ("postgres", errors.postgres),
        ];
        page.counters("errors", "Failures.", "dependency", &dependencies)
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: Option<impl EncodeGaugeValue>,
    ) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            ConstGauge::new(*value).encode(encoder.encode_family(&[(label, *of)])?)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            ConstCounter::new(*value).encode(encoder.encode_family(&[(label, *of)])?)?;
        }
        Ok(())
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
