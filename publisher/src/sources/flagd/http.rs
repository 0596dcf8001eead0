//! Definitions that are read from a URL.

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Response, Url, redirect};
use rustls::RootCertStore;
use tokio::time::timeout;

use super::text::{MAX_TEXT_BYTES, TextKind, TextProblem, as_json};
use crate::sources::client::{BodyProblem, body, client, reason};

/// Longest time for a request with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most redirects of one request. A password goes to no other host.
const MAX_REDIRECTS: usize = 4;

/// A URL whose definitions are read again and again.
pub struct PolledUrl {
    client: Client,
    url: Url,
    /// Of what was read last.
    etag: Option<HeaderValue>,
}

/// Why there are no definitions. The words are for a log: no query, no text of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpProblem {
    /// The answer was not complete in [`TIMEOUT`].
    Timeout,
    /// The request failed, and why.
    Failed(String),
    /// It was answered with this status.
    Status(u16),
    /// What came is no text that can be read.
    Text(TextProblem),
}

impl PolledUrl {
    /// Connects to nothing yet. `None`: TLS cannot be set up.
    pub fn new(url: Url, roots: RootCertStore) -> Option<Self> {
        Some(Self {
            client: client(roots, redirect::Policy::limited(MAX_REDIRECTS))?,
            url,
            etag: None,
        })
    }

    /// Reads the definitions; `None`: they are those that were read last.
    ///
    /// # Errors
    /// When they are not answered as they should be.
    pub async fn read(&mut self) -> Result<Option<String>, HttpProblem> {
        let whole = async {
            let request = self.client.get(self.url.clone());
            let request = request.header(ACCEPT, "application/json, application/yaml, */*;q=0.1");
            let request = match &self.etag {
                Some(etag) => request.header(IF_NONE_MATCH, etag),
                None => request,
            };
            let failed = |error: &reqwest::Error| HttpProblem::Failed(reason(error));
            let response = request.send().await.map_err(|error| failed(&error))?;
            match response.status().as_u16() {
                304 if self.etag.is_some() => return Ok(None),
                200 => {}
                status => return Err(HttpProblem::Status(status)),
            }
            let (etag, kind) = (response.headers().get(ETAG).cloned(), self.kind(&response));
            let bytes = body(response, MAX_TEXT_BYTES).await;
            let bytes = bytes.map_err(|problem| match problem {
                BodyProblem::TooLong => HttpProblem::Text(TextProblem::TooLong),
                BodyProblem::Broken(error) => failed(&error),
            })?;
            Ok(Some((etag, bytes, kind)))
        };
        let read = timeout(TIMEOUT, whole).await;
        let Some((etag, bytes, kind)) = read.map_err(|_| HttpProblem::Timeout)?? else {
            return Ok(None);
        };
        let text = as_json(bytes, kind).map_err(HttpProblem::Text)?;
        self.etag = etag;
        Ok(Some(text))
    }

    fn kind(&self, response: &Response) -> TextKind {
        let media_type = response.headers().get(CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        TextKind::of_answer(media_type, self.url.path())
    }
}

impl fmt::Display for HttpProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => write!(f, "no answer in {TIMEOUT:?}"),
            Self::Failed(reason) => write!(f, "no answer: {reason}"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Text(problem) => write!(f, "what came {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use tokio::runtime;

    /// Answers one request a connection, each with the next answer; returns the heads of the requests.
    fn server(answers: &'static [&'static str]) -> (Url, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<_> = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                seen.lock().unwrap().push(head.join("\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let url = format!("http://u:hunter2@{address}/flags?key=hunter2");
        (Url::parse(&url).unwrap(), heads)
    }

    fn poll(url: &mut PolledUrl) -> Result<Option<String>, HttpProblem> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(url.read())
    }

    #[test]
    fn what_did_not_change_is_not_sent_again_and_a_problem_keeps_its_tag() {
        let (url, heads) = server(&[
            "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"v1\"\r\ncontent-type: application/yaml\r\ncontent-length: 5\r\n\r\na: 1\n",
            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"v2\"\r\ncontent-length: 1\r\n\r\n\u{7f}",
        ]);
        let mut polled = PolledUrl::new(url, RootCertStore::empty()).unwrap();
        assert_eq!(poll(&mut polled), Ok(Some(r#"{"a":1}"#.to_owned())));
        assert_eq!(poll(&mut polled), Ok(None));
        assert_eq!(poll(&mut polled), Err(HttpProblem::Status(503)));
        assert!(poll(&mut polled).is_ok());
        let heads = heads.lock().unwrap();
        let conditional = |head: &String| head.contains("if-none-match: \"v1\"");
        assert_eq!(
            heads.iter().map(conditional).collect::<Vec<_>>(),
            [false, true, true, true]
        );
        assert!(heads[0].contains("authorization: Basic"), "{}", heads[0]);
    }

    #[test]
    fn a_problem_has_no_secret() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = Url::parse(&format!("http://u:hunter2@{address}/?key=hunter2")).unwrap();
        let mut polled = PolledUrl::new(url, RootCertStore::empty()).unwrap();
        let problem = poll(&mut polled).unwrap_err().to_string();
        assert!(
            problem.starts_with("no answer: ") && !problem.contains("hunter2"),
            "{problem}"
        );
    }
}
