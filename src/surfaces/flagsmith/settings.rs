//! The section `flagsmith` of a plugin configuration.

use serde::Deserialize;

use crate::json::check::{ConfigError, number};
use crate::limits::Rate;
use crate::surfaces::Upstream;

/// Flagsmith's surface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlagsmithSettings {
    /// Whether its routes are answered.
    pub enabled: bool,
    /// Where undecided requests go.
    pub upstream: Upstream,
    /// Most bytes of documents that one worker keeps, compiled rules and texts in gzip form.
    pub documents_bytes: u32,
    /// How often an environment may be asked, on one worker. `None`: as often as it likes.
    pub rate_limit: Option<Rate>,
    /// Longest text of a document, in bytes: 1 KiB to 16 MiB.
    pub max_document_bytes: u32,
    /// Whether disabled flags are left out for client-side keys where the project says so.
    pub hide_disabled_flags: bool,
    /// Most bytes of answers that one worker keeps.
    pub answers_bytes: u32,
}

impl Default for FlagsmithSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            upstream: Upstream::default(),
            documents_bytes: 64 << 20,
            rate_limit: None,
            max_document_bytes: 4 << 20,
            hide_disabled_flags: false,
            answers_bytes: 16 << 20,
        }
    }
}

impl FlagsmithSettings {
    /// Checks ranges.
    ///
    /// # Errors
    /// Names the field by its path.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        number(
            "flagsmith.max_document_bytes",
            self.max_document_bytes,
            1 << 10,
            16 << 20,
        )?;
        number(
            "flagsmith.documents_bytes",
            self.documents_bytes,
            0,
            1 << 30,
        )?;
        number("flagsmith.answers_bytes", self.answers_bytes, 0, 1 << 30)
    }
}
