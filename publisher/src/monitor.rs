//! `/metrics` and `/healthz` of `watch`.
//!
//! Plain HTTP for a scraper and a liveness probe; it shows figures, never a token or a hash.

mod exposition;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::error::Error;
use crate::watch::status::{Figures, Status};

/// An active watcher whose loop did not come round for this long is stuck. That a database or Redis is away is no
/// reason: starting it again would not help.
pub const MAX_LOOP_AGE: Duration = Duration::from_secs(30);

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

/// Answers until it is dropped.
pub struct Monitor {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Begins to answer. `None`: nobody wants it to.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(listen: Listen, status: Arc<Status>) -> Result<Option<Self>, Error> {
        let Listen::At(address) = listen else {
            return Ok(None);
        };
        let failed = |problem: String| Error::Listen(address, problem);
        let server = Server::http(address).map_err(|error| failed(error.to_string()))?;
        let server = Arc::new(server);
        let answering = Arc::clone(&server);
        let thread = std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || serve(&answering, &status))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Some(Self {
            server,
            thread: Some(thread),
        }))
    }

    /// Where it listens: with port 0 the one that was free.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.server_addr().to_ip()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked answers no more, which is all that is wanted.
            let _ = thread.join();
        }
    }
}

fn serve(server: &Server, status: &Status) {
    let mut watcher = Watcher::default();
    // An error means that it is to end.
    while let Ok(request) = server.recv() {
        let answer = answer(&request, status, &mut watcher);
        // The client may be gone.
        let _ = request.respond(answer);
    }
}

fn answer(
    request: &Request,
    status: &Status,
    watcher: &mut Watcher,
) -> Response<std::io::Cursor<Vec<u8>>> {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return text(405, "use GET\n");
    }
    let now = Instant::now();
    match request.url().split('?').next() {
        Some("/metrics") => {
            let body = exposition::text(&status.figures(), now);
            content(200, body, "text/plain; version=0.0.4; charset=utf-8")
        }
        Some("/healthz") => {
            let health = watcher.health(&status.figures(), now);
            // It has no part that JSON cannot say.
            let body = serde_json::to_string(&health).unwrap_or_default();
            content(health.status.code(), body, "application/json")
        }
        _ => text(404, "there are /metrics and /healthz\n"),
    }
}

fn text(code: u16, body: &str) -> Response<std::io::Cursor<Vec<u8>>> {
    content(code, body.to_owned(), "text/plain; charset=utf-8")
}

fn content(code: u16, body: String, kind: &str) -> Response<std::io::Cursor<Vec<u8>>> {
    let response = Response::from_string(body).with_status_code(code);
    match Header::from_bytes("content-type", kind) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}

/// What the probe has to remember.
#[derive(Debug, Default)]
struct Watcher {
    /// When it was first seen active since it was last seen waiting.
    active_since: Option<Instant>,
}

/// The body of `/healthz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Health {
    status: Condition,
    generation: u64,
    lineage: u64,
    last_id: Option<String>,
    watermark_age_ms: Option<u64>,
    last_read_age_ms: Option<u64>,
    listening: bool,
    held_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Condition {
    /// It holds the lock, and its loop turns.
    Active,
    /// Another instance holds the lock, or Redis is away.
    Waiting,
    /// It holds the lock, and its loop is stuck.
    Stalled,
}

impl Condition {
    const fn code(self) -> u16 {
        match self {
            Self::Active | Self::Waiting => 200,
            Self::Stalled => 503,
        }
    }
}

impl Watcher {
    fn health(&mut self, figures: &Figures, now: Instant) -> Health {
        let age = |at: Instant| now.saturating_duration_since(at);
        let millis = |at: Option<Instant>| {
            at.map(|at| u64::try_from(age(at).as_millis()).unwrap_or(u64::MAX))
        };
        let status = if figures.active {
            // What it did before it lost the lock says nothing of how it does now.
            let since = *self.active_since.get_or_insert(now);
            let last = figures.turned.map_or(since, |at| at.max(since));
            if age(last) < MAX_LOOP_AGE {
                Condition::Active
            } else {
                Condition::Stalled
            }
        } else {
            self.active_since = None;
            Condition::Waiting
        };
        Health {
            status,
            generation: figures.generation,
            lineage: figures.lineage,
            last_id: figures.last_id.map(|id| id.to_string()),
            watermark_age_ms: millis(figures.watermark),
            last_read_age_ms: millis(figures.last_read),
            listening: figures.listening,
            held_back: figures.held_back,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn an_active_watcher_is_healthy_while_its_loop_turns() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let figures = |active, turned: Option<u64>| Figures {
            active,
            turned: turned.map(at),
            ..Figures::default()
        };
        let mut watcher = Watcher::default();
        for (now, active, turned, expected) in [
            (0, false, None, Condition::Waiting),
            (100, false, None, Condition::Waiting),
            (101, true, None, Condition::Active),
            (130, true, None, Condition::Active),
            (131, true, None, Condition::Stalled),
            (132, true, Some(131), Condition::Active),
            (160, true, Some(131), Condition::Active),
            (161, true, Some(131), Condition::Stalled),
            (170, false, Some(131), Condition::Waiting),
            // Active again: what it did long ago is no reason.
            (200, true, Some(131), Condition::Active),
            (230, true, Some(131), Condition::Stalled),
        ] {
            let health = watcher.health(&figures(active, turned), at(now));
            assert_eq!(health.status, expected, "{now}");
        }
    }

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
        let status = Arc::new(Status::default());
        status.update(|figures| figures.generation = 7);
        let listen = "127.0.0.1:0".parse().unwrap();
        let monitor = Monitor::start(listen, status).unwrap().unwrap();
        let address = monitor.address().unwrap();
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
