//! Envoy's Wasm VM as a [`Host`].
//!
//! The SDK delivers a callout's reply to the context in whose callback the callout was made. If that context is gone, the
//! reply is lost: [`WasmHost::gone`] says which ones.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::abi;
use super::logger;
use super::random;
use super::respond::Responder;
use super::store::SharedData;
use crate::http::Response;
use crate::shared::Ambient;
use crate::time::UnixMillis;
use crate::worker::host::{
    CallId, CallRefused, CallRequest, Host, HostStatus, MetricId, MetricKind,
};

/// The host of one root context.
pub struct WasmHost {
    root: u32,
    /// The context whose callback this is: replies to the callouts that it makes are delivered to it.
    active: u32,
    /// The context that host calls act on.
    effective: u32,
    responder: Responder,
    /// The callouts of each context, and the context of each callout.
    calls: FxHashMap<u32, Vec<CallId>>,
    owners: FxHashMap<CallId, u32>,
}

impl WasmHost {
    /// The host of this root context.
    pub fn new(root: u32) -> Self {
        Self {
            root,
            active: root,
            effective: root,
            responder: Responder::default(),
            calls: FxHashMap::default(),
            owners: FxHashMap::default(),
        }
    }

    /// A callback of this context begins.
    pub fn begin(&mut self, context: u32) {
        self.active = context;
        self.effective = context;
    }

    /// The reply to a callout is being delivered.
    pub fn delivered(&mut self, call: CallId) {
        if let Some(owner) = self.owners.remove(&call)
            && let Some(calls) = self.calls.get_mut(&owner)
        {
            calls.retain(|other| *other != call);
            if calls.is_empty() {
                self.calls.remove(&owner);
            }
        }
    }

    /// A context is gone, and with it the replies to these callouts.
    pub fn gone(&mut self, context: u32) -> Vec<CallId> {
        // Most streams make no callout.
        if self.calls.is_empty() {
            return Vec::new();
        }
        let calls = self.calls.remove(&context).unwrap_or_default();
        for call in &calls {
            self.owners.remove(call);
        }
        calls
    }

    fn act_on(&mut self, context: u32) -> Result<(), HostStatus> {
        abi::set_effective_context(context)?;
        self.effective = context;
        Ok(())
    }
}

impl Ambient for WasmHost {
    fn clock(&self) -> Option<Duration> {
        abi::now().ok()
    }

    fn unix(&self) -> Option<UnixMillis> {
        abi::unix().ok()
    }

    fn random(&self) -> u64 {
        random::number()
    }
}

impl Host for WasmHost {
    type Store = SharedData;

    fn shared(&self) -> &SharedData {
        &SharedData
    }

    fn call(&mut self, call: &CallRequest<'_>) -> Result<CallId, CallRefused> {
        let before = self.effective;
        // As the root's callout Envoy delivers it in any case, and the SDK forgets its token.
        if before != self.root {
            let _ = self.act_on(self.root);
        }
        let started = abi::http_call(call.cluster, call.headers, call.body, call.timeout);
        if before != self.root {
            let _ = self.act_on(before);
        }
        match started {
            Ok(token) => {
                let call = CallId(token);
                self.owners.insert(call, self.active);
                self.calls.entry(self.active).or_default().push(call);
                Ok(call)
            }
            Err(abi::BAD_ARGUMENT) => Err(CallRefused::UnknownCluster),
            Err(_) => Err(CallRefused::Other),
        }
    }

    fn reply_header(&self, name: &str) -> Result<Option<Vec<u8>>, HostStatus> {
        abi::callout_header(name)
    }

    fn reply_body(&self, size: usize) -> Result<Vec<u8>, HostStatus> {
        abi::callout_body(size)
    }

    fn enter(&mut self, stream: u32) -> bool {
        self.act_on(stream).is_ok()
    }

    fn leave(&mut self) {
        // The host goes on in the context that it called.
        let _ = self.act_on(self.active);
    }

    fn reply(&mut self, response: &Response<'_>) -> Result<(), HostStatus> {
        self.responder.respond(response)
    }

    fn forward(&mut self, field: &str, reason: &str, was_paused: bool) {
        let _ = abi::set_request_header(field, reason);
        if was_paused {
            let _ = abi::continue_request();
        }
    }

    fn tick_every(&mut self, period: Duration) -> bool {
        abi::set_tick_period(period).is_ok()
    }

    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Result<MetricId, HostStatus> {
        let id = abi::define_metric(kind, name)?;
        Ok(MetricId(id))
    }

    fn increment(&mut self, metric: MetricId, by: i64) {
        let _ = abi::increment_metric(metric.0, by);
    }

    fn record(&mut self, metric: MetricId, value: u64) {
        let _ = abi::record_metric(metric.0, value);
    }

    fn follow_log_level(&mut self) {
        logger::follow_host();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(host: &mut WasmHost, context: u32) -> CallId {
        host.begin(context);
        let call = CallRequest {
            cluster: "redis",
            headers: &[],
            body: &[],
            timeout: Duration::from_secs(1),
        };
        host.call(&call).unwrap()
    }

    #[test]
    fn the_replies_of_a_context_that_is_gone_are_lost_and_no_others() {
        let mut host = WasmHost::new(1);
        let (delivered, lost, others) = (
            call(&mut host, 10),
            call(&mut host, 10),
            call(&mut host, 11),
        );
        host.delivered(delivered);
        assert_eq!(host.gone(12), []);
        assert_eq!(host.gone(10), [lost]);
        assert_eq!(host.gone(10), []);
        host.delivered(others);
        assert!(host.calls.is_empty() && host.owners.is_empty());
    }
}
