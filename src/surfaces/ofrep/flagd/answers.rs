//! Bodies of answers.

use super::context::EvaluationContext;
use super::rules::{Fractional, RuleEvaluation};
use super::selection::{Outcome, SelectedFlag, Selection};
use super::selector::{BadSelector, Selector};
use super::value::write_text;

/// An answer: a status and a body of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl FlagAnswer {
    /// A refusal that concerns no flag's definition. That of a request for one flag has the key.
    pub fn refusal(status: u16, key: Option<&str>, code: &str, details: &str) -> Self {
        let mut body = Vec::new();
        match key {
            Some(key) => {
                body.extend_from_slice(b"{\"key\":");
                write_text(key, &mut body);
                body.push(b',');
            }
            None => body.push(b'{'),
        }
        write_error(code, details, &mut body);
        body.extend_from_slice(b",\"metadata\":null}");
        Self { status, body }
    }

    /// The body is no context.
    pub fn invalid_context(key: Option<&str>) -> Self {
        Self::refusal(400, key, "INVALID_CONTEXT", "Provider context is not valid")
    }

    /// The selector is refused.
    pub fn bad_selector(key: Option<&str>, problem: &BadSelector) -> Self {
        Self::refusal(400, key, "GENERAL", &problem.to_string())
    }

    /// The body is too large.
    pub fn too_large() -> Self {
        let body = br#"{"errorDetails":"request body too large"}"#.to_vec();
        Self { status: 413, body }
    }
}

impl Selection {
    /// The answer to a request for all flags. Its status is 200, whatever becomes of each flag.
    pub fn bulk(
        &self,
        selector: &Selector,
        context: &EvaluationContext,
        fractional: Fractional,
        unix_seconds: u64,
    ) -> FlagAnswer {
        let mut evaluation = RuleEvaluation::new(fractional);
        let mut seen = context.seen(unix_seconds);
        let mut body = b"{\"flags\":[".to_vec();
        for (place, flag) in self.flags.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            let outcome = flag.evaluate(&mut evaluation, &mut seen, true);
            write(flag, outcome, &mut body);
        }
        body.extend_from_slice(b"],\"metadata\":");
        selector.write_metadata(&mut body);
        body.push(b'}');
        FlagAnswer { status: 200, body }
    }

    /// The answer to a request for the flag of this key.
    pub fn single(
        &self,
        key: &str,
        selector: &Selector,
        context: &EvaluationContext,
        fractional: Fractional,
        unix_seconds: u64,
    ) -> FlagAnswer {
        let mut body = Vec::new();
        let Some(flag) = self.flag(key) else {
            body.extend_from_slice(b"{\"key\":");
            write_text(key, &mut body);
            body.push(b',');
            let details = format!("flag `{key}` does not exist");
            write_error("FLAG_NOT_FOUND", &details, &mut body);
            body.extend_from_slice(b",\"metadata\":");
            selector.write_metadata(&mut body);
            body.push(b'}');
            return FlagAnswer { status: 404, body };
        };
        let mut evaluation = RuleEvaluation::new(fractional);
        let outcome = flag.evaluate(&mut evaluation, &mut context.seen(unix_seconds), false);
        write(flag, outcome, &mut body);
        let is_error = matches!(outcome, Outcome::ParseError | Outcome::General);
        FlagAnswer {
            status: if is_error { 400 } else { 200 },
            body,
        }
    }
}

fn write_error(code: &str, details: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"errorCode\":\"");
    out.extend_from_slice(code.as_bytes());
    out.extend_from_slice(b"\",\"errorDetails\":");
    write_text(details, out);
}

/// Writes a flag's part of an answer, which is the same whether it stands alone.
fn write(flag: &SelectedFlag, outcome: Outcome<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&flag.head);
    out.push(b',');
    match outcome {
        Outcome::Variant(reason, _) | Outcome::Default(reason) => {
            out.extend_from_slice(b"\"reason\":\"");
            out.extend_from_slice(reason.as_bytes());
            out.push(b'"');
        }
        Outcome::ParseError => {
            let details = format!("error parsing the flag `{}`", flag.key);
            write_error("PARSE_ERROR", &details, out);
        }
        Outcome::General => {
            write_error("GENERAL", "error processing the flag for evaluation", out);
        }
    }
    if let Outcome::Variant(_, variant) = outcome {
        out.extend_from_slice(&variant.text);
    }
    out.extend_from_slice(&flag.tail);
}
