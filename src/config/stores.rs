//! Which Redis holds what. PostHog runs a shared and a dedicated one.

use std::time::Duration;

use serde::Deserialize;

use super::check::{ConfigError, duration, name, optional_duration, range};

/// HTTP face of the gateway in front of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// webdis: one command a request.
    #[default]
    Webdis,
    /// Upstash REST, as serverless-redis-http speaks it, too.
    Upstash,
}

/// One Redis, as reached over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Envoy cluster of the gateway.
    pub cluster: String,
    /// The gateway's HTTP face.
    pub dialect: Dialect,
    /// Time for one callout: 1 ms to 30 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            cluster: "flag_definitions_redis".to_owned(),
            dialect: Dialect::default(),
            timeout: Duration::from_millis(250),
        }
    }
}

/// What differs from `redis.default`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Override {
    cluster: Option<String>,
    dialect: Option<Dialect>,
    #[serde(deserialize_with = "optional_duration")]
    timeout: Option<Duration>,
}

impl Override {
    fn over(&self, default: &Redis) -> Redis {
        Redis {
            cluster: self.cluster.as_ref().unwrap_or(&default.cluster).clone(),
            dialect: self.dialect.unwrap_or(default.dialect),
            timeout: self.timeout.unwrap_or(default.timeout),
        }
    }
}

/// The section as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    default: Redis,
    definitions: Override,
    identity: Override,
    usage: Override,
    quota: Override,
    snapshot: Override,
}

/// The Redis of each purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stores {
    /// Payloads, ETags, quota ends and the rebuild queue: these always share one.
    pub definitions: Redis,
    /// Team metadata and checked credentials.
    pub identity: Redis,
    /// Usage counters.
    pub usage: Redis,
    /// The quota set.
    pub quota: Redis,
    /// The snapshot.
    pub snapshot: Redis,
}

impl Stores {
    pub(super) fn has_cluster(&self, name: &str) -> bool {
        let Self {
            definitions,
            identity,
            usage,
            quota,
            snapshot,
        } = self;
        [definitions, identity, usage, quota, snapshot]
            .iter()
            .any(|redis| redis.cluster == name)
    }
}

impl From<&Document> for Stores {
    fn from(document: &Document) -> Self {
        let default = &document.default;
        Self {
            definitions: document.definitions.over(default),
            identity: document.identity.over(default),
            usage: document.usage.over(default),
            quota: document.quota.over(default),
            snapshot: document.snapshot.over(default),
        }
    }
}

impl Document {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check("default", &self.default)?;
        for (store, over) in [
            ("definitions", &self.definitions),
            ("identity", &self.identity),
            ("usage", &self.usage),
            ("quota", &self.quota),
            ("snapshot", &self.snapshot),
        ] {
            check(store, &over.over(&self.default))?;
        }
        Ok(())
    }
}

fn check(store: &str, redis: &Redis) -> Result<(), ConfigError> {
    name(&format!("redis.{store}.cluster"), &redis.cluster)?;
    range(
        &format!("redis.{store}.timeout"),
        redis.timeout,
        Duration::from_millis(1),
        Duration::from_secs(30),
    )
}
