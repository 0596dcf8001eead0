//! What this surface counts. The names are in [`crate::metrics`].

use super::answers::FlagsmithAnswer;
use crate::labels::labels;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagsmithCount {
    /// An answer was sent.
    Answer(FlagsmithAnswer),
    /// Flags were asked for.
    Evaluation(Evaluation),
}

/// How flags were come by.
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
