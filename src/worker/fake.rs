//! A host in memory, for tests of the worker.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::host::{CallId, CallRefused, CallRequest, Host, HostStatus, MetricId, MetricKind};
use crate::http::Response;
use crate::shared::{Ambient, MemoryStore};
use crate::time::UnixMillis;

/// What a test sees of an answer: its stream, its status and why it was given.
pub type Answered = (u32, u16, &'static str);

/// The host.
#[derive(Default)]
pub struct HostInMemory {
    pub store: MemoryStore,
    pub millis: u64,
    pub entered: u32,
    pub gone: HashSet<u32>,
    pub answered: Vec<Answered>,
    pub forwarded: Vec<(u32, String)>,
    /// Callouts under way: the number, and the first word of what was asked.
    pub calls: Vec<(CallId, String)>,
    pub refuses_calls: bool,
    pub refuses_answers: bool,
    /// Status and body of the reply that is being delivered.
    pub reply: Option<(&'static str, Vec<u8>)>,
    pub tick: Duration,
    pub metrics: BTreeMap<String, u64>,
    names: Vec<String>,
    numbers: u32,
    random: Cell<u64>,
}

impl HostInMemory {
    /// A host at this time, whose random numbers begin after this one.
    pub fn new(millis: u64, random: u64) -> Self {
        Self {
            millis,
            random: Cell::new(random),
            ..Self::default()
        }
    }

    /// Sum of the counters whose names begin so.
    pub fn counted(&self, name: &str) -> u64 {
        let of = self
            .metrics
            .iter()
            .filter(|(known, _)| known.starts_with(name));
        of.map(|(_, sum)| sum).sum()
    }
}

impl Ambient for HostInMemory {
    fn clock(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.millis))
    }

    fn unix(&self) -> Option<UnixMillis> {
        Some(UnixMillis::from_millis(self.millis))
    }

    fn random(&self) -> u64 {
        self.random.set(self.random.get() + 1);
        self.random.get()
    }
}

impl Host for HostInMemory {
    type Store = MemoryStore;

    fn shared(&self) -> &MemoryStore {
        &self.store
    }

    fn call(&mut self, call: &CallRequest<'_>) -> Result<CallId, CallRefused> {
        if self.refuses_calls {
            return Err(CallRefused::Other);
        }
        self.numbers += 1;
        let id = CallId(self.numbers);
        let body = String::from_utf8_lossy(call.body);
        let path = call.headers.iter().find(|(name, _)| *name == ":path");
        let asked = match (body.is_empty(), path) {
            (true, Some((_, path))) => (*path).to_owned(),
            _ => body.into_owned(),
        };
        self.calls.push((id, asked));
        Ok(id)
    }

    fn reply_header(&self, name: &str) -> Result<Option<Vec<u8>>, HostStatus> {
        let (status, _) = self.reply.as_ref().ok_or(HostStatus(1))?;
        Ok((name == ":status").then(|| status.as_bytes().to_vec()))
    }

    fn reply_body(&self, size: usize) -> Result<Vec<u8>, HostStatus> {
        let (_, body) = self.reply.as_ref().ok_or(HostStatus(1))?;
        assert_eq!(body.len(), size);
        Ok(body.clone())
    }

    fn enter(&mut self, stream: u32) -> bool {
        self.entered = stream;
        !self.gone.contains(&stream)
    }

    fn leave(&mut self) {
        self.entered = 0;
    }

    fn reply(&mut self, response: &Response<'_>) -> Result<(), HostStatus> {
        if self.refuses_answers {
            return Err(HostStatus(10));
        }
        self.answered
            .push((self.entered, response.status, response.reason));
        Ok(())
    }

    fn forward(&mut self, _: &str, reason: &str, _: bool) {
        self.forwarded.push((self.entered, reason.to_owned()));
    }

    fn tick_every(&mut self, period: Duration) -> bool {
        self.tick = period;
        true
    }

    fn define_metric(&mut self, _: MetricKind, name: &str) -> Result<MetricId, HostStatus> {
        self.names.push(name.to_owned());
        Ok(MetricId(self.names.len() as u32 - 1))
    }

    fn increment(&mut self, metric: MetricId, by: i64) {
        let name = self.names[metric.0 as usize].clone();
        let metric = self.metrics.entry(name).or_default();
        *metric = metric.checked_add_signed(by).unwrap();
    }

    fn record(&mut self, metric: MetricId, value: u64) {
        self.metrics
            .insert(self.names[metric.0 as usize].clone(), value);
    }

    fn follow_log_level(&mut self) {}
}
