//! One callout: a Redis command or a question to an object store out, its reply in.

use std::time::Duration;

use super::clusters;
use super::host::{CallId, CallRefused, CallRequest, Host};
use crate::redis::{self, Dialect, Failure, Tag};
use crate::surfaces::{ObjectAnswer, Question, Received};

/// What the reply to a callout is.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A reply of a Redis, in its gateway's dialect, with this tag.
    Redis(Dialect, Option<Tag>),
    /// An answer of an object store.
    Object,
}

/// A callout under way.
#[derive(Clone, Debug)]
pub struct Call {
    /// The host's number.
    pub id: CallId,
    /// What its reply is.
    pub expected: Expected,
}

/// Sends a question.
///
/// # Errors
/// When it cannot be encoded, or the host does not take it.
pub fn send(
    host: &mut impl Host,
    question: &Question<'_>,
    timeout: Duration,
) -> Result<Call, Failure> {
    match question {
        Question::Redis(gateway, command) => {
            let tag = Tag::new(host.random());
            let request = redis::encode(gateway.dialect, command, &tag)?;
            let mut headers = vec![
                (":method", request.method),
                (":path", request.path),
                (":authority", gateway.cluster.as_str()),
            ];
            headers.extend_from_slice(request.headers);
            let id = start(host, &gateway.cluster, &headers, &request.body, timeout)?;
            let tag = command.has_tag().then_some(tag);
            Ok(Call {
                id,
                expected: Expected::Redis(gateway.dialect, tag),
            })
        }
        Question::Own => Err(Failure::NotSent),
        Question::Object(cluster, path) => {
            let headers = [
                (":method", "GET"),
                (":path", path),
                // The cluster's signing filter puts the store's own name here.
                (":authority", cluster),
            ];
            Ok(Call {
                id: start(host, cluster, &headers, &[], timeout)?,
                expected: Expected::Object,
            })
        }
    }
}

fn start(
    host: &mut impl Host,
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<CallId, Failure> {
    let call = CallRequest {
        cluster,
        headers,
        body,
        timeout,
    };
    match host.call(&call) {
        Ok(id) => {
            clusters::found_known(cluster);
            Ok(id)
        }
        Err(refused) => {
            if refused == CallRefused::UnknownCluster {
                clusters::found_unknown(cluster);
            }
            Err(Failure::NotSent)
        }
    }
}

/// The reply to a callout, as it came.
pub struct RawReply(Result<Parts, Failure>);

struct Parts {
    status: Option<Vec<u8>>,
    coding: Option<Vec<u8>>,
    body: Vec<u8>,
}

impl RawReply {
    /// Reads the reply that is being delivered. One whose body is larger than `largest` bytes is not copied.
    pub fn read(host: &impl Host, expected: &Expected, body_size: usize, largest: usize) -> Self {
        Self(read(host, expected, body_size, largest))
    }

    /// What it says.
    pub fn received<'a>(&'a self, expected: &Expected) -> Received<'a> {
        let parts = self.0.as_ref().map_err(|failure| *failure);
        match expected {
            Expected::Redis(dialect, tag) => Received::Redis(parts.and_then(|parts| {
                let status = parts.status.as_deref();
                let reply = redis::decode(*dialect, status, &parts.body)?;
                match tag {
                    Some(tag) => tag.take_off(reply),
                    None => Ok(reply),
                }
            })),
            Expected::Object => Received::Object(parts.map(|parts| ObjectAnswer {
                status: parts.status.as_deref(),
                coding: parts.coding.as_deref(),
                body: &parts.body,
            })),
        }
    }
}

fn read(
    host: &impl Host,
    expected: &Expected,
    body_size: usize,
    largest: usize,
) -> Result<Parts, Failure> {
    let header = |name| host.reply_header(name).map_err(|_| Failure::Unavailable);
    let status = header(":status")?;
    if body_size > largest {
        return Err(Failure::TooBig);
    }
    let body = host.reply_body(body_size).map_err(|_| Failure::Malformed)?;
    let coding = match expected {
        Expected::Redis(..) => None,
        Expected::Object => header("content-encoding")?,
    };
    Ok(Parts {
        status,
        coding,
        body,
    })
}
