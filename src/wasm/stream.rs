//! One request.

use std::rc::Rc;

use super::abi;
use super::root::{EnvoyWorker, Filter, HealthListener, Plugin, Shared};
use super::wire::{self, Fields};
use crate::http::{Late, is_grpc};
use crate::surfaces::Surface;
use crate::worker::{BodyAhead, Served};

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
    /// Envoy runs a local reply after the callback that sent it. What was not sent goes on to the upstream, and its
    /// answer is not ours to change.
    late: Late,
    /// Length of the request's body, as far as it is there.
    body: usize,
    /// Whether the request waits, and may yet go on to an upstream with its body.
    may_forward: bool,
}

impl Stream {
    /// A stream of this root context.
    pub const fn new(id: u32, root: Shared) -> Self {
        Self {
            id,
            root,
            late: Late::Nothing,
            body: 0,
            may_forward: false,
        }
    }

    /// The request's headers are there, and all of it where it `ends` with them.
    pub fn on_request_headers(&mut self, ends: bool) -> Next {
        let shared = Rc::clone(&self.root);
        let Ok(mut root) = shared.try_borrow_mut() else {
            return Next::Continue;
        };
        match root.plugin() {
            Some(Plugin::Filter(filter)) => {
                let body = if ends { BodyAhead::No } else { BodyAhead::Yes };
                self.filter(filter, body)
            }
            Some(Plugin::Health(listener)) => match abi::request_header(":path") {
                Ok(Some(path)) => self.tell_health(listener, &path),
                _ => Next::Continue,
            },
            None => Next::Continue,
        }
    }

    fn filter(&mut self, filter: &mut Filter, body: BodyAhead) -> Next {
        let bytes = match filter.expects_ours() {
            true => abi::request_headers().ok(),
            false => None,
        };
        // Nothing else is read before the path is known to be ours.
        if let Some(fields) = bytes.as_deref().and_then(wire::fields) {
            let is_path = |(name, _): &(&[u8], &[u8])| *name == b":path";
            let Some((_, path)) = fields.clone().find(is_path) else {
                return Next::Continue;
            };
            if let Some(listener) = filter.health(path) {
                return self.tell_health_here(listener, path);
            }
            let ours = filter.owns(path);
            return match ours {
                true => self.serve(filter.worker(self.id), path, fields, body),
                false => Next::Continue,
            };
        }
        let Ok(Some(path)) = abi::request_header(":path") else {
            return Next::Continue;
        };
        if let Some(listener) = filter.health(&path) {
            return self.tell_health_here(listener, &path);
        }
        if !filter.owns(&path) {
            return Next::Continue;
        }
        let worker = filter.worker(self.id);
        let bytes = abi::request_headers().ok();
        match bytes.as_deref().and_then(wire::fields) {
            Some(fields) => self.serve(worker, &path, fields, body),
            None => self.next(worker.on_unreadable_request(&path)),
        }
    }

    fn serve(
        &mut self,
        worker: &mut EnvoyWorker,
        path: &[u8],
        fields: Fields<'_>,
        body: BodyAhead,
    ) -> Next {
        fields
            .clone()
            .for_each(|(name, _)| crate::faults::on_header(name));
        let request = worker.surface().parse(path, fields);
        let served = worker.on_request(self.id, request, body);
        self.may_forward = served == Served::Waits && worker.surface().forwards(path);
        self.next(served)
    }

    fn next(&mut self, verdict: Served) -> Next {
        match verdict {
            Served::Passes => Next::Continue,
            Served::Waits => Next::Pause,
            Served::Answered(late) => {
                self.late = late;
                Next::Pause
            }
        }
    }

    /// Beside other traffic: what does not only ask is somebody else's.
    fn tell_health_here(&mut self, listener: &HealthListener, path: &[u8]) -> Next {
        let method = abi::request_header(":method").ok().flatten();
        match method.as_deref() {
            Some(b"GET" | b"HEAD") => self.tell_health(listener, path),
            _ => Next::Continue,
        }
    }

    fn tell_health(&mut self, listener: &HealthListener, path: &[u8]) -> Next {
        let content_type = abi::request_header("content-type").ok().flatten();
        let claims_grpc = content_type.is_some_and(|value| is_grpc(&value));
        let sent = match claims_grpc {
            true => listener.refuse(),
            false => listener.answer(path),
        };
        if !sent {
            return Next::Continue;
        }
        if claims_grpc {
            self.late = Late::Status(415);
        }
        Next::Pause
    }

    /// The response's headers are there.
    pub fn on_response_headers(&mut self) {
        match self.late {
            Late::Nothing => {}
            Late::ContentType(content_type) => {
                let _ = abi::set_response_header("content-type", content_type);
            }
            Late::Status(status) => {
                if abi::set_response_header(":status", &status.to_string()).is_ok() {
                    for name in ["content-type", "grpc-status", "grpc-message"] {
                        let _ = abi::remove_response_header(name);
                    }
                }
            }
        }
    }

    /// So many bytes of the request's body are there, and all of it where it `ends`. Letting them pass would let a waiting
    /// request pass.
    pub fn on_body(&mut self, bytes: usize, ends: bool) -> Next {
        self.body = bytes;
        let shared = Rc::clone(&self.root);
        let Ok(mut root) = shared.try_borrow_mut() else {
            return Next::Continue;
        };
        let Some(filter) = root.filter() else {
            return Next::Continue;
        };
        let worker = filter.worker(self.id);
        let served = worker.on_body_part(self.id, bytes);
        let is_awaited = worker.awaits_body(self.id);
        match served {
            Served::Waits if ends && is_awaited => self.read_body(worker),
            // The host would keep it, and refuse the request when it becomes too long.
            Served::Waits if !is_awaited && bytes > 0 && !self.may_forward => {
                let _ = abi::drop_request_body(bytes);
                self.body = 0;
                Next::Pause
            }
            served => self.next(served),
        }
    }

    /// Trailers end the body.
    pub fn on_trailers(&mut self) -> Next {
        self.on_body(self.body, true)
    }

    fn read_body(&mut self, worker: &mut EnvoyWorker) -> Next {
        let body = abi::request_body(self.body).ok();
        // What is taken is never a part of it.
        let whole = body.filter(|body| body.len() == self.body);
        self.next(worker.on_body(self.id, whole.as_deref()))
    }

    /// The stream ends.
    pub fn done(&mut self) {
        if let Ok(mut root) = self.root.try_borrow_mut()
            && let Some(filter) = root.filter()
        {
            filter.stream_done(self.id);
        }
    }
}

/// Hands a callout's reply to the root context, whichever context made it.
pub fn on_callout(root: &Shared, context: u32, token: u32, body_size: usize) {
    if let Ok(mut root) = root.try_borrow_mut() {
        root.reply(context, token, body_size);
    }
}
