//! One request.

use std::rc::Rc;

use super::abi;
use super::health;
use super::plugin::Plugin;
use super::root::Shared;
use super::wire::{self, Fields};
use crate::config::Role;
use crate::http::Method;
use crate::surfaces::posthog::answers::Answer;
use crate::surfaces::posthog::request::{self, Request};
use crate::surfaces::posthog::settings::HeadRequests;

/// What the host shall do with a stream next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on to the next filter.
    Continue,
    /// Wait: the request was answered, or will be.
    Pause,
}

/// What Envoy changes in a local reply, and is put right when the response's headers are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Nothing,
    /// The type of an answer without a body is taken off, but PostHog's answer to HEAD has one.
    HeadType,
    /// To a request that says it is gRPC: the status becomes 200, the body goes into `grpc-message`.
    Refusal,
}

/// A request on its way through the filter.
pub struct Stream {
    /// Its context.
    pub id: u32,
    /// Its root context.
    pub root: Shared,
    changed: Changed,
}

impl Stream {
    /// A stream of this root context.
    pub fn new(id: u32, root: Shared) -> Self {
        Self {
            id,
            root,
            changed: Changed::Nothing,
        }
    }

    /// The request's headers are there.
    pub fn on_request_headers(&mut self) -> Next {
        let shared = Rc::clone(&self.root);
        let Ok(mut root) = shared.try_borrow_mut() else {
            return Next::Continue;
        };
        let Some(plugin) = root.plugin() else {
            return Next::Continue;
        };
        let bytes = match plugin.expects_ours() {
            true => abi::request_headers().ok(),
            false => None,
        };
        // Nothing else is read before the path is known to be ours.
        if let Some(fields) = bytes.as_deref().and_then(wire::fields) {
            let is_path = |(name, _): &(&[u8], &[u8])| *name == b":path";
            return match fields.clone().find(is_path) {
                Some((_, path)) if plugin.notes_ours(path) => self.serve(plugin, fields),
                _ => Next::Continue,
            };
        }
        let Ok(Some(path)) = abi::request_header(":path") else {
            return Next::Continue;
        };
        if plugin.settings.role == Role::Health {
            let content_type = abi::request_header("content-type").ok().flatten();
            if content_type.is_some_and(|value| request::is_grpc(&value)) {
                let refused = health::refuse();
                return self.refused(refused);
            }
            return next(health::answer(plugin, &path));
        }
        if !plugin.notes_ours(&path) {
            return Next::Continue;
        }
        let bytes = abi::request_headers().ok();
        match bytes.as_deref().and_then(wire::fields) {
            Some(fields) => self.serve(plugin, fields),
            None => next(plugin.on_unreadable_request()),
        }
    }

    fn serve(&mut self, plugin: &mut Plugin, fields: Fields<'_>) -> Next {
        fields
            .clone()
            .for_each(|(name, _)| crate::faults::on_header(name));
        let request = Request::parse_with(fields, &mut |text| plugin.hashes.of(text));
        if request.claims_grpc {
            let refused = plugin.on_request(self.id, request);
            return self.refused(refused);
        }
        let posthogs = plugin.settings.posthog.head_requests == HeadRequests::Posthog;
        if posthogs && request.method == Method::Head {
            self.changed = Changed::HeadType;
        }
        next(plugin.on_request(self.id, request))
    }

    /// Envoy runs a local reply after the callback that sent it. What was not sent goes on to the upstream, and its
    /// answer is not ours to change.
    fn refused(&mut self, sent: bool) -> Next {
        if sent {
            self.changed = Changed::Refusal;
        }
        next(sent)
    }

    /// The response's headers are there.
    pub fn on_response_headers(&mut self) {
        match self.changed {
            Changed::Nothing => {}
            Changed::HeadType => {
                let _ = abi::set_response_header("content-type", "application/json");
            }
            Changed::Refusal => {
                let status = Answer::UnsupportedMediaType.status().to_string();
                if abi::set_response_header(":status", &status).is_ok() {
                    for name in ["content-type", "grpc-status", "grpc-message"] {
                        let _ = abi::remove_response_header(name);
                    }
                }
            }
        }
    }

    /// Body or trailers of the request are there. Letting them pass would let a waiting request pass.
    pub fn on_more(&mut self) -> Next {
        let Ok(mut root) = self.root.try_borrow_mut() else {
            return Next::Continue;
        };
        next(
            root.plugin()
                .is_some_and(|plugin| plugin.is_waiting(self.id)),
        )
    }

    /// The stream ends.
    pub fn done(&mut self) {
        if let Ok(mut root) = self.root.try_borrow_mut()
            && let Some(plugin) = root.plugin()
        {
            plugin.on_stream_done(self.id);
        }
    }
}

fn next(paused: bool) -> Next {
    if paused { Next::Pause } else { Next::Continue }
}

/// Hands a callout's reply to the root context, whichever context made it.
pub fn on_callout(root: &Shared, context: u32, token: u32, body_size: usize) {
    if let Ok(mut root) = root.try_borrow_mut()
        && let Some(plugin) = root.plugin()
    {
        plugin.on_callout(context, token, body_size);
    }
}
