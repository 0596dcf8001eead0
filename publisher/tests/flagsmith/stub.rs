//! A Flagsmith of one test: each request is answered as the test says, and noted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Empty but for a report.
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The server-side key.
    pub fn key(&self) -> &str {
        self.header("x-environment-key").unwrap_or_default()
    }

    pub fn is_of_list(&self) -> bool {
        self.target == "/api/v1/proxy/config/"
    }

    pub fn is_report(&self) -> bool {
        self.target == "/api/v1/proxy/usage/"
    }
}

/// What it is answered with.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Whole,
    /// The body ends in its middle, and with it the connection.
    Cut,
    /// Nothing comes.
    Silence,
    /// Each byte of the body takes this long.
    Drip(Duration),
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: vec![(
                "Date".to_owned(),
                httpdate::fmt_http_date(SystemTime::now()),
            )],
            body: Vec::new(),
            ending: Ending::Whole,
        }
    }

    pub fn json(value: &Value) -> Self {
        Self::text(&value.to_string())
    }

    pub fn text(text: &str) -> Self {
        Self::bytes(text.as_bytes().to_owned())
    }

    pub fn bytes(body: Vec<u8>) -> Self {
        Self {
            body,
            ..Self::status(200)
        }
    }

    pub fn silence() -> Self {
        Self {
            ending: Ending::Silence,
            ..Self::status(200)
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn next(self, target: &str) -> Self {
        self.with("Link", &format!("<{target}>; rel=\"next\""))
    }

    pub fn gzip(mut self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.body).unwrap();
        self.body = encoder.finish().unwrap();
        self.with("Content-Encoding", "gzip")
    }

    pub fn cut(mut self) -> Self {
        self.ending = Ending::Cut;
        self
    }

    pub fn dripping(mut self, pause: Duration) -> Self {
        self.ending = Ending::Drip(pause);
        self
    }
}

type Answering = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server.
#[derive(Clone)]
pub struct Flagsmith {
    pub address: SocketAddr,
    answering: Arc<Mutex<Arc<Answering>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Flagsmith {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer)
    }

    /// Behind TLS, if there is a configuration for it.
    pub fn start_with(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answering: Arc::new(Mutex::new(Arc::new(answer))),
            requests: Arc::default(),
        };
        let serving = server.clone();
        spawn(move || {
            for stream in listener.incoming() {
                let (serving, tls) = (serving.clone(), tls.clone());
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                spawn(move || match tls {
                    None => serving.serve(stream),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serving.serve(StreamOwned::new(connection, stream))
                    }
                });
            }
        });
        server
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.answering.lock().unwrap() = Arc::new(answer);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    fn serve(&self, stream: impl Read + Write) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let request = read(&mut reader)?;
            self.requests.lock().unwrap().push(request.clone());
            let answering = Arc::clone(&self.answering.lock().unwrap());
            let reply = answering(&request);
            send(reader.get_mut(), &reply)?;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => {
                let before = headers.insert(name.to_lowercase(), value.to_owned());
                assert_eq!(before, None, "{name} twice");
            }
            None => break,
        }
    }
    let length: &str = headers.get("content-length").map_or("0", String::as_str);
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    let request = Request {
        target,
        headers,
        body,
    };
    assert_eq!(method, if request.is_report() { "POST" } else { "GET" });
    Some(request)
}

/// `None`: the connection ends.
fn send(stream: &mut impl Write, reply: &Reply) -> Option<()> {
    if reply.ending == Ending::Silence {
        sleep(Duration::from_secs(120));
        return None;
    }
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if reply.status != 304 {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    match reply.ending {
        Ending::Cut => {
            stream.write_all(&reply.body[..reply.body.len() / 2]).ok()?;
            return None;
        }
        Ending::Drip(pause) => {
            for byte in &reply.body {
                stream.write_all(&[*byte]).ok()?;
                sleep(pause);
            }
        }
        _ => stream.write_all(&reply.body).ok()?,
    }
    Some(())
}

/// A moment as Flagsmith writes it.
pub fn rfc3339(moment: SystemTime) -> String {
    let date = httpdate::fmt_http_date(moment);
    let words: Vec<_> = date.split([' ', ',']).collect();
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec"
        .find(words[3])
        .unwrap()
        / 3
        + 1;
    let millis = moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .subsec_millis();
    format!(
        "{}-{month:02}-{}T{}.{millis:03}Z",
        words[4], words[2], words[5]
    )
}

/// A document of this name.
pub fn document(name: &str) -> Value {
    let mut document: Value = serde_json::from_str(include_str!("document.json")).unwrap();
    document["name"] = name.into();
    document
}

/// Waits until something is there, ten seconds at most.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}
