//! What a plugin configuration says of requests: `upstream`, `unknown_credential`, `head_requests`, `rate_limit`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::limits::{Limits, Rate};
use crate::tenant::Tenant;

/// What happens to a token or credential that is known nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCredential {
    /// Ask the service behind the filter.
    Forward,
    /// 401, where a complete, fresh snapshot says so.
    Reject,
}

/// What HEAD is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadRequests {
    /// 200 for everybody, as PostHog's service does.
    #[default]
    Posthog,
    /// What GET is answered with, without the body.
    Validate,
}

/// Rate limits, as written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimitDocument {
    enabled: bool,
    full: Rate,
    conditional: Rate,
    overrides: BTreeMap<String, serde_json::Value>,
    allow_teams: BTreeSet<Tenant>,
    log_only: bool,
}

impl Default for RateLimitDocument {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            enabled: limits.enabled,
            full: limits.full,
            conditional: limits.conditional,
            overrides: BTreeMap::new(),
            allow_teams: limits.allowed,
            log_only: limits.log_only,
        }
    }
}

impl RateLimitDocument {
    /// An override that cannot be read is told in `warnings`, and its team keeps the default, as in PostHog's
    /// service.
    pub(crate) fn settle(self, warnings: &mut Vec<String>) -> Limits {
        let mut overrides = BTreeMap::new();
        for (team, rate) in self.overrides {
            let id = team.parse().map(Tenant);
            let parsed = rate.as_str().map(str::parse::<Rate>);
            match (id, parsed) {
                (Ok(id), Some(Ok(rate))) => {
                    overrides.insert(id, rate);
                }
                (Err(_), _) => warnings.push(format!(
                    "rate_limit.overrides: \"{team}\" is not a team id; ignored"
                )),
                (_, Some(Err(problem))) => warnings.push(format!(
                    "rate_limit.overrides.{team}: {problem}; the team keeps the default"
                )),
                (_, None) => warnings.push(format!(
                    "rate_limit.overrides.{team}: must be a text such as \"600/minute\"; the team keeps the default"
                )),
            }
        }
        Limits {
            enabled: self.enabled,
            full: self.full,
            conditional: self.conditional,
            overrides,
            allowed: self.allow_teams,
            log_only: self.log_only,
        }
    }
}
