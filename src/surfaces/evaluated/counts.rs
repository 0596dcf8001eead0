//! How flags were come by.

use crate::labels::labels;

/// How flags were come by. The labels of `flag_definitions_evaluations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Rules were evaluated.
    Evaluated,
    /// The answer to an equal question was kept.
    Kept,
    /// The client holds the answer.
    NotModified,
}

labels! {
    Evaluation {
        Evaluated: "evaluated",
        Kept: "kept",
        NotModified: "not_modified",
    }
}
