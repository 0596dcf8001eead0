//! One callout: a Redis command out, its reply in.

use std::time::Duration;

use super::abi::{self, Status};
use super::clusters;
use super::random;
use crate::metrics::{Metric, Purpose};
use crate::redis::{self, Command, Failure, Reply, Tag};
use crate::surfaces::posthog::definitions::object;

/// A callout under way.
#[derive(Clone, Debug)]
pub struct Callout {
    /// What its answer is delivered with.
    pub token: u32,
    tag: Option<Tag>,
}

impl Callout {
    /// One whose answer needs no tag.
    pub fn untagged(token: u32) -> Self {
        Self { token, tag: None }
    }
}

/// Sends a command. The callout belongs to the current context.
pub fn send(redis: &redis::Gateway, command: &Command) -> Result<Callout, Failure> {
    let tag = Tag::new(random::number());
    let request = redis::encode(redis.dialect, command, &tag)?;
    let mut headers = vec![
        (":method", request.method),
        (":path", request.path),
        (":authority", redis.cluster.as_str()),
    ];
    headers.extend_from_slice(request.headers);
    let token = start(&redis.cluster, &headers, &request.body, redis.timeout)?;
    Ok(Callout {
        token,
        tag: command.has_tag().then_some(tag),
    })
}

/// Asks an object store for an object. The callout belongs to the current context.
pub fn get_object(cluster: &str, path: &str, timeout: Duration) -> Result<Callout, Failure> {
    let headers = [
        (":method", "GET"),
        (":path", path),
        // The cluster's signing filter puts the store's own name here.
        (":authority", cluster),
    ];
    let token = start(cluster, &headers, &[], timeout)?;
    Ok(Callout::untagged(token))
}

fn start(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<u32, Failure> {
    match abi::http_call(cluster, headers, body, timeout) {
        Ok(token) => {
            clusters::found_known(cluster);
            Ok(token)
        }
        Err(status) => {
            if status == Status::BAD_ARGUMENT {
                clusters::found_unknown(cluster);
            }
            Err(Failure::NotSent)
        }
    }
}

/// The content coding of the answer that is being delivered.
pub struct Coding(Result<Option<Vec<u8>>, Failure>);

/// Reads it.
pub fn receive_coding() -> Coding {
    Coding(abi::callout_header("content-encoding").map_err(|_| Failure::Unavailable))
}

/// The answer to a callout, as it came.
pub struct Received(Result<(Option<Vec<u8>>, Vec<u8>), Failure>);

/// Reads the answer that is being delivered. One that is larger than `most` bytes is not copied.
pub fn receive(body_size: usize, most: usize) -> Received {
    Received(read(body_size, most))
}

fn read(body_size: usize, most: usize) -> Result<(Option<Vec<u8>>, Vec<u8>), Failure> {
    let status = abi::callout_header(":status").map_err(|_| Failure::Unavailable)?;
    if body_size > most {
        return Err(Failure::TooBig);
    }
    let body = abi::callout_body(body_size).map_err(|_| Failure::Malformed)?;
    Ok((status, body))
}

impl Received {
    /// Status and body.
    fn http(&self) -> Result<(Option<&[u8]>, &[u8]), Failure> {
        match &self.0 {
            Ok((status, body)) => Ok((status.as_deref(), body)),
            Err(failure) => Err(*failure),
        }
    }

    /// What an object store answered.
    pub fn object<'a>(&'a self, coding: &'a Coding) -> Result<object::ObjectAnswer<'a>, Failure> {
        let (status, body) = self.http()?;
        let coding = coding.0.as_ref().map_err(|failure| *failure)?;
        Ok(object::ObjectAnswer {
            status,
            coding: coding.as_deref(),
            body,
        })
    }

    /// What Redis replied to the command of this callout.
    pub fn reply(&self, redis: &redis::Gateway, callout: &Callout) -> Result<Reply<'_>, Failure> {
        let (status, body) = self.http()?;
        let reply = redis::decode(redis.dialect, status, body)?;
        match &callout.tag {
            Some(tag) => tag.take_off(reply),
            None => Ok(reply),
        }
    }
}

/// What a reply counts as.
pub fn metric<T>(purpose: Purpose, reply: &Result<T, Failure>) -> Metric {
    let outcome = reply.as_ref().map(drop).map_err(|failure| *failure);
    Metric::Callout(purpose, outcome)
}
