//! The section `metrics` of a plugin configuration.

use serde::Deserialize;

use crate::json::check::ConfigError;
use crate::tenant::Tenant;

/// Metrics with a team label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// The teams that get one: at most 100.
    pub teams: Vec<Tenant>,
}

impl Metrics {
    pub(super) fn validate(&mut self) -> Result<(), ConfigError> {
        if self.teams.len() > 100 {
            return Err(ConfigError::new(
                "metrics.teams",
                format!("{} teams, use at most 100", self.teams.len()),
            ));
        }
        self.teams.sort_unstable();
        self.teams.dedup();
        Ok(())
    }
}
