//! Redis over HTTP: commands as data → one HTTP dialect per gateway → replies.
//!
//! [`Command`] says what is wanted. [`webdis`] and [`upstash`] say how that looks on the wire; the answer of the
//! first is read by [`resp`]. [`Failure`] is everything that can go wrong between the two.

mod gateway;
mod purpose;
pub mod resp;
mod script;
pub mod tag;
pub mod upstash;
pub mod webdis;

use crate::labels::labels;
use std::borrow::Cow;
use std::fmt;

pub use gateway::{Dialect, Gateway};
pub use purpose::Purpose;
pub use resp::Reply;
pub use script::Script;
pub use tag::Tag;

/// A Redis command and its arguments. webdis carries any bytes, Upstash only text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    name: &'static str,
    script: Option<&'static Script>,
    arguments: Vec<Vec<u8>>,
}

impl Command {
    /// `GET key`.
    pub fn get(key: &str) -> Self {
        Self::plain("GET", [key])
    }

    /// `EVAL_RO script`: read-only, so that it works on a replica and cannot write by mistake.
    pub fn eval_ro<K: Into<Vec<u8>>, A: Into<Vec<u8>>>(
        script: &'static Script,
        keys: impl IntoIterator<Item = K>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::script("EVAL_RO", script, bytes(keys), bytes(arguments))
    }

    /// `EVAL script`: may write, so it needs the primary.
    pub fn eval<K: Into<Vec<u8>>, A: Into<Vec<u8>>>(
        script: &'static Script,
        keys: impl IntoIterator<Item = K>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::script("EVAL", script, bytes(keys), bytes(arguments))
    }

    /// `ZADD key NX score member`: adds the member unless it is there; one that is there keeps its score.
    /// `score_millis` is in milliseconds since 1970.
    pub fn zadd_nx(key: &str, score_millis: u64, member: &str) -> Self {
        Self::plain("ZADD", [key, "NX", &score_millis.to_string(), member])
    }

    /// `LPUSH key value`.
    pub fn lpush(key: &str, value: &[u8]) -> Self {
        Self::plain("LPUSH", [key.as_bytes(), value])
    }

    fn plain<A: Into<Vec<u8>>>(name: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            name,
            script: None,
            arguments: bytes(arguments),
        }
    }

    fn script(
        name: &'static str,
        script: &'static Script,
        keys: Vec<Vec<u8>>,
        arguments: Vec<Vec<u8>>,
    ) -> Self {
        let mut words = Vec::with_capacity(1 + keys.len() + arguments.len());
        words.push(keys.len().to_string().into_bytes());
        words.extend(keys);
        words.extend(arguments);
        Self {
            name,
            script: Some(script),
            arguments: words,
        }
    }

    /// Whether it is sent with a tag, see [`Tag`].
    pub const fn has_tag(&self) -> bool {
        self.script.is_some()
    }

    /// Its words, as they were meant: without a tag.
    pub fn words(&self) -> Vec<&[u8]> {
        let script = self.script.map(|script| script.text().as_bytes());
        std::iter::once(self.name.as_bytes())
            .chain(script)
            .chain(self.arguments.iter().map(Vec::as_slice))
            .collect()
    }

    /// Its words, as Redis gets them: with this tag, if it is a script.
    pub fn tagged_words<'a>(&'a self, tag: &'a Tag) -> Vec<Cow<'a, [u8]>> {
        let script = self.script.map(|script| script.tagged().into_bytes());
        let tag = self.script.map(|_| tag.as_bytes());
        std::iter::once(self.name.as_bytes().into())
            .chain(script.map(Cow::Owned))
            .chain(self.arguments.iter().map(Into::into))
            .chain(tag.map(Cow::Borrowed))
            .collect()
    }
}

fn bytes<W: Into<Vec<u8>>>(words: impl IntoIterator<Item = W>) -> Vec<Vec<u8>> {
    words.into_iter().map(Into::into).collect()
}

/// An HTTP request to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: &'static str,
    /// Path.
    pub path: &'static str,
    /// Further headers, without credentials: Envoy adds those on the cluster.
    pub headers: &'static [(&'static str, &'static str)],
    /// Body, maybe empty.
    pub body: Vec<u8>,
}

/// Puts a command into a gateway's HTTP dialect; a script gets this tag.
///
/// ```
/// use flag_definitions_filter::redis::{Command, Dialect, Tag, encode};
/// let command = Command::get("a/b");
/// let body = |dialect| encode(dialect, &command, &Tag::new(1)).unwrap().body;
/// assert_eq!(body(Dialect::Webdis), b"GET/a%2Fb.raw");
/// assert_eq!(body(Dialect::Upstash), br#"[["GET","a/b"]]"#);
/// ```
///
/// # Errors
/// [`Failure::NotSent`] when the dialect cannot carry the command as it is.
pub fn encode(dialect: Dialect, command: &Command, tag: &Tag) -> Result<HttpRequest, Failure> {
    match dialect {
        Dialect::Webdis => Ok(webdis::encode(command, tag)),
        Dialect::Upstash => upstash::encode(command, tag),
    }
}

