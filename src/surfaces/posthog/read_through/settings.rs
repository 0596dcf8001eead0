//! The section `read_through` of a plugin configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, range};
use crate::limits::{Period, Rate};

/// Reading PostHog's own cache of teams and credentials.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadThrough {
    /// Whether it is read at all.
    pub enabled: bool,
    /// For how long what was found is used: 1 s to 1 h.
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
    /// Most look-ups of credentials of one team, by each worker.
    pub lookups_per_team: Rate,
    /// Most look-ups by each worker.
    pub lookups_per_worker: Rate,
}

impl Default for ReadThrough {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl: Duration::from_secs(60),
            lookups_per_team: Rate::per(20, Period::Second),
            lookups_per_worker: Rate::per(200, Period::Second),
        }
    }
}

impl ReadThrough {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "read_through.ttl",
            self.ttl,
            Duration::from_secs(1),
            Duration::from_secs(3_600),
        )
    }
}
