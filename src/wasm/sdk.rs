//! The SDK's callbacks, handed on.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use super::logger;
use super::root::{Root, Shared};
use super::stream::{self, Next, Stream};

proxy_wasm::main! {{
    logger::install();
    proxy_wasm::set_root_context(|id| Box::new(RootAdapter {
        id,
        root: Rc::new(RefCell::new(Root::new(id))),
    }));
}}

// Which callbacks Envoy is shown. Named here, so that Cargo links anew when the list changes.
const _: &str = include_str!("link.sh");

// Envoy says of a context that it is done, and in the same breath that it is deleted, on which the SDK drops what it was
// given. So what has to be done at the end is done in `drop`, and Envoy enters the VM once less.

struct RootAdapter {
    id: u32,
    root: Shared,
}

impl Context for RootAdapter {
    fn on_http_call_response(&mut self, token: u32, _: usize, body_size: usize, _: usize) {
        stream::on_callout(&self.root, self.id, token, body_size);
    }
}

impl Drop for RootAdapter {
    fn drop(&mut self) {
        if let Ok(mut root) = self.root.try_borrow_mut() {
            root.done();
        }
    }
}

impl RootContext for RootAdapter {
    fn on_configure(&mut self, size: usize) -> bool {
        match self.root.try_borrow_mut() {
            Ok(mut root) => root.configure(size),
            Err(_) => false,
        }
    }

    fn on_tick(&mut self) {
        if let Ok(mut root) = self.root.try_borrow_mut() {
            root.tick();
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(StreamAdapter(Stream::new(
            id,
            Rc::clone(&self.root),
        ))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct StreamAdapter(Stream);

fn action(next: Next) -> Action {
    match next {
        Next::Continue => Action::Continue,
        Next::Pause => Action::Pause,
    }
}

impl Context for StreamAdapter {
    fn on_http_call_response(&mut self, token: u32, _: usize, body_size: usize, _: usize) {
        stream::on_callout(&self.0.root, self.0.id, token, body_size);
    }
}

impl Drop for StreamAdapter {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl HttpContext for StreamAdapter {
    fn on_http_request_headers(&mut self, _: usize, ends: bool) -> Action {
        action(self.0.on_request_headers(ends))
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.0.on_response_headers();
        Action::Continue
    }

    fn on_http_request_body(&mut self, bytes: usize, ends: bool) -> Action {
        action(self.0.on_body(bytes, ends))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        action(self.0.on_trailers())
    }
}
