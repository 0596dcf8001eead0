//! What any filter costs, to compare with: one that does nothing, one that reads nothing and sends one fixed answer,
//! one that makes the host calls of such an answer before it sends it, and does nothing with what they bring, and one
//! that asks a gateway and answers with what that says. Which of them a listener gets is said by its plugin
//! configuration: none, or an [`Answer`] as JSON.

// `proxy_wasm::main!` exports a function by its name.
#![allow(unsafe_code, missing_docs)]

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { answer: None }));
}}

/// The answer to every request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u32,
    /// Names and values, in order. `content-length` is Envoy's to add.
    headers: Vec<(String, String)>,
    /// In base64, since JSON is text.
    #[serde(deserialize_with = "from_base64")]
    body: Vec<u8>,
    /// Made before it is sent.
    #[serde(default)]
    host_calls: HostCalls,
    /// Sent at the end of the request's body; [`HostCalls`] then read that as well.
    #[serde(default)]
    awaits_body: bool,
    /// Then `body` is not what is sent.
    callout: Option<Callout>,
}

/// What a gateway is asked. All that it replies is the answer's body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Callout {
    cluster: String,
    /// `{team}` stands for the number at the end of the request's path.
    body: String,
}

/// As long as the filter waits in the benchmark.
const CALLOUT_TIMEOUT: Duration = Duration::from_secs(2);

/// What an answer cannot be given without.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum HostCalls {
    #[default]
    None,
    /// The request's headers, and the clock.
    Request,
    /// These, and one that counts in shared data: a get, and a set that compares.
    RequestAndCount,
}

/// As long as the filter's own.
const COUNTER: &str = "fd1u:0123456789ab:u:123";

fn count() {
    if let Ok((value, cas)) = proxy_wasm::hostcalls::get_shared_data(COUNTER) {
        let mut value = value.unwrap_or_else(|| vec![0; 25]);
        if let Some(byte) = value.first_mut() {
            *byte = byte.wrapping_add(1);
        }
        // Another worker may be first: that is what it would cost, too.
        let _ = proxy_wasm::hostcalls::set_shared_data(COUNTER, Some(&value), cas);
    }
}

fn from_base64<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    BASE64_STANDARD
        .decode(text)
        .map_err(serde::de::Error::custom)
}

struct Root {
    answer: Option<Rc<Answer>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match self.get_plugin_configuration() {
            None => true,
            Some(text) => match serde_json::from_slice(&text) {
                Ok(answer) => {
                    self.answer = Some(Rc::new(answer));
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.answer {
            None => Box::new(NoOp),
            Some(answer) => Box::new(ReplyOnly(Rc::clone(answer))),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct NoOp;

impl Context for NoOp {}

impl HttpContext for NoOp {}

struct ReplyOnly(Rc<Answer>);

impl ReplyOnly {
    fn send(&self, body: &[u8]) {
        let headers = self.0.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        self.send_http_response(self.0.status, headers.collect(), Some(body));
    }

    fn answer(&self) {
        match &self.0.callout {
            None => self.send(&self.0.body),
            Some(callout) => self.call(callout),
        }
    }

    fn call(&self, callout: &Callout) {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let team = path.rsplit(|c: char| !c.is_ascii_digit()).next();
        let body = callout.body.replace("{team}", team.unwrap_or_default());
        let headers = vec![
            (":method", "POST"),
            (":path", "/"),
            (":authority", callout.cluster.as_str()),
            ("content-type", "text/plain"),
        ];
        let body = Some(body.as_bytes());
        let sent =
            self.dispatch_http_call(&callout.cluster, headers, body, vec![], CALLOUT_TIMEOUT);
        if sent.is_err() {
            self.send_http_response(503, vec![], None);
        }
    }
}

impl Context for ReplyOnly {
    fn on_http_call_response(&mut self, _: u32, _: usize, body_size: usize, _: usize) {
        match self.get_http_call_response_body(0, body_size) {
            Some(body) => self.send(&body),
            None => self.send_http_response(503, vec![], None),
        }
    }
}

impl HttpContext for ReplyOnly {
    fn on_http_request_headers(&mut self, _: usize, ends: bool) -> Action {
        let answer = &self.0;
        if answer.host_calls != HostCalls::None {
            black_box(self.get_http_request_headers_bytes());
            black_box(self.get_current_time());
        }
        if answer.host_calls == HostCalls::RequestAndCount {
            count();
        }
        if ends || !answer.awaits_body {
            self.answer();
        }
        Action::Pause
    }

    fn on_http_request_body(&mut self, length: usize, ends: bool) -> Action {
        if !self.0.awaits_body {
            return Action::Continue;
        }
        if ends {
            if self.0.host_calls != HostCalls::None {
                black_box(self.get_http_request_body(0, length));
                black_box(self.get_current_time());
            }
            self.answer();
        }
        Action::Pause
    }
}
