//! What this surface counts. The names are in [`crate::metrics`].

use super::answers::OfrepAnswer;
use crate::surfaces::evaluated::counts::Evaluation;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfrepCount {
    /// An answer was sent.
    Answer(OfrepAnswer),
    /// Flags were asked for.
    Evaluation(Evaluation),
}
