//! What this surface counts. The names are in [`crate::metrics`].

use super::answers::FlagsmithAnswer;
use crate::surfaces::evaluated::counts::Evaluation;
use crate::usage::State;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagsmithCount {
    /// An answer was sent.
    Answer(FlagsmithAnswer),
    /// Flags were asked for.
    Evaluation(Evaluation),
    /// Requests that are reported came that far.
    Usage(State),
}

impl From<State> for FlagsmithCount {
    fn from(state: State) -> Self {
        Self::Usage(state)
    }
}
