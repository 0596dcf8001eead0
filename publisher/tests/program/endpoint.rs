//! What clients of `/metrics` and `/healthz` may do, and what they may not take.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::monitor::Watch;
use crate::support::Redis;

/// Longest time of a connection, and some more for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn start() -> (Redis, Watch) {
    let redis = Redis::start();
    let url = redis.url();
    let watch = Watch::start(&redis, &[("REDIS_URL", &url)]);
    watch.get("/healthz");
    (redis, watch)
}

fn connect(watch: &Watch) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", watch.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the connection is closed; `None`: it was not in time.
fn rest(mut stream: TcpStream) -> Option<String> {
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        // It may have been closed before all was read that was sent.
        _ => Some(String::from_utf8_lossy(&reply).into_owned()),
    }
}

fn ask(watch: &Watch, head: &str) -> String {
    let mut stream = connect(watch);
    stream.write_all(head.as_bytes()).unwrap();
    rest(stream).unwrap()
}

/// Resident memory, in KiB.
fn memory(watch: &Watch) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn targets_and_methods() {
    let (_redis, watch) = start();
    for (head, status, text) in [
        (
            "GET http://publisher/healthz HTTP/1.1\r\nHost: publisher",
            200,
            "\"status\"",
        ),
        (
            "GET http://publisher:9105/metrics?x=1 HTTP/1.1\r\nHost: publisher",
            200,
            "_active ",
        ),
        (
            "GET /healthz?verbose HTTP/1.1\r\nHost: x",
            200,
            "application/json",
        ),
        ("GET /healthz HTTP/1.0", 200, "\"status\""),
        ("HEAD /metrics HTTP/1.1\r\nHost: x", 200, "version=0.0.4"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
            405,
            "allow: GET, HEAD",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: x", 405, "use GET"),
        ("CONNECT x:443 HTTP/1.1\r\nHost: x", 405, "use GET"),
        ("GET / HTTP/1.1\r\nHost: x", 404, "/metrics and /healthz"),
        (
            "GET http://publisher/ HTTP/1.1\r\nHost: publisher",
            404,
            "/metrics and /healthz",
        ),
        (
            "GET /metrics/ HTTP/1.1\r\nHost: x",
            404,
            "/metrics and /healthz",
        ),
        ("nonsense", 400, ""),
    ] {
        let reply = ask(&watch, &format!("{head}\r\n\r\n"));
        let start = [format!("HTTP/1.1 {status} "), format!("HTTP/1.0 {status} ")];
        assert!(
            start.iter().any(|start| reply.starts_with(start)),
            "{head}: {reply}"
        );
        assert!(reply.contains(text), "{head}: {reply}");
        assert_eq!(
            reply.ends_with("\r\n\r\n"),
            head.starts_with("HEAD") || status == 400,
            "{reply}"
        );
    }
}

#[test]
fn a_request_of_any_length_takes_a_bounded_memory() {
    let (_redis, watch) = start();
    let long = "a".repeat(10_000);
    let fields = "a: b\r\n".repeat(150);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
    ] {
        let reply = ask(&watch, &head);
        // Closed with bytes unread, it may not arrive.
        assert!(
            reply.starts_with("HTTP/1.1 431 ") || reply.is_empty(),
            "{reply}"
        );
    }
    // All of it is read here: it does.
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    assert!(ask(&watch, &head).starts_with("HTTP/1.1 431 "));

    let before = memory(&watch);
    let chunk = vec![b'a'; 1_000_000];
    let streams = [
        "GET /healthz HTTP/1.1\r\nX-Filler: ",
        "GET /",
        "POST /healthz HTTP/1.1\r\nContent-Length: 64000000\r\n\r\n",
    ]
    .map(|start| {
        let mut stream = connect(&watch);
        stream.write_all(start.as_bytes()).unwrap();
        let taken = (0..64)
            .take_while(|_| stream.write_all(&chunk).is_ok())
            .count();
        // What the sockets of both ends hold, at most.
        assert!(taken < 64, "all of it was taken: {start}");
        stream
    });
    let grown = memory(&watch).saturating_sub(before);
    assert!(grown < 8 * 1_024, "{grown} KiB more");
    drop(streams);
    assert!(watch.get("/healthz").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn slow_clients_are_cut_and_keep_nobody_out() {
    let (_redis, watch) = start();
    let began = Instant::now();
    // More than there may be at once: the first have to go at once.
    let mut slow: Vec<TcpStream> = (0..100).map(|_| connect(&watch)).collect();
    for stream in &mut slow {
        // The oldest may be closed already.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ");
    }
    for path in ["/healthz", "/metrics"] {
        assert!(watch.get(path).0.starts_with("HTTP/1.1 200"));
    }
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "they waited for slow ones"
    );
    // One byte a second is no progress.
    let mut dripping = slow.pop().unwrap();
    while dripping.write_all(b"x").is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is never cut");
        std::thread::sleep(Duration::from_millis(500));
    }
    for stream in slow {
        assert_eq!(rest(stream).as_deref(), Some(""));
    }
    assert!(watch.get("/healthz").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn it_ends_although_a_client_stays() {
    let (_redis, watch) = start();
    let idle = connect(&watch);
    let began = Instant::now();
    watch.end();
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(rest(idle).as_deref(), Some(""));
}