/// Bytes that a string of `length` bytes takes in an answer, without the framing around it.
pub fn wire_size(dialect: Dialect, length: usize) -> usize {
    match dialect {
        Dialect::Webdis => length,
        Dialect::Upstash => length.div_ceil(3).saturating_mul(4),
    }
}

/// Why a command brought no reply. The label of `flag_definitions_callouts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The callout was not started: unknown cluster, circuit breaker, or an argument that the dialect cannot
    /// carry.
    NotSent,
    /// No answer in time.
    Timeout,
    /// The gateway, or Redis behind it, is away.
    Unavailable,
    /// Redis refused the command.
    Refused,
    /// Redis is a read-only replica: the command writes, and no repetition on this connection helps.
    ReadOnly,
    /// The answer is not what this dialect answers.
    Malformed,
    /// The answer is larger than allowed.
    TooBig,
    /// The gateway delivered the answer to another command ([`tag`]).
    Misdirected,
}

labels! {
    Failure {
        NotSent: "not_sent",
        Timeout: "timeout",
        Unavailable: "unavailable",
        Refused: "refused",
        ReadOnly: "readonly",
        Malformed: "malformed",
        TooBig: "too_big",
        Misdirected: "misdirected",
    }
}

impl Failure {
    /// What an error reply of Redis means, without its `-`. Redis before version 7, and what descends from it, puts the
    /// error of a command inside a script behind words of its own.
    ///
    /// ```
    /// use flag_definitions_filter::redis::Failure;
    /// let replica = b"READONLY You can't write against a read only replica.";
    /// assert_eq!(Failure::of_error(replica), Failure::ReadOnly);
    /// assert_eq!(Failure::of_error(b"NOPERM no permissions"), Failure::Refused);
    /// ```
    pub fn of_error(error: &[u8]) -> Self {
        const READONLY: &[u8] = b"READONLY ";
        let in_script = || error.windows(10).any(|part| part == b"-READONLY ");
        if error.starts_with(READONLY) || in_script() {
            Self::ReadOnly
        } else {
            Self::Refused
        }
    }

