//! What one worker does, whatever the shell: it serves requests with a surface, shares reads among them, and drives the
//! surface's jobs.
//!
//! A shell tells a [`Worker`] what happened (a request, a reply, a tick, a stream that is gone), and the worker asks the shell
//! for what it needs through [`Host`].
//!
//! | room | job |
//! |---|---|
//! | [`host`] | the port to the shell |
//! | [`serving`] | a request: decided by the surface, carried out here |
//! | [`bodies`] | requests that are decided when their body is there |
//! | [`reads`], [`single_flight`] | one read for all who need the same |
//! | [`backlog`] | answers that are due, a bounded number in each callback |
//! | [`calls`] | one callout: out, and its reply in |
//! | [`jobs`] | the driver of regular work |
//! | [`recorder`], [`request_log`], [`clusters`], [`health`] | what operators see |
//! | [`registry`] | the workers of one VM |

mod backlog;
mod bodies;
mod calls;
mod clusters;
#[cfg(test)]
mod fake;
pub mod health;
pub mod host;
mod jobs;
mod reads;
mod recorder;
pub mod registry;
mod request_log;
mod serving;
mod single_flight;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::metrics::Metric;
use crate::recent::OncePerSecond;
use crate::shared::{BUSY, Machinery};
use crate::snapshot::LoaderJob;
use crate::surfaces::Surface;
use crate::time::Monotonic;

use backlog::{Backlog, Cause};
use bodies::Bodies;
use host::{CallId, Host, HostStatus};
use jobs::{Driver, Jobs, Work};
use reads::Turn;
pub use recorder::Recorder;
use request_log::RequestLog;
use single_flight::SingleFlight;

pub use clusters::Clusters;
pub use serving::{BodyAhead, Served};

/// First tick.
const START_TICK: Duration = Duration::from_millis(100);

/// How often the host's counters are brought up to date.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// One worker: a plugin configuration in one VM.
pub struct Worker<H: Host, S: Surface> {
    host: H,
    surface: S,
    loader: Option<LoaderJob>,
    flights: SingleFlight<S>,
    backlog: Backlog<S>,
    bodies: Bodies<S>,
    jobs: Jobs,
    recorder: Recorder,
    log: RequestLog,
    clusters: Clusters,
    unsent_answers: OncePerSecond,
    serves_requests: bool,
    /// Length of the body of the last answer.
    sent_bytes: usize,
    tick: Option<Duration>,
    started_at: Option<Monotonic>,
    flushed_at: Monotonic,
    now: Monotonic,
}

