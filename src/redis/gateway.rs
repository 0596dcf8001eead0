//! The gateway in front of a Redis: where it is, and which HTTP it speaks.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, name, range};

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
pub struct Gateway {
    /// Envoy cluster of the gateway.
    pub cluster: String,
    /// The gateway's HTTP face.
    pub dialect: Dialect,
    /// Time for one callout: 1 ms to 30 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            cluster: "flag_definitions_redis".to_owned(),
            dialect: Dialect::default(),
            timeout: Duration::from_millis(250),
        }
    }
}

impl Gateway {
    /// Checks the section `redis.<store>`.
    pub(crate) fn validate(&self, store: &str) -> Result<(), ConfigError> {
        name(&format!("redis.{store}.cluster"), &self.cluster)?;
        range(
            &format!("redis.{store}.timeout"),
            self.timeout,
            Duration::from_millis(1),
            Duration::from_secs(30),
        )
    }
}