    /// Whether Redis said no. It will to the same command as long as nobody changes anything.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Refused | Self::ReadOnly)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSent => "Envoy did not send the callout: is the cluster defined, is its circuit breaker open?",
            Self::Timeout => "no answer from the Redis gateway in time",
            Self::Unavailable => "the Redis gateway or Redis is not available",
            Self::Refused => "Redis or its gateway refused the command: check the gateway's Redis user, its key \
                 permissions, and the token that Envoy adds; webdis logs in only when it connects, so restart it after its \
                 login was mended",
            Self::ReadOnly => "Redis takes no writes, it is a replica (READONLY): after a failover restart the \
                 gateway (webdis), whose connections still lead to the former primary; else check that the gateway's \
                 redis_host is the primary",
            Self::Malformed => "the Redis gateway answered something unexpected: is the dialect right?",
            Self::TooBig => "the answer is larger than definitions.max_bytes",
            Self::Misdirected => "the Redis gateway delivered the answer to another command, which was not used; \
                 webdis 0.1.9 does that after a timeout: use a newer one",
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
        // 401: the token; 403: webdis' own command list.
        Some(b"401" | b"403") => return Err(Failure::Refused),
        // 429: the plan's rate limit; 500: serverless-redis-http without its Redis.
        None | Some(b"429" | b"500" | b"502" | b"503") => return Err(Failure::Unavailable),
        Some(b"400") if dialect == Dialect::Upstash => {
            return Err(upstash::parse(body).err().unwrap_or(Failure::Malformed));
        }
        Some(_) => return Err(Failure::Malformed),
    }
    let reply = match dialect {
        Dialect::Webdis => resp::parse(body).map_err(|_| Failure::Malformed)?,
        Dialect::Upstash => upstash::parse(body)?,
    };
    match reply {
        Reply::Error(error) => Err(Failure::of_error(error)),
        reply => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const DIALECTS: [Dialect; 2] = [Dialect::Webdis, Dialect::Upstash];

    #[test]
    fn an_answer_is_a_reply_or_says_why_not_in_both_dialects() {
        let strings = vec![b"full".into(), b"".into(), b"{}".into()];
        for (webdis, upstash, expected) in [
            (
                "$2\r\nhi\r\n",
                r#"[{"result":"aGk="}]"#,
                Ok(Reply::Bytes(b"hi".into())),
            ),
            ("$-1\r\n", r#"[{"result":null}]"#, Ok(Reply::Nil)),
            (":1\r\n", r#"[{"result":1}]"#, Ok(Reply::Integer(1))),
            ("+OK\r\n", r#"[{"result":"OK"}]"#, Ok(Reply::Status(b"OK"))),
            (
                "*3\r\n$4\r\nfull\r\n$0\r\n\r\n$2\r\n{}\r\n",
                r#"[{"result":["ZnVsbA==","","e30="]}]"#,
                Ok(Reply::Array(strings)),
            ),
            (
                "-NOPERM no\r\n",
                r#"[{"error":"NOPERM no"}]"#,
                Err(Failure::Refused),
            ),
            (
                "-READONLY You can't write against a read only replica.\r\n",
                r#"[{"error":"READONLY You can't write against a read only replica."}]"#,
                Err(Failure::ReadOnly),
            ),
            ("<html>", "<html>", Err(Failure::Malformed)),
            ("", "", Err(Failure::Malformed)),
            // The other dialect's answer.
            (
                r#"[{"result":"aGk="}]"#,
                "$2\r\nhi\r\n",
                Err(Failure::Malformed),
            ),
        ] {
            for (dialect, body) in [(Dialect::Webdis, webdis), (Dialect::Upstash, upstash)] {
                let reply = decode(dialect, Some(b"200"), body.as_bytes());
                assert_eq!(reply, expected, "{dialect:?} {body:?}");
            }
        }
    }

    #[test]
    fn statuses_count_whatever_the_body_says() {
        for (status, expected) in [
            (Some("401"), Failure::Refused),
            (Some("403"), Failure::Refused),
            (Some("404"), Failure::Malformed),
            (Some("429"), Failure::Unavailable),
            (Some("500"), Failure::Unavailable),
            (Some("502"), Failure::Unavailable),
            (Some("503"), Failure::Unavailable),
            (Some("504"), Failure::Timeout),
            (None, Failure::Unavailable),
        ] {
            let status = status.map(str::as_bytes);
            for (dialect, body) in [
                (Dialect::Webdis, "$2\r\nhi\r\n"),
                (Dialect::Upstash, r#"[{"result":"aGk="}]"#),
            ] {
                let reply = decode(dialect, status, body.as_bytes());
                assert_eq!(reply, Err(expected), "{dialect:?} {status:?}");
            }
        }
    }

    #[test]
    fn a_400_is_a_refusal_only_in_the_words_of_upstash() {
        let error = br#"{"error":"ERR no"}"#;
        for (dialect, body, expected) in [
            (Dialect::Upstash, &error[..], Failure::Refused),
            (Dialect::Upstash, br#"[{"result":1}]"#, Failure::Malformed),
            (Dialect::Upstash, b"Bad Request", Failure::Malformed),
            (Dialect::Webdis, &error[..], Failure::Malformed),
        ] {
            assert_eq!(decode(dialect, Some(b"400"), body), Err(expected));
        }
    }

    #[test]
    fn a_replica_is_told_from_other_refusals() {
        for (error, expected) in [
            (
                "READONLY You can't write against a read only replica.",
                Failure::ReadOnly,
            ),
            (
                "READONLY You can't write against a read only replica. script: b19c, on @user_script:1.",
                Failure::ReadOnly,
            ),
            (
                "ERR Error running script (call to f_b19c): @user_script:1: @user_script: 1: -READONLY You can't \
                 write against a read only replica.",
                Failure::ReadOnly,
            ),
            ("ERR unknown command 'READONLY'", Failure::Refused),
            ("READONLYX", Failure::Refused),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Failure::Refused,
            ),
            ("MASTERDOWN Link with MASTER is down", Failure::Refused),
            ("", Failure::Refused),
        ] {
            assert_eq!(Failure::of_error(error.as_bytes()), expected, "{error}");
        }
    }

    #[test]
    fn commands_that_write() {
        static SCRIPT: Script = Script::new("return 1");
        let words = |command: Command| {
            let words = command.words().into_iter();
            words
                .map(|word| String::from_utf8(word.to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(Command::zadd_nx("queue", 1_700_000_000_123, "7")),
            ["ZADD", "queue", "NX", "1700000000123", "7"]
        );
        assert_eq!(words(Command::lpush("q", b"{}")), ["LPUSH", "q", "{}"]);
        assert_eq!(
            words(Command::eval(&SCRIPT, ["a"], ["b"])),
            ["EVAL", "return 1", "1", "a", "b"]
        );
    }

    #[test]
    fn both_dialects_carry_text() {
        static SCRIPT: Script = Script::new("return KEYS[1]");
        let command = Command::eval_ro(&SCRIPT, ["a/b.json"], ["é"]);
        for dialect in DIALECTS {
            let request = encode(dialect, &command, &Tag::new(1)).unwrap();
            assert_eq!(request.method, "POST", "{dialect:?}");
            assert!(
                request
                    .headers
                    .iter()
                    .any(|(name, _)| *name == "content-type")
            );
        }
    }

    proptest! {
        #[test]
        fn the_wire_size_of_a_string_is_what_it_takes(string in prop::collection::vec(any::<u8>(), 0..50)) {
            let base64 = STANDARD.encode(&string);
            prop_assert_eq!(wire_size(Dialect::Webdis, string.len()), string.len());
            prop_assert_eq!(wire_size(Dialect::Upstash, string.len()), base64.len());
        }
    }
}
