//! `watch`.

pub mod source;
pub mod status;
