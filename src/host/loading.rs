//! The loader in its VM: its callouts, its events in metrics and log, its time.

use super::abi;
use super::callouts::{self, Callout};
use super::logger::LastProblem;
use super::random;
use super::recorder::Recorder;
use super::store::SharedData;
use crate::metrics::{Metric, Purpose};
use crate::records::Buckets;
use crate::snapshot::event::LoaderEvent;
use crate::snapshot::loader::Loader;
use crate::surfaces::posthog::directory::Record;
use crate::surfaces::posthog::settings::PostHogSettings;
use crate::time::Monotonic;

/// Largest reply to the loader: a manifest of the most pages that one may have is about 5 MB.
const LARGEST_REPLY: usize = 8 << 20;

/// The loader of one root context.
pub struct Loading {
    loader: Loader,
    sent: Option<Callout>,
    problem: LastProblem<LoaderEvent>,
}

impl Loading {
    /// A loader that has done nothing yet.
    pub fn new(settings: &PostHogSettings, buckets: Buckets) -> Self {
        Self {
            loader: Loader::new(&settings.snapshot, buckets, Record::check, random::number()),
            sent: None,
            problem: LastProblem::default(),
        }
    }

    /// Whether there is work that should not wait.
    pub fn is_busy(&self) -> bool {
        self.loader.is_busy()
    }

    /// How long until Redis is to be asked again; `None` when this VM does not ask.
    pub fn due_in(&self, now: Monotonic) -> Option<std::time::Duration> {
        self.loader.due_in(now)
    }

    /// Whether this is the reply that the loader waits for.
    pub fn awaits(&self, token: u32) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.token == token)
    }

    /// Does a slice of work; `true` when a snapshot became live.
    pub fn tick(
        &mut self,
        settings: &PostHogSettings,
        now: Monotonic,
        serves_requests: bool,
        recorder: &mut Recorder,
    ) -> bool {
        let began = abi::now();
        let mut events = Vec::new();
        let command = self
            .loader
            .tick(&SharedData, now, serves_requests, &mut events);
        self.took(began);
        if let Some(command) = command {
            match callouts::send(&settings.redis.snapshot, &command) {
                Ok(callout) => self.sent = Some(callout),
                Err(failure) => {
                    recorder.count(Metric::Callout(Purpose::Snapshot, Err(failure)));
                    self.loader.reply(&SharedData, Err(failure), &mut events);
                }
            }
        }
        self.report(&events, recorder)
    }

    /// Leaves loading to another root context.
    pub fn stop(&mut self, now: Monotonic, recorder: &mut Recorder) {
        let mut events = Vec::new();
        self.loader.stop(&SharedData, now, &mut events);
        self.sent = None;
        self.report(&events, recorder);
    }

    /// Takes the reply that is being delivered.
    pub fn on_reply(
        &mut self,
        settings: &PostHogSettings,
        body_size: usize,
        recorder: &mut Recorder,
    ) {
        let Some(callout) = self.sent.take() else {
            return;
        };
        let began = abi::now();
        let received = callouts::receive(body_size, LARGEST_REPLY);
        let reply = received.reply(&settings.redis.snapshot, &callout);
        recorder.count(callouts::metric(Purpose::Snapshot, &reply));
        let mut events = Vec::new();
        self.loader.reply(&SharedData, reply, &mut events);
        self.took(began);
        self.report(&events, recorder);
    }

    fn took(&mut self, began: Result<std::time::Duration, abi::Status>) {
        if let (Ok(began), Ok(ended)) = (began, abi::now()) {
            self.loader.took(ended.saturating_sub(began));
        }
    }

    fn report(&mut self, events: &[LoaderEvent], recorder: &mut Recorder) -> bool {
        for event in events {
            recorder.count(Metric::Loader(*event));
            if matches!(event, LoaderEvent::Loaded | LoaderEvent::Adopted) {
                self.problem.clear();
            } else if event.is_problem() && self.problem.is_new(*event) {
                log::warn!("loading the snapshot: {}", event.label());
            }
        }
        events.contains(&LoaderEvent::Loaded)
    }
}
