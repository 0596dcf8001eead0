//! Brings counts to Envoy's counters.

use super::abi::{self, MetricKind, Status};
use crate::metrics::{Counts, Metric, SNAPSHOT_AGE_SECONDS};

/// Metric ids of one root context, and what was not told to Envoy yet.
#[derive(Debug, Default)]
pub struct Recorder {
    counters: Vec<u32>,
    snapshot_age: Option<u32>,
    counts: Counts,
}

impl Recorder {
    /// Defines all metrics, so that each is there from the start, with zero.
    pub fn define(&mut self) -> Result<(), Status> {
        self.counters = Metric::all()
            .map(|metric| abi::define_metric(MetricKind::Counter, &metric.name()))
            .collect::<Result<_, _>>()?;
        self.snapshot_age = Some(abi::define_metric(MetricKind::Gauge, SNAPSHOT_AGE_SECONDS)?);
        Ok(())
    }

    /// Counts one; Envoy hears of it at the next [`Recorder::flush`].
    pub fn count(&mut self, metric: Metric) {
        self.counts.add(metric);
    }

    /// Tells Envoy. A count that Envoy refuses is lost: metrics must not hold up anything.
    pub fn flush(&mut self, snapshot_age_seconds: u64) {
        for (slot, sum) in self.counts.drain() {
            if let Some(id) = self.counters.get(slot) {
                let _ = abi::increment_metric(*id, sum);
            }
        }
        if let Some(id) = self.snapshot_age {
            let _ = abi::record_metric(id, snapshot_age_seconds);
        }
    }
}
