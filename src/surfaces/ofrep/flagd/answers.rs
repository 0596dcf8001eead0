//! Bodies of answers.

use super::context::{EvaluationContext, Seen};
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
        let mut answer = PartialAnswer::new(context, fractional, unix_seconds);
        let body = answer.step(self, selector, usize::MAX).unwrap_or_default();
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

/// What a step of a rule costs, in bytes of an answer: both take about as long.
const STEP_COSTS: usize = 16;

/// The body of an answer with all flags, which is evaluated in slices.
pub struct PartialAnswer {
    evaluation: RuleEvaluation,
    seen: Seen,
    place: usize,
    body: Vec<u8>,
}

impl PartialAnswer {
    /// Nothing is evaluated yet.
    pub fn new(context: &EvaluationContext, fractional: Fractional, unix_seconds: u64) -> Self {
        Self {
            evaluation: RuleEvaluation::new(fractional),
            seen: context.seen(unix_seconds),
            place: 0,
            body: b"{\"flags\":[".to_vec(),
        }
    }

    /// Evaluates further flags of the selection, as many as take about so many bytes of the answer. `None`: there are more.
    pub fn step(
        &mut self,
        selection: &Selection,
        selector: &Selector,
        budget: usize,
    ) -> Option<Vec<u8>> {
        let (length, before) = (self.body.len(), self.evaluation.taken());
        for flag in selection.flags.get(self.place..).unwrap_or_default() {
            let steps = self.evaluation.taken().saturating_sub(before);
            let taken = self.body.len().saturating_sub(length);
            if taken.saturating_add(steps.saturating_mul(STEP_COSTS)) >= budget {
                return None;
            }
            if self.place > 0 {
                self.body.push(b',');
            }
            let outcome = flag.evaluate(&mut self.evaluation, &mut self.seen, true);
            write(flag, outcome, &mut self.body);
            self.place += 1;
        }
        let mut body = std::mem::take(&mut self.body);
        body.extend_from_slice(b"],\"metadata\":");
        selector.write_metadata(&mut body);
        body.push(b'}');
        Some(body)
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
