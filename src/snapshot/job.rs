//! The job that keeps shared data as published: the loader, its events in metrics and log, its time.

use std::time::Duration;

use super::event::LoaderEvent;
use super::loader::{Loader, lease_name};
use super::settings::Snapshot;
use crate::records::{Buckets, Check};
use crate::redis::{Failure, Gateway, Purpose, Reply};
use crate::shared::{Ambient, BUSY, Errand, Finding, Held, Job, Machinery, Store};
use crate::time::Monotonic;

/// Largest reply to the loader: a manifest of the most pages that one may have is about 5 MB.
const LARGEST_REPLY: usize = 8 << 20;

/// Tick while a snapshot or changes are applied: slices take about a tenth of the VM.
const LOADING: Duration = Duration::from_millis(5);

const TOPIC: &str = "snapshot";

/// The loader of one worker.
pub struct LoaderJob {
    loader: Loader,
    lease: String,
    gateway: Gateway,
    poll_interval: Duration,
    loaded: bool,
    holds: bool,
    findings: Vec<Finding>,
}

impl LoaderJob {
    /// A loader that has done nothing yet. What `check` refuses does not get into `buckets`.
    pub fn new(
        settings: &Snapshot,
        gateway: Gateway,
        buckets: Buckets,
        check: Check,
        ambient: &dyn Ambient,
    ) -> Self {
        Self {
            lease: lease_name(buckets.scope()),
            loader: Loader::new(settings, buckets, check, ambient.random()),
            gateway,
            poll_interval: settings.poll_interval,
            loaded: false,
            holds: false,
            findings: Vec::new(),
        }
    }

    /// Whether a snapshot became live since the last call.
    pub fn take_loaded(&mut self) -> bool {
        std::mem::take(&mut self.loaded)
    }

    fn took(&mut self, began: Option<Duration>, ambient: &dyn Ambient) {
        if let (Some(began), Some(ended)) = (began, ambient.clock()) {
            self.loader.took(ended.saturating_sub(began));
        }
    }

    fn report<S, C: From<LoaderEvent>>(
        &mut self,
        events: &[LoaderEvent],
        machinery: &mut Machinery<'_, S, C>,
    ) {
        for event in events {
            machinery.count(*event);
            if matches!(event, LoaderEvent::Loaded | LoaderEvent::Adopted) {
                self.findings.push(Finding::Settled(TOPIC));
            } else if event.is_problem() {
                let line = format!("loading the snapshot: {}", event.label());
                self.findings.push(Finding::Trouble(TOPIC, line));
            }
        }
        self.loaded |= events.contains(&LoaderEvent::Loaded);
    }
}

impl<S: Store, C: From<LoaderEvent>> Job<S, C> for LoaderJob {
    fn lease(&self) -> Option<&str> {
        Some(&self.lease)
    }

    fn steps_aside(&self) -> bool {
        self.loader.is_idle()
    }

    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, C>) -> Option<Errand> {
        self.holds = held == Held::Yes;
        let began = machinery.ambient.clock();
        let mut events = Vec::new();
        let command = self
            .loader
            .tick(machinery.store, machinery.now, held, &mut events);
        self.took(began, machinery.ambient);
        self.report(&events, machinery);
        Some(Errand {
            gateway: self.gateway.clone(),
            command: command?,
            largest_reply: LARGEST_REPLY,
            purpose: Purpose::Snapshot,
            key: 0,
        })
    }

    fn reply(
        &mut self,
        _: u64,
        reply: Result<Reply<'_>, Failure>,
        machinery: &mut Machinery<'_, S, C>,
    ) {
        let began = machinery.ambient.clock();
        let mut events = Vec::new();
        self.loader.reply(machinery.store, reply, &mut events);
        self.took(began, machinery.ambient);
        self.report(&events, machinery);
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn due_in(&self, now: Monotonic) -> Duration {
        if self.loader.is_busy() {
            return LOADING;
        }
        match self.loader.due_in(now) {
            Some(poll) if self.holds => poll.min(self.poll_interval).max(BUSY),
            _ => self.poll_interval,
        }
    }

    fn stop(&mut self, machinery: &mut Machinery<'_, S, C>) {
        self.holds = false;
        let mut events = Vec::new();
        self.loader.stop(machinery.store, &mut events);
        self.report(&events, machinery);
    }
}
