//! PostHog's second tier: payloads as plain JSON in an S3 bucket, under the name of their cache key.
//!
//! Whoever fills the bucket may store them in gzip form, with `content-encoding: gzip` as metadata, which S3 answers
//! with. The ETag is that of the text, whatever the form.

use std::borrow::Cow;
use std::rc::Rc;

use super::encoding::{self, DecodeError, Malformed};
use super::flags::is_billable;
use super::latch::QuotaPeriod;
use super::outcome::{Absent, Outcome, Payload};
use crate::redis::Failure;
use crate::surfaces::ObjectAnswer;
use crate::surfaces::posthog::definitions::settings::ObjectStore;
use crate::tenant::Tenant;

/// A team's object, asked for when Redis has no payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Whose definitions.
    pub team: Tenant,
    /// What the ETag ends with after a quota period, or whether there must be none ([`super::latch`]).
    pub period: QuotaPeriod,
}

/// The body without its coding (RFC 9110 §8.4). `identity`, and a field without a coding, which S3 gives back as it
/// got it, say that there is none.
fn text<'a>(answer: &ObjectAnswer<'a>, max_bytes: usize) -> Result<Cow<'a, [u8]>, DecodeError> {
    let codings = answer.coding.unwrap_or_default();
    let mut codings = codings
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Ok(Cow::Borrowed(answer.body)),
        (Some(coding), None)
            if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
        {
            encoding::gunzip(answer.body, max_bytes).map(Cow::Owned)
        }
        _ => Err(Malformed::Coding.into()),
    }
}

/// What an unusable answer of the object store counts as.
fn failure_of(status: Option<&[u8]>) -> Failure {
    match status {
        Some(b"504") => Failure::Timeout,
        None | Some(b"500" | b"502" | b"503") => Failure::Unavailable,
        Some(b"401" | b"403") => Failure::Refused,
        Some(_) => Failure::Malformed,
    }
}

impl Object {
    /// Its path in the bucket's URL, percent-encoded: `/<bucket>/<prefix>cache/teams/…`.
    pub fn path(&self, store: &ObjectStore) -> String {
        let name = format!(
            "/{}/{}cache/teams/{}/feature_flags/flags_with_cohorts.json",
            store.bucket, store.prefix, self.team
        );
        let mut path = String::with_capacity(name.len());
        for byte in name.bytes() {
            // S3 signs paths with all but these encoded.
            if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        path
    }

    /// What the store's answer says, with at most `max_bytes` bytes of text. An object has no ETag of its own that PostHog's
    /// clients know, so it is computed. A store that refuses or fails says nothing about whether the object is there.
    pub fn outcome(&self, answer: Result<ObjectAnswer<'_>, Failure>, max_bytes: usize) -> Outcome {
        match answer {
            Ok(answer) if answer.status == Some(b"200") => text(&answer, max_bytes)
                .map_err(Absent::from)
                .and_then(|text| {
                    let suffix = self.period.suffix();
                    Payload::read(None, suffix, &text, max_bytes, is_billable)
                })
                .map_or_else(Outcome::Absent, |payload| {
                    Outcome::current(Rc::new(payload), self.period.pending())
                }),
            Ok(answer) if answer.status == Some(b"404") => Outcome::Absent(Absent::Missing),
            Err(Failure::TooBig) => Outcome::Absent(Absent::TooBig),
            Ok(_) | Err(_) => Outcome::Absent(Absent::ObjectStore),
        }
    }
}

/// What the callout counts as that brought this.
pub fn counts_as(
    answer: &Result<ObjectAnswer<'_>, Failure>,
    outcome: &Outcome,
) -> Result<(), Failure> {
    match (answer, outcome) {
        (Err(failure), _) => Err(*failure),
        (Ok(answer), Outcome::Absent(Absent::ObjectStore)) => Err(failure_of(answer.status)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ETag;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn object() -> Object {
        Object {
            team: Tenant(7),
            period: QuotaPeriod::None,
        }
    }

    #[test]
    fn the_path_names_bucket_prefix_and_posthogs_object() {
        let store = ObjectStore {
            cluster: "s3".to_owned(),
            bucket: "flags".to_owned(),
            prefix: "a b/".to_owned(),
            ..ObjectStore::default()
        };
        assert_eq!(
            object().path(&store),
            "/flags/a%20b/cache/teams/7/feature_flags/flags_with_cohorts.json"
        );
    }

    #[test]
    fn only_a_404_says_that_there_is_no_payload() {
        let answer = |status: &'static str, body: &'static str| {
            let answer = ObjectAnswer {
                status: (!status.is_empty()).then_some(status.as_bytes()),
                coding: None,
                body: body.as_bytes(),
            };
            object().outcome(Ok(answer), 100)
        };
        let Outcome::Payload(full) = answer("200", r#"{"flags":[]}"#) else {
            panic!("not a payload");
        };
        assert_eq!(full.etag, ETag::of_text(br#"{"flags":[]}"#));
        assert!(!full.etag_stored);
        assert_eq!(answer("404", "x"), Outcome::Absent(Absent::Missing));
        for status in ["403", "500", "503", "301", ""] {
            let outcome = answer(status, "{}");
            assert_eq!(outcome, Outcome::Absent(Absent::ObjectStore), "{status}");
        }
        let timeout = object().outcome(Err(Failure::Timeout), 100);
        assert_eq!(timeout, Outcome::Absent(Absent::ObjectStore));
    }

    #[test]
    fn a_content_coding_is_taken_off_or_refused() {
        // From Python's `gzip.compress(b'{"flags":[]}', mtime=0)`.
        let digits = "1f8b0800000000000203ab564acb494c2f56b28a8ead05004df56a2c0c000000";
        let gzip: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let text = &br#"{"flags":[]}"#[..];
        let outcome = |coding: Option<&[u8]>, body: &[u8], max_bytes| {
            let status = Some(&b"200"[..]);
            let answer = ObjectAnswer {
                status,
                coding,
                body,
            };
            match object().outcome(Ok(answer), max_bytes) {
                Outcome::Payload(full) => Ok((full.etag.clone(), full.text.to_vec())),
                Outcome::Absent(absent) => Err(absent),
                other => panic!("{other:?}"),
            }
        };
        let whole = Ok((ETag::of_text(text), text.to_vec()));
        for (coding, body) in [
            ("gzip", &gzip[..]),
            ("GZip", &gzip),
            ("x-gzip", &gzip),
            (" identity , gzip ", &gzip),
            ("", text),
            ("identity", text),
        ] {
            assert_eq!(
                outcome(Some(coding.as_bytes()), body, 12),
                whole,
                "{coding}"
            );
        }
        assert_eq!(outcome(None, text, 12), whole);
        let malformed = |what| Err(Absent::Undecodable(DecodeError::Malformed(what)));
        for (coding, body, what) in [
            ("gzip", text, Malformed::Gzip),
            ("gzip", &gzip[..gzip.len() - 1], Malformed::Gzip),
            ("gzip", b"", Malformed::Gzip),
            ("br", text, Malformed::Coding),
            ("gzip, gzip", &gzip, Malformed::Coding),
            ("gzipped", &gzip, Malformed::Coding),
            ("\u{0}", text, Malformed::Coding),
            // Undeclared, it is what it is.
            ("", &gzip, Malformed::NotJson),
        ] {
            assert_eq!(outcome(Some(coding.as_bytes()), body, 100), malformed(what));
        }
        assert_eq!(outcome(Some(b"gzip"), &gzip, 11), Err(Absent::TooBig));
    }
}
