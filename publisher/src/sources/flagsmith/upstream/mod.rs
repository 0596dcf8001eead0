//! Requests to Flagsmith.
//!
//! A key goes to the origin of `api_url` and nowhere else: redirects are followed, and next pages read, on that origin alone.
//! Times, bytes, pages and redirects have bounds, so one environment never holds what others need.

mod link;
mod problem;

use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION,
};
use reqwest::{Client, Response, Url, redirect};
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::FlagsmithConfig;
use super::document::{self, MAX_PAGE_BYTES, NoDocument, Page, ReadDocument};
use super::list::{self, ListedEnvironment};
use super::moments::{http_date, of_http_date, unix_millis};
use super::secret::FlagsmithKey;
use crate::sources::client::{BodyProblem, body, client};
pub use problem::UpstreamProblem;

/// Most pages of a document.
const MAX_PAGES: usize = 64;

/// Most bytes of all pages as they were sent.
const MAX_SENT_BYTES: usize = 4 * MAX_PAGE_BYTES;

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 4;

/// How often a document is read from its first page, when it changes meanwhile.
const READS: usize = 3;

/// Documents that are taken apart at the same time. It takes memory of many times their length.
const AT_WORK: usize = 2;

/// A date says nothing of what changed within its own second, and two clocks differ: a document that was changed later than
/// this before it was read is read again.
const SETTLED: Duration = Duration::from_secs(2);

