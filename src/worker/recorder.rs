//! Brings counts to the host's counters.

use std::time::Duration;

use super::host::{Host, HostStatus, MetricId, MetricKind};
use crate::documents::Documents;
use crate::metrics::{self, Counts, Metric, SNAPSHOT_AGE_SECONDS, WATERMARK_AGE_SECONDS};
use crate::shared::CountSink;
use crate::tenant::Tenant;

/// Metrics of one worker, and what was not told to the host yet.
#[derive(Debug)]
pub struct Recorder {
    tenants: Vec<Tenant>,
    counters: Vec<MetricId>,
    snapshot_age: Option<MetricId>,
    watermark_age: Option<MetricId>,
    documents: Vec<DocumentGauges>,
    counts: Counts,
}

/// The gauges of a surface's documents.
#[derive(Debug)]
struct DocumentGauges {
    surface: &'static str,
    kept: MetricId,
    age: MetricId,
    /// What of the sum of all workers is this one's.
    told: i64,
}

impl Recorder {
    /// Nothing counted. `tenants` have labels of their own.
    pub fn new(tenants: &[Tenant]) -> Self {
        Self {
            tenants: tenants.to_vec(),
            counters: Vec::new(),
            snapshot_age: None,
            watermark_age: None,
            documents: Vec::new(),
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
        let mut gauge = |name: String| host.define_metric(MetricKind::Gauge, &name);
        for surface in metrics::DOCUMENT_SURFACES {
            self.documents.push(DocumentGauges {
                surface,
                kept: gauge(metrics::documents(surface))?,
                age: gauge(metrics::document_age_seconds(surface))?,
                told: 0,
            });
        }
        Ok(())
    }

    /// Tells the host of a surface's documents. `since_start`: the age of what is not known yet.
    pub fn tell_documents(&mut self, host: &mut impl Host, of: Documents, since_start: Duration) {
        let mut gauges = self.documents.iter_mut();
        if let Some(gauges) = gauges.find(|gauges| gauges.surface == of.surface) {
            host.record(gauges.age, of.age.unwrap_or(since_start).as_secs());
            gauges.tell(host, i64::try_from(of.kept).unwrap_or(i64::MAX));
        }
    }

    /// Takes this worker's documents out of the sum of all: it ends.
    pub fn leave(&mut self, host: &mut impl Host) {
        for gauges in &mut self.documents {
            gauges.tell(host, 0);
        }
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
                host.increment(*id, i64::try_from(sum).unwrap_or(i64::MAX));
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

impl DocumentGauges {
    /// Each worker tells what changed of its own: so the gauge is the sum.
    fn tell(&mut self, host: &mut impl Host, kept: i64) {
        if kept != self.told {
            host.increment(self.kept, kept.saturating_sub(self.told));
            self.told = kept;
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

#[cfg(all(test, feature = "flagsmith"))]
mod tests {
    use super::*;
    use crate::worker::fake::HostInMemory;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn documents_of_all_workers_are_added_up_and_go_with_their_worker() {
        let mut host = HostInMemory::new(0, 0);
        let mut workers = [Recorder::new(&[]), Recorder::new(&[])];
        for worker in &mut workers {
            worker.define(&mut host).unwrap();
        }
        let of = |kept| Documents {
            surface: "flagsmith",
            kept,
            age: (kept > 1).then_some(Duration::from_millis(7_900)),
        };
        let start = Duration::from_secs(3);
        let (kept, age) = (
            "flag_definitions_documents;surface=flagsmith;",
            "flag_definitions_document_age_seconds;surface=flagsmith;",
        );
        for (worker, documents, sum, seconds) in [(0, 5, 5, 7), (1, 4, 9, 7), (0, 1, 5, 3)] {
            workers[worker].tell_documents(&mut host, of(documents), start);
            assert_eq!((host.counted(kept), host.counted(age)), (sum, seconds));
        }
        workers[0].leave(&mut host);
        assert_eq!(host.counted(kept), 4);
    }
}
