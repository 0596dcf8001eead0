//! What a worker asks of its shell. Behind it are Envoy's Wasm VM and, in tests, memory.

use std::fmt;
use std::time::Duration;

use crate::http::Response;
use crate::shared::{Ambient, Store};

/// A callout under way, by the host's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u32);

/// A metric, by the host's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricId(pub u32);

/// What a host answered that did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostStatus(pub u32);

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host status {}", self.0)
    }
}

/// Why a callout was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRefused {
    /// There is no cluster of this name.
    UnknownCluster,
    /// Anything else, such as an open circuit breaker.
    Other,
}

/// A callout as HTTP.
#[derive(Clone, Copy, Debug)]
pub struct CallRequest<'a> {
    /// Where to.
    pub cluster: &'a str,
    /// Header fields, pseudo-headers included.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body, maybe empty.
    pub body: &'a [u8],
    /// Longest wait.
    pub timeout: Duration,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is set.
    Gauge,
}

/// The port to a shell. Each status is a value: nothing here panics, and nothing blocks.
///
/// In one callback of the shell the worker acts on the request that the callback is for, and on each that it
/// [enters](Host::enter). Whose context a callout belongs to, and whom its reply is delivered to, is the shell's business: it
/// tells the worker of replies, and of callouts whose replies it has [lost](super::Worker::lost).
pub trait Host: Ambient {
    /// Shared data.
    type Store: Store;

    /// Shared data.
    fn shared(&self) -> &Self::Store;

    /// Starts a callout.
    ///
    /// # Errors
    /// When it is not taken.
    fn call(&mut self, call: &CallRequest<'_>) -> Result<CallId, CallRefused>;

    /// A header field of the reply that is being delivered.
    ///
    /// # Errors
    /// When there is no reply: the callout failed.
    fn reply_header(&self, name: &str) -> Result<Option<Vec<u8>>, HostStatus>;

    /// The body, of this length, of the reply that is being delivered.
    ///
    /// # Errors
    /// When it cannot be read.
    fn reply_body(&self, size: usize) -> Result<Vec<u8>, HostStatus>;

    /// Goes on with a request that was paused; `false` when it is gone.
    fn enter(&mut self, stream: u32) -> bool;

    /// Goes back to what the callback is for.
    fn leave(&mut self);

    /// Answers the request that was entered last, or that the callback is for.
    ///
    /// # Errors
    /// When it was not sent.
    fn reply(&mut self, response: &Response<'_>) -> Result<(), HostStatus>;

    /// Lets that request go on to the upstream, with a field that says why. `was_paused`: by an earlier callback.
    fn forward(&mut self, field: &str, reason: &str, was_paused: bool);

    /// Ticks at this period from now on; `false` when it was not taken.
    fn tick_every(&mut self, period: Duration) -> bool;

    /// Defines a metric.
    ///
    /// # Errors
    /// When it was not taken.
    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Result<MetricId, HostStatus>;

    /// Adds to a counter, or to a gauge, which may also go down. What is refused is lost: metrics must not hold up anything.
    fn increment(&mut self, metric: MetricId, by: i64);

    /// Sets a gauge.
    fn record(&mut self, metric: MetricId, value: u64);

    /// Follows the host's log level, so that lines which nobody would see are not even written.
    fn follow_log_level(&mut self);
}
