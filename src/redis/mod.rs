//! Redis over HTTP: commands as data → one HTTP dialect per gateway → replies.
//!
//! [`Command`] says what is wanted, [`webdis`] how that looks on the wire, [`resp`] reads the answer, and
//! [`Failure`] is everything that can go wrong between the two.

pub mod resp;
pub mod webdis;

use std::fmt;

pub use resp::Reply;

use crate::config::Dialect;

/// A Redis command and its arguments; binary safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(pub Vec<Vec<u8>>);

impl Command {
    /// `GET key`.
    pub fn get(key: &str) -> Self {
        Self(vec![b"GET".to_vec(), key.as_bytes().to_vec()])
    }

    /// `EVAL_RO script`: read-only, so that it works on a replica and cannot write by mistake.
    /// The script must return strings only: webdis leaves nil and nested elements out.
    pub fn eval_ro(script: &str, keys: &[&str], arguments: &[&[u8]]) -> Self {
        let mut parts = vec![
            b"EVAL_RO".to_vec(),
            script.as_bytes().to_vec(),
            keys.len().to_string().into_bytes(),
        ];
        parts.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
        parts.extend(arguments.iter().map(|argument| argument.to_vec()));
        Self(parts)
    }
}

/// An HTTP request to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: &'static str,
    /// Path.
    pub path: String,
    /// Body, maybe empty.
    pub body: Vec<u8>,
}

/// Puts a command into a gateway's HTTP dialect.
pub fn encode(dialect: Dialect, command: &Command) -> HttpRequest {
    match dialect {
        Dialect::Webdis => webdis::encode(command),
    }
}

/// Why a command brought no reply. The label of `flag_definitions_callouts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Envoy would not start the callout: unknown cluster, or circuit breaker.
    NotSent,
    /// No answer in time.
    Timeout,
    /// The gateway, or Redis behind it, is away.
    Unavailable,
    /// Redis refused the command.
    Refused,
    /// The answer is not what this dialect answers.
    Malformed,
    /// The answer is larger than allowed.
    TooBig,
}

impl Failure {
    /// All failures, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::NotSent,
        Self::Timeout,
        Self::Unavailable,
        Self::Refused,
        Self::Malformed,
        Self::TooBig,
    ];

    /// Name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TooBig => "too_big",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSent => "Envoy did not send the callout: is the cluster defined, is its circuit breaker open?",
            Self::Timeout => "no answer from the Redis gateway in time",
            Self::Unavailable => "the Redis gateway or Redis is not available",
            Self::Refused => "Redis refused the command: check the gateway's Redis user and its key permissions",
            Self::Malformed => "the Redis gateway answered something unexpected: is the dialect right?",
            Self::TooBig => "the answer is larger than definitions.max_bytes",
        })
    }
}

impl std::error::Error for Failure {}

/// Reads a gateway's answer. `status` is `None` when Envoy answered without headers.
///
/// # Errors
/// Whatever is not a reply of Redis to a command that it carried out.
pub fn decode<'a>(
    dialect: Dialect,
    status: Option<&[u8]>,
    body: &'a [u8],
) -> Result<Reply<'a>, Failure> {
    match status {
        Some(b"200") => {}
        // Envoy's own answer to a callout that took too long.
        Some(b"504") => return Err(Failure::Timeout),
        // webdis' own command list.
        Some(b"403") => return Err(Failure::Refused),
        None | Some(b"502" | b"503") => return Err(Failure::Unavailable),
        Some(_) => return Err(Failure::Malformed),
    }
    let reply = match dialect {
        Dialect::Webdis => resp::parse(body).map_err(|_| Failure::Malformed)?,
    };
    match reply {
        Reply::Error(_) => Err(Failure::Refused),
        reply => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn an_answer_is_a_reply_or_says_why_not() {
        let decode = |status: &'static str, body: &'static str| {
            decode(Dialect::Webdis, Some(status.as_bytes()), body.as_bytes())
        };
        assert_eq!(decode("200", "$2\r\nhi\r\n"), Ok(Reply::Bytes(b"hi")));
        assert_eq!(decode("200", "$-1\r\n"), Ok(Reply::Nil));
        assert_eq!(decode("200", "-NOPERM no\r\n"), Err(Failure::Refused));
        assert_eq!(decode("200", "<html>"), Err(Failure::Malformed));
        assert_eq!(decode("200", ""), Err(Failure::Malformed));
        assert_eq!(decode("403", "Forbidden"), Err(Failure::Refused));
        assert_eq!(decode("404", ""), Err(Failure::Malformed));
        assert_eq!(decode("503", ""), Err(Failure::Unavailable));
        assert_eq!(decode("504", ""), Err(Failure::Timeout));
        assert_eq!(
            super::decode(Dialect::Webdis, None, b""),
            Err(Failure::Unavailable)
        );
    }
}
