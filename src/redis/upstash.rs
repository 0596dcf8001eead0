//! Upstash REST: `POST /pipeline` with a JSON list of one command, and a JSON list of one answer.
//!
//! With `upstash-encoding: base64` every string of a result is base64 (RFC 4648 §4), so replies are binary
//! safe. Upstash leaves the status `OK` as it is, serverless-redis-http encodes that too; both are read, because
//! `OK` is no base64. Arguments are JSON strings, so they have to be text.
//!
//! The gateway wants a bearer token. Envoy adds it on the cluster, and this filter never sees it.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::resp::MAX_ELEMENTS;
use super::{Command, Failure, HttpRequest, Reply, Tag};

/// A status that Upstash does not encode.
const OK: &str = "OK";

/// Puts a command into the words of Upstash.
///
/// # Errors
/// [`Failure::NotSent`] when an argument is not UTF-8: JSON cannot carry it, and a changed argument would be
/// another command.
pub fn encode(command: &Command, tag: &Tag) -> Result<HttpRequest, Failure> {
    let words = command.tagged_words(tag);
    let words: Vec<&str> = words
        .iter()
        .map(|word| std::str::from_utf8(word))
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::NotSent)?;
    let body = serde_json::to_vec(&[words]).map_err(|_| Failure::NotSent)?;
    Ok(HttpRequest {
        method: "POST",
        path: "/pipeline",
        headers: &[
            ("content-type", "application/json"),
            ("upstash-encoding", "base64"),
        ],
        body,
    })
}

/// Reads the answer to one command.
///
/// # Errors
/// [`Failure::of_error`] when it says that the command failed, [`Failure::Malformed`] when it is no such answer.
pub fn parse(body: &[u8]) -> Result<Reply<'static>, Failure> {
    if let Ok((answer,)) = serde_json::from_slice::<(Answer,)>(body) {
        return answer.0;
    }
    // The whole request failed, not a command in it.
    match serde_json::from_slice(body) {
        Ok(Answer(Err(failure))) => Err(failure),
        Ok(Answer(Ok(_))) | Err(_) => Err(Failure::Malformed),
    }
}

/// `{"result": …}` or `{"error": "…"}`.
struct Answer(Result<Reply<'static>, Failure>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Result,
    Error,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnswerVisitor)
    }
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a result or an error")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer, A::Error> {
        let mut answer = Err(Failure::Malformed);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Result if !matches!(answer, Err(failure) if failure.is_refusal()) => {
                    answer = Ok(map.next_value::<Value>()?.0);
                }
                Field::Error => {
                    // Some gateways send both fields, and the one that does not apply is null.
                    if let Some(error) = map.next_value::<Option<Cow<'de, str>>>()? {
                        answer = Err(Failure::of_error(error.as_bytes()));
                    }
                }
                Field::Result | Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Answer(answer))
    }
}

