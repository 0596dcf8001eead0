//! The figures in Prometheus' text format, version 0.0.4. Every metric name stands here, once.

use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, prometheus_text,
};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::sources::left_out::LeftOutReason;
use crate::sources::polls::{PollFailure, PollFigures};
use crate::watch::status::Figures;
use Samples::{By, One, Seconds};

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

/// A metric: its type, its name without the prefix, what it says, and its samples.
type Family = (MetricType, &'static str, &'static str, Samples);

enum Samples {
    One(u64),
    /// `None`: not known yet.
    Seconds(Option<f64>),
    /// By a label: its name, and a sample for each of its values.
    By(&'static str, Vec<(&'static str, u64)>),
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in [self.standing(), self.source(), self.written()]
            .iter()
            .flatten()
        {
            encode(&mut encoder, family)?;
        }
        Ok(())
    }
}

impl Moment {
    /// Of this instance, and of what is published.
    fn standing(&self) -> Vec<Family> {
        let figures = &self.figures;
        let active = u64::from(figures.active);
        let version = vec![(env!("CARGO_PKG_VERSION"), 1)];
        let kinds = figures.records.0.clone();
        vec![
            (
                Gauge,
                "build_info",
                "The program's version.",
                By("version", version),
            ),
            (
                Gauge,
                "active",
                "Whether this instance holds the lock.",
                One(active),
            ),
            (
                Gauge,
                "generation",
                "Generation of the current snapshot.",
                One(figures.generation),
            ),
            (
                Gauge,
                "lineage",
                "The lineage that is being continued.",
                One(figures.lineage),
            ),
            (Gauge, "records", "Published records.", By("kind", kinds)),
        ]
    }

    fn polls(&self) -> PollFigures {
        let polls = self.figures.polls.iter();
        PollFigures::together(polls.map(|polls| polls.figures()))
    }

    /// Of what is read.
    fn source(&self) -> Vec<Family> {
        let figures = &self.figures;
        let age = |at: Option<Instant>| {
            Seconds(at.map(|at| self.now.saturating_duration_since(at).as_secs_f64()))
        };
        let sweep = Seconds(figures.sweep.map(|sweep| sweep.as_secs_f64()));
        let skipped = LeftOutReason::ALL.map(|reason| (reason.label(), figures.skipped.of(reason)));
        vec![
            (
                Gauge,
                "last_read_age_seconds",
                "Since the last successful full read of the database began.",
                age(figures.last_read),
            ),
            (
                Gauge,
                "listening",
                "Whether the database announces its changes.",
                One(u64::from(figures.listening)),
            ),
            (
                Gauge,
                "watermark_age_seconds",
                "Since the check of all ETags began that the last watermark tells of.",
                age(figures.watermark),
            ),
            (
                Gauge,
                "sweep_seconds",
                "How long the last complete check of all ETags took.",
                sweep,
            ),
            (
                Gauge,
                "held_back_removals",
                "Removals held back, because one full read lacked too many records.",
                One(figures.held_back),
            ),
            (
                Gauge,
                "skipped_rows",
                "Rows that the last full read left out.",
                By("reason", skipped.to_vec()),
            ),
            (
                Gauge,
                "last_complete_round_age_seconds",
                "Since all environments, and all sources of flags, had been read well last.",
                age(self.polls().completed),
            ),
        ]
    }

    /// Of what was done since the program began. Counters get their `_total` from the format.
    fn written(&self) -> Vec<Family> {
        let figures = &self.figures;
        let changes = vec![
            ("upsert", figures.upserts),
            ("removal", figures.removals),
            ("etag", figures.etag_changes),
        ];
        let errors = vec![
            ("redis", figures.errors.redis),
            ("definitions_redis", figures.errors.definitions_redis),
            ("postgres", figures.errors.postgres),
            ("file", figures.errors.file),
        ];
        let usage = vec![
            ("sent", figures.usage.sent),
            ("refused", figures.usage.refused),
            ("expired", figures.usage.expired),
            ("unknown", figures.usage.unknown),
        ];
        let polls = self.polls();
        let failed = PollFailure::ALL.map(|failure| (failure.label(), polls.failed(failure)));
        let lineages = "Lineages begun: each makes every filter load the snapshot anew.";
        let hints = "Teams that Redis itself named as changed.";
        vec![
            (
                Counter,
                "changes",
                "Published changes.",
                By("kind", changes),
            ),
            (
                Counter,
                "snapshots",
                "Snapshots written.",
                One(figures.snapshots),
            ),
            (Counter, "lineages", lineages, One(figures.lineages)),
            (
                Counter,
                "documents",
                "Documents written to Redis.",
                One(figures.documents),
            ),
            (
                Counter,
                "usage",
                "Requests that filters counted for a report, by what became of them.",
                By("state", usage),
            ),
            (Counter, "hints", hints, One(figures.hints)),
            (Counter, "errors", "Failures.", By("dependency", errors)),
            (
                Counter,
                "failed_polls",
                "Reads of environments, of their list, or of a source of flags, that were not taken.",
                By("reason", failed.to_vec()),
            ),
        ]
    }
}

fn encode(page: &mut DescriptorEncoder<'_>, (kind, name, help, samples): &Family) -> fmt::Result {
    let mut family = page.encode_descriptor(name, help, None, *kind)?;
    match samples {
        One(value) => sample(*kind, *value, family),
        Seconds(None) => Ok(()),
        Seconds(Some(value)) => ConstGauge::new(*value).encode(family),
        By(label, values) => values.iter().try_for_each(|(of, value)| {
            sample(*kind, *value, family.encode_family(&[(*label, *of)])?)
        }),
    }
}

fn sample(kind: MetricType, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::sources::polls::Polls;
    use crate::watch::status::UsageFigures;

    #[test]
    fn every_family_is_described_and_named_once() {
        let now = Instant::now() + Duration::from_secs(10);
        let polls = Arc::new(Polls::default());
        polls.note_failure(PollFailure::Status);
        polls.note_round(now - Duration::from_secs(61));
        let others = Arc::new(Polls::default());
        others.note_failure(PollFailure::Status);
        others.note_round(now - Duration::from_secs(5));
        let figures = Figures {
            polls: vec![polls, others],
            active: true,
            sweep: Some(Duration::from_millis(250)),
            watermark: Some(now - Duration::from_millis(1_500)),
            upserts: 12_345_678,
            usage: UsageFigures {
                refused: 3,
                ..UsageFigures::default()
            },
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
            "flag_definitions_publisher_usage_total{state=\"refused\"} 3\n",
            "flag_definitions_publisher_failed_polls_total{reason=\"status\"} 2\n",
            "flag_definitions_publisher_failed_polls_total{reason=\"timeout\"} 0\n",
            "flag_definitions_publisher_last_complete_round_age_seconds 61.0\n",
            "flag_definitions_publisher_errors_total{dependency=\"definitions_redis\"} 0\n",
        ] {
            assert!(text.contains(sample), "{sample}");
        }
        // Nothing was read yet, so there is no age.
        assert!(!text.contains("\nflag_definitions_publisher_last_read_age_seconds "));
    }
}
