//! One request.

use std::rc::Rc;

use super::abi;
use super::health;
use super::plugin::Plugin;
use super::root::Shared;
use super::wire::{self, Fields};
use crate::config::{HeadRequests, Role};
use crate::request::{Method, Request};

/// What the host shall do with a stream next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on to the next filter.
    Continue,
    /// Wait: the request was answered, or will be.
    Pause,
}

/// A request on its way through the filter.
pub struct Stream {
    /// Its context.
    pub id: u32,
    /// Its root context.
    pub root: Shared,
    is_head: bool,
}

impl Stream {
    /// A stream of this root context.
    pub fn new(id: u32, root: Shared) -> Self {
        Self {
            id,
            root,
            is_head: false,
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
        let posthogs = plugin.settings.head_requests == HeadRequests::Posthog;
        self.is_head = posthogs && request.method == Method::Head;
        next(plugin.on_request(self.id, request))
    }

    /// The response's headers are there. Envoy takes the type off a local reply without a body, but PostHog's
    /// answer to HEAD has one.
    pub fn on_response_headers(&mut self) {
        if self.is_head {
            let _ = abi::set_response_header("content-type", "application/json");
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