/// A result.
struct Value(Reply<'static>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, an integer, a base64 string or a list of such strings")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value(Reply::Nil))
    }

    fn visit_i64<E: de::Error>(self, integer: i64) -> Result<Value, E> {
        Ok(Value(Reply::Integer(integer)))
    }

    fn visit_u64<E: de::Error>(self, integer: u64) -> Result<Value, E> {
        let integer = i64::try_from(integer).map_err(E::custom)?;
        Ok(Value(Reply::Integer(integer)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value(match text {
            OK => Reply::Status(OK.as_bytes()),
            text => Reply::Bytes(string(text)?),
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Element(element)) = list.next_element()? {
            if elements.len() >= MAX_ELEMENTS {
                return Err(de::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(Value(Reply::Array(elements)))
    }
}

/// A string in a list.
struct Element(Cow<'static, [u8]>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ElementVisitor)
    }
}

struct ElementVisitor;

impl Visitor<'_> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        string(text).map(Element)
    }
}

fn string<E: de::Error>(text: &str) -> Result<Cow<'static, [u8]>, E> {
    if text == OK {
        return Ok(Cow::Borrowed(OK.as_bytes()));
    }
    STANDARD.decode(text).map(Cow::Owned).map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use super::super::Script;
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_request_is_a_pipeline_of_one_command() {
        let command = Command::lpush("a \"b\"", "é\n".as_bytes());
        let request = encode(&command, &Tag::new(1)).unwrap();
        assert_eq!((request.method, request.path), ("POST", "/pipeline"));
        assert_eq!(
            String::from_utf8(request.body).unwrap(),
            r#"[["LPUSH","a \"b\"","é\n"]]"#
        );
        assert!(request.headers.contains(&("upstash-encoding", "base64")));
        // serverless-redis-http refuses any other, even with a charset.
        assert!(
            request
                .headers
                .contains(&("content-type", "application/json"))
        );
    }

    #[test]
    fn what_is_no_text_is_not_sent() {
        let command = Command::lpush("a", b"\xff");
        assert_eq!(encode(&command, &Tag::new(1)), Err(Failure::NotSent));
    }

    #[test]
    fn each_kind_of_result() {
        for (text, reply) in [
            (r#"[{"result":null}]"#, Reply::Nil),
            (r#"[{"result":""}]"#, Reply::Bytes(b"".into())),
            (r#"[{"result":"YQ0KYg=="}]"#, Reply::Bytes(b"a\r\nb".into())),
            // A gateway may escape the slash of base64.
            (r#"[{"result":"\/w=="}]"#, Reply::Bytes(b"\xff".into())),
            (r#"[{"result":"OK"}]"#, Reply::Status(b"OK")),
            (r#"[{"result":"T0s="}]"#, Reply::Bytes(b"OK".into())),
            (r#"[{"result":-3}]"#, Reply::Integer(-3)),
            (r#"[{"result":[]}]"#, Reply::Array(vec![])),
            (
                r#" [ { "more": {}, "result" : [ "" , "eA==", "OK" ], "error": null } ] "#,
                Reply::Array(vec![b"".into(), b"x".into(), b"OK".into()]),
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(reply), "{text}");
        }
    }

    #[test]
    fn errors_are_refusals_and_anything_else_is_malformed() {
        for text in [
            r#"[{"error":"ERR no"}]"#,
            r#"{"error":"ERR failed to parse pipeline request"}"#,
            r#"[{"result":null,"error":"ERR no"}]"#,
            r#"[{"error":"ERR no","result":"T0s="}]"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Failure::Refused), "{text}");
        }
        for text in [
            "",
            "[]",
            "{}",
            "[{}]",
            "<html>",
            r#"{"result":"eA=="}"#,
            r#"[["eA=="]]"#,
            r#"[{"result":"eA=="},{"result":"eA=="}]"#,
            r#"[{"result":"eA=="}] x"#,
            r#"[{"result":"eA"}]"#,
            r#"[{"result":"{plain}"}]"#,
            r#"[{"result":1.5}]"#,
            r#"[{"result":true}]"#,
            r#"[{"result":{}}]"#,
            r#"[{"result":9223372036854775808}]"#,
            r#"[{"result":[null]}]"#,
            r#"[{"result":[1]}]"#,
            r#"[{"result":[["eA=="]]}]"#,
            r#"[{"error":null}]"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Failure::Malformed), "{text}");
        }
    }

    #[test]
    fn arrays_have_a_bound() {
        let of = |count: usize| format!(r#"[{{"result":["eA=="{}]}}]"#, r#","""#.repeat(count - 1));
        let reply = parse(of(MAX_ELEMENTS).as_bytes()).unwrap();
        assert_eq!(reply.strings().map(|all| all.len()), Some(MAX_ELEMENTS));
        assert_eq!(
            parse(of(MAX_ELEMENTS + 1).as_bytes()),
            Err(Failure::Malformed)
        );
    }

    proptest! {
        #[test]
        fn arrays_of_arbitrary_strings_survive(
            elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5)
        ) {
            let encoded: Vec<String> = elements.iter().map(|bytes| STANDARD.encode(bytes)).collect();
            let text = serde_json::json!([{ "result": encoded }]).to_string();
            let expected = elements.into_iter().map(Cow::Owned).collect();
            prop_assert_eq!(parse(text.as_bytes()), Ok(Reply::Array(expected)));
        }

        #[test]
        fn text_arguments_arrive_as_they_are(words in prop::collection::vec(any::<String>(), 0..5)) {
            static SCRIPT: Script = Script::new("return {\"a\"}");
            let command = Command::eval(&SCRIPT, words.iter().map(String::as_str), [] as [&str; 0]);
            let body = encode(&command, &Tag::new(1)).unwrap().body;
            let [sent] = serde_json::from_slice::<[Vec<String>; 1]>(&body).unwrap();
            prop_assert_eq!(&sent[0], "EVAL");
            prop_assert!(sent[1].contains(SCRIPT.text()));
            prop_assert_eq!(&sent[2], &words.len().to_string());
            prop_assert_eq!(&sent[3..3 + words.len()], &words);
            prop_assert_eq!(&sent[3 + words.len()..], ["0000000000000001"]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn broken_answers_never_panic(
            text in r#"\[?\{"(result|error|x)":(null|-?[0-9]{1,20}|"[A-Za-z=/]{0,6}"|\[("[A-Z=]{0,4}",?){0,3}\]?)\}?\]?"#
        ) {
            let _ = parse(text.as_bytes());
        }
    }
}
