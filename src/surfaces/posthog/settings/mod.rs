//! What a plugin configuration says of this surface: its sections, read by their rooms, checked and put together.

mod requests;
mod stores;

#[cfg(test)]
use serde::Deserialize;

use crate::json::ConfigError;
use crate::limits::Limits;
use crate::redis::Dialect;
use crate::shared::Scope;
use crate::snapshot::settings::Snapshot;
use crate::surfaces::Upstream;
use crate::surfaces::posthog::definitions::settings::{Definitions, LARGEST_BASE64_PAYLOAD};
use crate::surfaces::posthog::quota::settings::Quota;
use crate::surfaces::posthog::read_through::settings::ReadThrough;
use crate::surfaces::posthog::rebuild::settings::{Rebuild, RebuildDocument};
use crate::usage::settings::Usage;

pub(crate) use requests::RateLimitDocument;
pub use requests::{HeadRequests, UnknownCredential};
pub use stores::Stores;
pub(crate) use stores::StoresDocument;

/// The scopes of shared data that one plugin configuration works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Of everything but usage.
    pub data: Scope,
    /// Of counts: they outlive every change of settings but that of their own Redis.
    pub usage: Scope,
}

/// The surface's sections, as written.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Deserialize), serde(default, deny_unknown_fields))]
pub(crate) struct Sections {
    pub redis: StoresDocument,
    pub snapshot: Snapshot,
    pub definitions: Definitions,
    pub read_through: ReadThrough,
    pub upstream: Upstream,
    pub unknown_credential: Option<UnknownCredential>,
    pub rate_limit: RateLimitDocument,
    pub quota: Quota,
    pub usage: Usage,
    pub rebuild: RebuildDocument,
    pub head_requests: HeadRequests,
    pub enabled: bool,
}

/// The surface's settings, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct PostHogSettings {
    /// Which Redis holds what.
    pub redis: Stores,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The payload.
    pub definitions: Definitions,
    /// PostHog's own cache of teams and credentials.
    pub read_through: ReadThrough,
    /// Where undecided requests go.
    pub upstream: Upstream,
    /// Where unknown tokens and credentials go.
    pub unknown_credential: UnknownCredential,
    /// How often a team may ask.
    pub rate_limit: Limits,
    /// Who may not ask any more.
    pub quota: Quota,
    /// Counting what is billed.
    pub usage: Usage,
    /// How PostHog is told that a payload is missing.
    pub rebuild: Rebuild,
    /// What HEAD is answered with.
    pub head_requests: HeadRequests,
    /// Whether its routes are answered.
    pub enabled: bool,
}

impl Default for PostHogSettings {
    fn default() -> Self {
        Sections {
            enabled: true,
            ..Sections::default()
        }
        .settled(Rebuild::default(), &mut Vec::new())
    }
}

impl Sections {
    /// Checks what depends on other fields. `warnings` gets what is wrong without being refused.
    ///
    /// # Errors
    /// Names the field by its path.
    pub(crate) fn settle(
        mut self,
        warnings: &mut Vec<String>,
    ) -> Result<PostHogSettings, ConfigError> {
        if self.unknown_credential == Some(UnknownCredential::Forward)
            && self.upstream == Upstream::None
        {
            return Err(ConfigError::new(
                "unknown_credential",
                "\"forward\" needs an upstream: set \"upstream\" to \"forward\"",
            ));
        }
        self.snapshot.validate()?;
        self.definitions.validate()?;
        self.read_through.validate()?;
        self.quota.validate()?;
        self.usage.validate()?;
        self.redis.validate()?;
        let payloads = Stores::from(&self.redis).definitions;
        if payloads.dialect == Dialect::Upstash
            && self.definitions.max_bytes > LARGEST_BASE64_PAYLOAD
        {
            return Err(ConfigError::new(
                "definitions.max_bytes",
                format!(
                    "{} is out of range with the dialect upstash, use at most {}",
                    self.definitions.max_bytes, LARGEST_BASE64_PAYLOAD
                ),
            ));
        }
        let rebuild = std::mem::take(&mut self.rebuild).settle()?;
        Ok(self.settled(rebuild, warnings))
    }

    fn settled(self, rebuild: Rebuild, warnings: &mut Vec<String>) -> PostHogSettings {
        PostHogSettings {
            redis: Stores::from(&self.redis),
            snapshot: self.snapshot,
            definitions: self.definitions,
            read_through: self.read_through,
            upstream: self.upstream,
            unknown_credential: self.unknown_credential.unwrap_or(match self.upstream {
                Upstream::Forward => UnknownCredential::Forward,
                Upstream::None => UnknownCredential::Reject,
            }),
            rate_limit: self.rate_limit.settle(warnings),
            quota: self.quota,
            usage: self.usage,
            rebuild,
            head_requests: self.head_requests,
            enabled: self.enabled,
        }
    }
}

impl PostHogSettings {
    /// Whether callouts go to this cluster.
    pub fn has_cluster(&self, name: &str) -> bool {
        self.clusters().iter().any(|cluster| cluster == name)
    }

    /// The clusters that callouts go to.
    pub fn clusters(&self) -> Vec<String> {
        let store = self.definitions.object_store.as_ref();
        let mut clusters = self.redis.clusters();
        clusters.extend(store.map(|store| store.cluster.clone()));
        clusters
    }
}
