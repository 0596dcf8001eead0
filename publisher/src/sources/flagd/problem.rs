//! Why the definitions of a source are not taken.

use std::fmt;

use flag_definitions_filter::surfaces::ofrep::flagd::UnfitDefinitions;
use serde::de::IgnoredAny;

use super::http::HttpProblem;
use super::text::TextProblem;
use crate::sources::polls::PollFailure;

/// Why the definitions of a source are not taken. The words are for a log: no secret, no value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagdProblem {
    /// The file cannot be read, and why.
    File(String),
    /// The URL is not answered as it should be.
    Http(HttpProblem),
    /// What was read is no text.
    Text(TextProblem),
    /// What was read is no JSON object: it is half written, or another page.
    NoObject(UnfitDefinitions),
    /// What was read are no definitions that flagd would take.
    Unfit(UnfitDefinitions),
}

impl FlagdProblem {
    /// Why this text is refused.
    pub fn of_text(text: &str, unfit: UnfitDefinitions) -> Self {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        match is_json && text.trim_start().starts_with('{') {
            true => Self::Unfit(unfit),
            false => Self::NoObject(unfit),
        }
    }

    /// Whether there was a content at all. What could not be read may be readable the next moment.
    pub const fn was_read(&self) -> bool {
        !matches!(self, Self::File(_) | Self::Http(_))
    }

    /// The key of the flag that does not fit.
    pub fn flag(&self) -> Option<&str> {
        match self {
            Self::Unfit(unfit) => unfit.flag(),
            _ => None,
        }
    }

    /// The member that does not fit.
    pub fn member(&self) -> Option<&'static str> {
        match self {
            Self::Unfit(unfit) => Some(unfit.member()).filter(|member| !member.is_empty()),
            _ => None,
        }
    }

    /// As it is counted.
    pub const fn failure(&self) -> PollFailure {
        match self {
            Self::Http(HttpProblem::Timeout) => PollFailure::Timeout,
            Self::Http(HttpProblem::Failed(_)) => PollFailure::Connection,
            Self::Http(HttpProblem::Status(_)) => PollFailure::Status,
            Self::Http(HttpProblem::Text(_))
            | Self::File(_)
            | Self::Text(_)
            | Self::NoObject(_) => PollFailure::Content,
            Self::Unfit(_) => PollFailure::Refused,
        }
    }
}

impl fmt::Display for FlagdProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(problem) => write!(f, "the file cannot be read: {problem}"),
            Self::Http(problem) => problem.fmt(f),
            Self::Text(problem) => write!(f, "the file {problem}"),
            Self::NoObject(unfit) | Self::Unfit(unfit) => unfit.fmt(f),
        }
    }
}
