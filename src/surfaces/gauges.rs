//! What a surface says of its knowledge, for the gauges.

use std::time::Duration;

/// Ages of what is known, for the gauges. `None`: there is none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// Since Redis last said that the snapshot is the current one.
    pub snapshot: Option<Duration>,
    /// Of the newest watermark.
    pub watermark: Option<Duration>,
}

/// What a worker keeps of a surface's documents, for the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The surface, as labels name it.
    pub surface: &'static str,
    /// How many are kept.
    pub kept: usize,
    /// How long ago the source of each of them had been read. `None`: that is not known yet.
    pub age: Option<Duration>,
}
