//! Brings counts to Envoy's counters.

use super::abi::{self, MetricKind, Status};
use crate::metrics::{Counts, Metric, SNAPSHOT_AGE_SECONDS, WATERMARK_AGE_SECONDS};
use crate::tenant::Tenant;

/// Metric ids of one root context, and what was not told to Envoy yet.
#[derive(Debug)]
pub struct Recorder {
    teams: Vec<Tenant>,
    counters: Vec<u32>,
    snapshot_age: Option<u32>,
    watermark_age: Option<u32>,
    counts: Counts,
}

impl Recorder {
    /// Nothing counted. `teams` have labels of their own.
    pub fn new(teams: &[Tenant]) -> Self {
        Self {
            teams: teams.to_vec(),
            counters: Vec::new(),
            snapshot_age: None,
            watermark_age: None,
            counts: Counts::new(teams),
        }
    }

    /// Defines all metrics, so that each is there from the start, with zero.
    pub fn define(&mut self) -> Result<(), Status> {
        self.counters = Metric::all(&self.teams)
            .map(|metric| abi::define_metric(MetricKind::Counter, &metric.name()))
            .collect::<Result<_, _>>()?;
        self.snapshot_age = Some(abi::define_metric(MetricKind::Gauge, SNAPSHOT_AGE_SECONDS)?);
        self.watermark_age = Some(abi::define_metric(
            MetricKind::Gauge,
            WATERMARK_AGE_SECONDS,
        )?);
        Ok(())
    }

    /// Counts one; Envoy hears of it at the next [`Recorder::flush`].
    pub fn count(&mut self, metric: Metric) {
        self.counts.add(metric);
    }

    /// Counts several at once.
    pub fn count_many(&mut self, metric: Metric, many: u64) {
        self.counts.add_many(metric, many);
    }

    /// Tells Envoy. A count that Envoy refuses is lost: metrics must not hold up anything.
    pub fn flush(&mut self, snapshot_age_seconds: u64, watermark_age_seconds: u64) {
        for (slot, sum) in self.counts.drain() {
            if let Some(id) = self.counters.get(slot) {
                let _ = abi::increment_metric(*id, sum);
            }
        }
        for (id, seconds) in [
            (self.snapshot_age, snapshot_age_seconds),
            (self.watermark_age, watermark_age_seconds),
        ] {
            if let Some(id) = id {
                let _ = abi::record_metric(id, seconds);
            }
        }
    }
}
