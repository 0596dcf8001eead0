//! One request.

use super::abi;
use super::health;
use super::root::Shared;
use super::wire;
use crate::config::{HeadRequests, Role};
use crate::request::{self, Method, Request};

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
        let Ok(mut root) = self.root.try_borrow_mut() else {
            return Next::Continue;
        };
        let Some(plugin) = root.plugin() else {
            return Next::Continue;
        };
        // Nothing else is read before the path is known to be ours.
        let Ok(Some(path)) = abi::request_header(":path") else {
            return Next::Continue;
        };
        let paused = match plugin.settings.role {
            Role::Health => health::answer(plugin, &path),
            Role::Filter if !request::is_ours(&path) => false,
            Role::Filter => match abi::request_headers() {
                Ok(bytes) => match wire::fields(&bytes) {
                    Some(fields) => {
                        fields
                            .iter()
                            .for_each(|(name, _)| crate::faults::on_header(name));
                        let request = Request::parse(fields);
                        let posthogs = plugin.settings.head_requests == HeadRequests::Posthog;
                        self.is_head = posthogs && request.method == Method::Head;
                        plugin.on_request(self.id, request)
                    }
                    None => plugin.on_unreadable_request(),
                },
                Err(_) => plugin.on_unreadable_request(),
            },
        };
        next(paused)
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