const ENVIRONMENT_KEY: HeaderName = HeaderName::from_static("x-environment-key");
const PROXY_KEY: HeaderName = HeaderName::from_static("x-proxy-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What says whether a document is still the one that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

/// How to read a document.
#[derive(Clone, Debug)]
pub struct DocumentRequest {
    /// Of the environment.
    pub server_key: FlagsmithKey,
    /// Whether the environment came from Flagsmith's list: then Flagsmith counts what the proxy reports, and not this request.
    pub is_listed: bool,
    /// Of the document that was read last.
    pub validators: Validators,
}

/// What came of a request for a document.
#[derive(Clone)]
pub enum DocumentAnswer {
    /// It is the one that was read last.
    Unchanged,
    /// It was read.
    Read(Box<ReadDocument>, Validators),
}

/// Requests to one Flagsmith.
pub struct Upstream {
    client: Client,
    base: Url,
    proxy_key: Option<FlagsmithKey>,
    /// For one request.
    timeout: Duration,
    /// For all pages of a document.
    read_timeout: Duration,
    at_work: Semaphore,
}

/// An answer with its body.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Upstream {
    /// Connects to nothing yet. Certificates are believed that one of `roots` signed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &FlagsmithConfig, roots: RootCertStore) -> Result<Self, UpstreamProblem> {
        let client = client(roots, redirect::Policy::none()).ok_or(UpstreamProblem::Fault)?;
        Ok(Self {
            client,
            base: config.api_url.0.clone(),
            proxy_key: config.proxy_key.clone(),
            timeout: config.poll_timeout,
            read_timeout: config.poll_frequency.max(config.poll_timeout),
            at_work: Semaphore::new(AT_WORK),
        })
    }

    /// Reads a document with all its pages.
    ///
    /// # Errors
    /// When it is not answered as it should be.
    pub async fn document(
        &self,
        request: &DocumentRequest,
    ) -> Result<DocumentAnswer, UpstreamProblem> {
        let read = async {
            for _ in 1..READS {
                match self.read(request).await {
                    Err(UpstreamProblem::NoDocument(NoDocument::Mixed)) => (),
                    done => return done,
                }
            }
            self.read(request).await
        };
        let expired = UpstreamProblem::Timeout(self.read_timeout);
        timeout(self.read_timeout, read)
            .await
            .unwrap_or(Err(expired))
    }

    /// Reads the list of environments.
    ///
    /// # Errors
    /// When it is not answered as it should be.
    pub async fn list(&self) -> Result<Vec<ListedEnvironment>, UpstreamProblem> {
        let mut headers = HeaderMap::new();
        if let Some(proxy_key) = &self.proxy_key {
            headers.insert(PROXY_KEY, proxy_key.header());
        }
        let answer = self.get(self.address("proxy/config/")?, headers).await?;
        if answer.status != 200 {
            return Err(UpstreamProblem::Status(answer.status));
        }
        let page = answer.page()?;
        self.work(move || {
            let text = page.text().map_err(UpstreamProblem::NoDocument)?;
            let text = text.ok_or(UpstreamProblem::TooLong)?;
            list::parse(&text).map_err(UpstreamProblem::NoList)
        })
        .await
    }

    /// Reports what was served: a body of `proxy/usage/` under its id.
    ///
    /// # Errors
    /// When it is not answered by a status of success.
    pub async fn report(&self, id: &str, body: Vec<u8>) -> Result<(), UpstreamProblem> {
        let mut request = self.client.post(self.address("proxy/usage/")?);
        if let Some(proxy_key) = &self.proxy_key {
            request = request.header(PROXY_KEY, proxy_key.header());
        }
        let request = request.header(IDEMPOTENCY_KEY, id);
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let expired = UpstreamProblem::Timeout(self.timeout);
        let response = timeout(self.timeout, request.send()).await;
        let response = response.map_err(|_| expired)?;
        match response
            .map_err(|error| UpstreamProblem::of(&error))?
            .status()
            .as_u16()
        {
            200..=299 => Ok(()),
            status => Err(UpstreamProblem::Status(status)),
        }
    }

    async fn read(&self, request: &DocumentRequest) -> Result<DocumentAnswer, UpstreamProblem> {
        let mut keys = HeaderMap::new();
        keys.insert(ENVIRONMENT_KEY, request.server_key.header());
        if let Some(proxy_key) = self.proxy_key.as_ref().filter(|_| request.is_listed) {
            keys.insert(PROXY_KEY, proxy_key.header());
        }
        let mut url = self.address("environment-document/")?;
        let mut headers = keys.clone();
        let is_conditional = request.validators.add_to(&mut headers);
        let answer = self.get(url.clone(), headers).await?;
        if answer.status == 304 && is_conditional {
            return Ok(DocumentAnswer::Unchanged);
        }
        let etag = answer.headers.get(ETAG).cloned();
        let date = answer.headers.get(DATE).cloned();
        let (mut pages, mut sent) = (Vec::new(), 0);
        let mut answer = answer;
        loop {
            if answer.status != 200 {
                return Err(UpstreamProblem::Status(answer.status));
            }
            let next = link::next(&answer.headers);
            let next = next.map(|target| url.join(target)).transpose();
            let next = next.map_err(|_| UpstreamProblem::Address)?;
            sent += answer.body.len();
            pages.push(answer.page()?);
            let Some(next) = next else { break };
            if pages.len() >= MAX_PAGES {
                return Err(UpstreamProblem::Pages);
            }
            if sent > MAX_SENT_BYTES {
                return Err(UpstreamProblem::TooLong);
            }
            url = self.here(next).map_err(UpstreamProblem::NextPage)?;
            answer = self.get(url.clone(), keys.clone()).await?;
        }
        // The entity tag is of the first page alone.
        let etag = etag.filter(|_| pages.len() == 1);
        let read =
            self.work(move || document::assemble(pages).map_err(UpstreamProblem::NoDocument));
        let read = read.await?;
        let validators = Validators {
            etag,
            modified: modified(&read, date.as_ref()),
        };
        Ok(DocumentAnswer::Read(Box::new(read), validators))
    }

    /// Sends a request, again where it is sent to another place of the same origin.
    async fn get(&self, url: Url, headers: HeaderMap) -> Result<Answer, UpstreamProblem> {
        let whole = async {
            let mut url = url;
            for _ in 0..=MAX_REDIRECTS {
                let request = self.client.get(url.clone()).headers(headers.clone());
                let request = request.header(ACCEPT, "application/json");
                let response = request.header(ACCEPT_ENCODING, "gzip").send().await;
                let response = response.map_err(|error| UpstreamProblem::of(&error))?;
                let Some(target) = redirected(&response) else {
                    return Answer::of(response).await;
                };
                let target = target.and_then(|target| url.join(target).ok());
                let target = target.ok_or(UpstreamProblem::Address)?;
                url = self.here(target).map_err(UpstreamProblem::Redirect)?;
            }
            Err(UpstreamProblem::Redirects)
        };
        let expired = UpstreamProblem::Timeout(self.timeout);
        timeout(self.timeout, whole).await.unwrap_or(Err(expired))
    }

    /// An address below `api_url`.
    fn address(&self, path: &str) -> Result<Url, UpstreamProblem> {
        self.base.join(path).map_err(|_| UpstreamProblem::Address)
    }

    /// The address with the user of `api_url`, if it is of the same origin; otherwise its origin.
    fn here(&self, mut url: Url) -> Result<Url, String> {
        let origin = url.origin();
        if origin != self.base.origin() {
            return Err(origin.ascii_serialization());
        }
        let named = url.set_username(self.base.username());
        match named.and_then(|()| url.set_password(self.base.password())) {
            Ok(()) => Ok(url),
            Err(()) => Err(origin.ascii_serialization()),
        }
    }

    /// Does what takes a processor for long beside those who wait.
    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, UpstreamProblem> + Send + 'static,
    ) -> Result<T, UpstreamProblem> {
        let _place = self.at_work.acquire().await;
        let done = tokio::task::spawn_blocking(job).await;
        done.unwrap_or(Err(UpstreamProblem::Fault))
    }
}

