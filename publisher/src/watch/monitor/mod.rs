//! `/metrics` and `/healthz` of `watch`.
//!
//! Plain HTTP for a scraper and a liveness probe; it shows figures, never a token or a hash. Whoever reaches the port may
//! send anything: `connections` says what that may cost.

mod connections;
mod exposition;
mod health;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::watch::status::WatchStatus;
use health::Watcher;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            text => text
                .parse()
                .map(Self::At)
                .map_err(|_| "use an address and a port, such as 127.0.0.1:9105, or off"),
        }
    }
}

/// The address for metrics and health cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    problem: String,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, problem } = self;
        write!(
            f,
            "cannot listen on {address}: {problem}; choose another address with --listen, or off"
        )
    }
}

impl std::error::Error for ListenError {}

/// Answers until it is dropped.
pub struct Monitor {
    address: SocketAddr,
    /// Dropped: it is to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Begins to answer. `None`: nobody wants it to.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(listen: Listen, status: Arc<WatchStatus>) -> Result<Option<Self>, ListenError> {
        let Listen::At(address) = listen else {
            return Ok(None);
        };
        let start = || {
            let (runtime, listener) = bind(address)?;
            let address = listener.local_addr()?;
            let (stop, stopped) = oneshot::channel();
            let answers = Arc::new(Answers {
                status,
                watcher: Mutex::default(),
            });
            let thread = std::thread::Builder::new()
                .name("monitor".to_owned())
                .spawn(move || {
                    let answer = move |request: &Request<_>| answers.to(request);
                    runtime.block_on(connections::serve(listener, answer, stopped));
                })?;
            Ok(Self {
                address,
                stop: Some(stop),
                thread: Some(thread),
            })
        };
        start().map(Some).map_err(|error: io::Error| ListenError {
            address,
            problem: error.to_string(),
        })
    }

    /// Where it listens: with port 0 the one that was free.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bind(address: SocketAddr) -> io::Result<(Runtime, TcpListener)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    drop(entered);
    Ok((runtime, listener))
}

impl Drop for Monitor {
    /// Waits for the answers under way, at most `connections::FAREWELL`.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked answers no more, which is all that is wanted.
            let _ = thread.join();
        }
    }
}

/// What is answered.
struct Answers {
    status: Arc<WatchStatus>,
    watcher: Mutex<Watcher>,
}

impl Answers {
    fn to<B>(&self, request: &Request<B>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(ALLOW, allowed);
            return refusal;
        }
        let now = Instant::now();
        // The path alone, also of a target in absolute form (RFC 9112 section 3.2.2).
        match request.uri().path() {
            "/metrics" => content(
                StatusCode::OK,
                exposition::text(&self.status.figures(), now),
                exposition::CONTENT_TYPE,
            ),
            "/healthz" => {
                let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
                let health = watcher.health(&self.status.figures(), now);
                // It has no part that JSON cannot say.
                let body = serde_json::to_string(&health).unwrap_or_default();
                content(health.status.code(), body, "application/json")
            }
            _ => text(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n"),
        }
    }
}

fn text(code: StatusCode, body: &str) -> Response<String> {
    content(code, body.to_owned(), "text/plain; charset=utf-8")
}

fn content(code: StatusCode, body: String, kind: &'static str) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn it_answers_over_http() {
        let status = Arc::new(WatchStatus::default());
        status.update(|figures| figures.generation = 7);
        let listen = "127.0.0.1:0".parse().unwrap();
        let monitor = Monitor::start(listen, status).unwrap().unwrap();
        let address = monitor.address();
        let metrics = get(address, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.contains("flag_definitions_publisher_generation 7\n"));
        let health = get(address, "/healthz");
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        assert!(health.ends_with(
            r#"{"status":"waiting","generation":7,"lineage":0,"last_id":null,"watermark_age_ms":null,"last_read_age_ms":null,"listening":false,"held_back":0}"#
        ), "{health}");
        assert!(get(address, "/").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn an_address_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Monitor::start(Listen::At(address), Arc::default());
        let text = error.err().unwrap().to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("--listen"), "{text}");
    }

    #[test]
    fn addresses() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert!("[::1]:9105".parse::<Listen>().is_ok());
        for bad in ["", "9105", "localhost", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
        assert!(
            Monitor::start(Listen::Off, Arc::default())
                .unwrap()
                .is_none()
        );
    }
}
