//! Why a document was refused.

use std::fmt;

/// A document that does not fit. It says where, and never quotes a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    path: String,
    problem: String,
}

impl Unfit {
    pub(super) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }

    /// Where, such as `project.segments[3].rules[0].type`; empty for the document itself. Holds names of members that
    /// documents have, and indices.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What does not fit there.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "the document {}", self.problem),
            path => write!(f, "{path} {}", self.problem),
        }
    }
}

impl std::error::Error for Unfit {}

/// The words of an error of serde about a value's shape, without the value.
pub(super) fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    // These name a member that the code names, never one of the input.
    if text.starts_with("missing field `") || text.starts_with("duplicate field `") {
        return text.to_owned();
    }
    // What is expected is the code's own words and comes last; what was found quotes the input.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("does not fit, expected {expected}"),
        None => "does not fit".to_owned(),
    }
}
