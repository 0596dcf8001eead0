//! The section `usage` of a plugin configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, range};

/// Counting what is billed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Whether it is counted.
    pub enabled: bool,
    /// How often counts are sent to Redis: 100 ms to 1 min.
    #[serde(deserialize_with = "duration")]
    pub flush_interval: Duration,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            enabled: true,
            flush_interval: Duration::from_secs(5),
        }
    }
}

impl Usage {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "usage.flush_interval",
            self.flush_interval,
            Duration::from_millis(100),
            Duration::from_secs(60),
        )
    }
}
