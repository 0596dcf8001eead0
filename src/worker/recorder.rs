//! Brings counts to the host's counters.

use super::host::{Host, HostStatus, MetricId, MetricKind};
use crate::metrics::{Counts, Metric, SNAPSHOT_AGE_SECONDS, WATERMARK_AGE_SECONDS};
use crate::shared::CountSink;
use crate::tenant::Tenant;

/// Metrics of one worker, and what was not told to the host yet.
#[derive(Debug)]
pub struct Recorder {
    tenants: Vec<Tenant>,
    counters: Vec<MetricId>,
    snapshot_age: Option<MetricId>,
    watermark_age: Option<MetricId>,
    counts: Counts,
}

impl Recorder {
    /// Nothing counted. `tenants` have labels of their own.
    pub fn new(tenants: &[Tenant]) -> Self {
        Self {
            tenants: tenants.to_vec(),
            counters: Vec::new(),
            snapshot_age: None,
            watermark_age: None,
            counts: Counts::new(tenants),
        }
    }

    /// Defines all metrics, so that each is there from the start, with zero.
    ///
    /// # Errors
    /// When the host does not take one.
    pub fn define(&mut self, host: &mut impl Host) -> Result<(), HostStatus> {
        self.counters = Metric::all(&self.tenants)
            .map(|metric| host.define_metric(MetricKind::Counter, &metric.name()))
            .collect::<Result<_, _>>()?;
        let mut gauge = |name| host.define_metric(MetricKind::Gauge, name).map(Some);
        self.snapshot_age = gauge(SNAPSHOT_AGE_SECONDS)?;
        self.watermark_age = gauge(WATERMARK_AGE_SECONDS)?;
        Ok(())
    }

    /// Counts one; the host hears of it at the next [`Recorder::flush`].
    pub fn count(&mut self, metric: Metric) {
        self.counts.add(metric);
    }

    /// Tells the host.
    pub fn flush(
        &mut self,
        host: &mut impl Host,
        snapshot_age_seconds: u64,
        watermark_age_seconds: u64,
    ) {
        for (slot, sum) in self.counts.drain() {
            if let Some(id) = self.counters.get(slot) {
                host.increment(*id, sum);
            }
        }
        for (id, seconds) in [
            (self.snapshot_age, snapshot_age_seconds),
            (self.watermark_age, watermark_age_seconds),
        ] {
            if let Some(id) = id {
                host.record(id, seconds);
            }
        }
    }
}

impl<C> CountSink<C> for Recorder
where
    Metric: From<C>,
{
    fn add(&mut self, what: C, times: u64) {
        self.counts.add_many(what.into(), times);
    }
}