impl Answer {
    async fn of(mut response: Response) -> Result<Self, UpstreamProblem> {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        // The body of an error says nothing that is used, and may be long.
        let body = match status {
            200 => body(response, MAX_PAGE_BYTES)
                .await
                .map_err(|problem| match problem {
                    BodyProblem::TooLong => UpstreamProblem::TooLong,
                    BodyProblem::Broken(error) => UpstreamProblem::of(&error),
                })?,
            _ => Vec::new(),
        };
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    fn page(self) -> Result<Page, UpstreamProblem> {
        let coding = self.headers.get(CONTENT_ENCODING);
        let coding = coding.map_or(&b"identity"[..], HeaderValue::as_bytes);
        let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
        let is_gzip = is("gzip") || is("x-gzip");
        if !is_gzip && !is("identity") {
            return Err(UpstreamProblem::Coding);
        }
        Ok(Page {
            body: self.body,
            is_gzip,
        })
    }
}

impl Validators {
    /// Whether there are any.
    fn add_to(&self, headers: &mut HeaderMap) -> bool {
        let pairs = [
            (IF_NONE_MATCH, &self.etag),
            (IF_MODIFIED_SINCE, &self.modified),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        self.etag.is_some() || self.modified.is_some()
    }
}

/// Where the request is sent instead; the inner `None`: it does not say.
fn redirected(response: &Response) -> Option<Option<&str>> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = || response.headers().get(LOCATION)?.to_str().ok();
    is_redirect.then(location)
}

/// What `If-Modified-Since` is to say of a document that was sent at `date`.
fn modified(read: &ReadDocument, date: Option<&HeaderValue>) -> Option<HeaderValue> {
    let updated_at = unix_millis(read.updated_at.as_deref()?)?;
    let sent_at = of_http_date(date?.to_str().ok()?)?;
    let settled = u64::try_from(SETTLED.as_millis()).ok()?;
    if sent_at < updated_at.saturating_add(settled) {
        return None;
    }
    HeaderValue::from_str(&http_date(updated_at)?).ok()
}