impl<H: Host, S: Surface> Worker<H, S>
where
    Metric: From<S::Count>,
{
    /// A worker that has done nothing yet. `id` tells it from the others of its VM: a newer one has a larger number.
    /// `loader`: where the surface needs a snapshot.
    pub fn new(
        id: u32,
        host: H,
        surface: S,
        loader: Option<LoaderJob>,
        recorder: Recorder,
        clusters: Clusters,
    ) -> Self {
        Self {
            jobs: Jobs::new(id, &host),
            host,
            surface,
            loader,
            flights: SingleFlight::default(),
            backlog: Backlog::default(),
            bodies: Bodies::default(),
            recorder,
            log: RequestLog::default(),
            clusters,
            unsent_answers: OncePerSecond::default(),
            serves_requests: false,
            sent_bytes: 0,
            tick: None,
            started_at: None,
            flushed_at: Monotonic::default(),
            now: Monotonic::default(),
        }
    }

    /// Defines the metrics, begins to tick, and makes itself known to the others of its VM.
    ///
    /// # Errors
    /// When the host does not take a metric.
    pub fn start(&mut self) -> Result<(), HostStatus> {
        self.recorder.define(&mut self.host)?;
        self.set_tick(START_TICK);
        let work = Work {
            loader: self.loader.as_mut(),
            surface: &mut self.surface,
        };
        self.jobs.enter::<H, S>(work);
        Ok(())
    }

    /// The shell.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The surface.
    pub fn surface(&mut self) -> &mut S {
        &mut self.surface
    }

    /// A callout was answered.
    pub fn on_reply(&mut self, call: CallId, body_size: usize) {
        if self.on_read(call, body_size) {
            self.host.leave();
            return;
        }
        self.now();
        let (work, jobs, mut driver) = self.driver();
        let due_in = jobs.on_reply(work, call, body_size, &mut driver);
        // All else waits for the next tick.
        if let Some(due_in) = due_in.filter(|due_in| *due_in <= BUSY) {
            self.hurry(due_in);
        }
    }

    /// Regular work.
    pub fn on_tick(&mut self) {
        let now = self.now();
        let overdue = self.flights.overdue(now);
        self.abandon();
        self.backlog.push(Cause::Overdue, overdue);
        self.send_again();
        let (work, jobs, mut driver) = self.driver();
        jobs.tick(work, &mut driver);
        let is_idle = self.backlog.is_empty();
        let is_loaded = self.loader.as_mut().is_some_and(LoaderJob::take_loaded);
        let (surface, mut machinery) = self.parts();
        if is_loaded {
            surface.loaded(&mut machinery);
        }
        surface.tick(is_idle, &mut machinery);
        self.take_finished();
        self.give_up_bodies();
        self.clusters
            .tell(self.host.shared(), self.surface.status());
        if now.since(self.flushed_at) >= FLUSH_INTERVAL {
            self.flushed_at = now;
            self.flush();
            self.host.follow_log_level();
        }
        let due_in = self.due_in();
        self.set_tick(due_in);
        self.answer_due(Turn::Oldest);
        self.host.leave();
    }

    /// How long until some part wants the next tick.
    fn due_in(&mut self) -> Duration {
        let waiters = (!self.flights.is_empty()).then_some(BUSY);
        let work = Work {
            loader: self.loader.as_mut(),
            surface: &mut self.surface,
        };
        let jobs = self.jobs.due_in::<H, S>(work, self.now);
        [waiters, Some(self.surface.due_in())]
            .into_iter()
            .flatten()
            .fold(jobs, Duration::min)
    }

    /// The worker ends.
    pub fn stop(&mut self) {
        self.now();
        let (work, jobs, mut driver) = self.driver();
        jobs.stop(work, &mut driver);
        self.flush();
        self.recorder.leave(&mut self.host);
    }

    /// The time; when the clock fails, the last time that it did not.
    fn now(&mut self) -> Monotonic {
        if let Some(now) = self.host.monotonic() {
            self.now = now;
        }
        self.now
    }

    /// The surface, and what it may use.
    fn parts(&mut self) -> (&mut S, Machinery<'_, H::Store, S::Count>) {
        let machinery = Machinery {
            store: self.host.shared(),
            now: self.now,
            ambient: &self.host,
            counts: &mut self.recorder,
        };
        (&mut self.surface, machinery)
    }

    fn driver(&mut self) -> (Work<'_, S>, &mut Jobs, Driver<'_, H>) {
        let driver = Driver {
            host: &mut self.host,
            recorder: &mut self.recorder,
            now: self.now,
            serves_requests: self.serves_requests,
        };
        let work = Work {
            loader: self.loader.as_mut(),
            surface: &mut self.surface,
        };
        (work, &mut self.jobs, driver)
    }

    /// Brings the host's counters up to date.
    fn flush(&mut self) {
        let now = self.now;
        // Without a snapshot the gauge must not look like a fresh one.
        let since_start = now.since(*self.started_at.get_or_insert(now));
        let ages = self.surface.ages(now);
        self.recorder.flush(
            &mut self.host,
            ages.snapshot.unwrap_or(since_start).as_secs(),
            ages.watermark.unwrap_or(since_start).as_secs(),
        );
        let mut documents = Vec::new();
        let show = &mut |of| documents.push(of);
        let (surface, host) = (&self.surface, &self.host);
        surface.each_documents(host.shared(), host, show);
        for of in documents {
            self.recorder
                .tell_documents(&mut self.host, of, since_start);
        }
    }

    /// Ticks at least as often as that, until the next tick says how to go on.
    fn hurry(&mut self, period: Duration) {
        if self.tick.is_none_or(|tick| tick > period) {
            self.set_tick(period);
        }
    }

    fn set_tick(&mut self, period: Duration) {
        if self.tick != Some(period) && self.host.tick_every(period) {
            self.tick = Some(period);
        }
    }
}
