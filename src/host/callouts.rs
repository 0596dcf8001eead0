//! One callout: a Redis command out, its reply in.

use super::abi;
use crate::config;
use crate::metrics::{Metric, Purpose};
use crate::redis::{self, Command, Failure, Reply};

/// Sends a command; its reply carries the returned token. The callout belongs to the current context.
pub fn send(redis: &config::Redis, command: &Command) -> Result<u32, Failure> {
    let request = redis::encode(redis.dialect, command);
    let headers = [
        (":method", request.method),
        (":path", request.path.as_str()),
        (":authority", redis.cluster.as_str()),
        ("content-type", "text/plain"),
    ];
    abi::http_call(&redis.cluster, &headers, &request.body, redis.timeout)
        .map_err(|_| Failure::NotSent)
}

/// The gateway's answer, as it came.
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
    /// What Redis replied.
    pub fn reply(&self, redis: &config::Redis) -> Result<Reply<'_>, Failure> {
        match &self.0 {
            Ok((status, body)) => redis::decode(redis.dialect, status.as_deref(), body),
            Err(failure) => Err(*failure),
        }
    }
}

/// What a reply counts as.
pub fn metric(purpose: Purpose, reply: &Result<Reply<'_>, Failure>) -> Metric {
    let outcome = reply.as_ref().map(drop).map_err(|failure| *failure);
    Metric::Callout(purpose, outcome)
}
