//! The section `quota` of a plugin configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, range};

/// PostHog's quota set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Whether it is read and enforced.
    pub enabled: bool,
    /// How often it is read: 1 s to 10 min.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Whether a team's ETag changes with the end of its quota period.
    pub free_latch: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            free_latch: true,
        }
    }
}

impl Quota {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "quota.interval",
            self.interval,
            Duration::from_secs(1),
            Duration::from_secs(600),
        )
    }
}
