//! Which Redis holds what. PostHog runs a shared and a dedicated one.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, optional_duration};
use crate::json::object;
use crate::redis::{Dialect, Gateway};

/// The least that a callout for definitions gets where its timeout is not given. Its reply may be `max_bytes` long, and 8 MB
/// took 0.63 s where all cores were busy (`make bench-timeouts`).
const DEFINITIONS_TIMEOUT: Duration = Duration::from_millis(750);

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
    /// The Redis of definitions: what is not given is the default's, but a timeout of [`DEFINITIONS_TIMEOUT`] at least.
    fn of_definitions(&self, default: &Gateway) -> Gateway {
        let inherited = default.timeout.max(DEFINITIONS_TIMEOUT);
        Gateway {
            timeout: self.timeout.unwrap_or(inherited),
            ..self.over(default)
        }
    }

    fn over(&self, default: &Gateway) -> Gateway {
        Gateway {
            cluster: self.cluster.as_ref().unwrap_or(&default.cluster).clone(),
            dialect: self.dialect.unwrap_or(default.dialect),
            timeout: self.timeout.unwrap_or(default.timeout),
        }
    }
}

/// The section as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoresDocument {
    #[serde(deserialize_with = "object")]
    default: Gateway,
    #[serde(deserialize_with = "object")]
    definitions: Override,
    #[serde(deserialize_with = "object")]
    identity: Override,
    #[serde(deserialize_with = "object")]
    usage: Override,
    #[serde(deserialize_with = "object")]
    quota: Override,
    #[serde(deserialize_with = "object")]
    snapshot: Override,
}

/// The Redis of each purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stores {
    /// Payloads, ETags, quota ends and the rebuild queue: these always share one.
    pub definitions: Gateway,
    /// Team metadata and checked credentials.
    pub identity: Gateway,
    /// Usage counters.
    pub usage: Gateway,
    /// The quota set.
    pub quota: Gateway,
    /// The snapshot.
    pub snapshot: Gateway,
}

impl Stores {
    pub(super) fn clusters(&self) -> Vec<String> {
        let Self {
            definitions,
            identity,
            usage,
            quota,
            snapshot,
        } = self;
        [definitions, identity, usage, quota, snapshot]
            .map(|redis| redis.cluster.clone())
            .to_vec()
    }
}

impl From<&StoresDocument> for Stores {
    fn from(document: &StoresDocument) -> Self {
        let default = &document.default;
        Self {
            definitions: document.definitions.of_definitions(default),
            identity: document.identity.over(default),
            usage: document.usage.over(default),
            quota: document.quota.over(default),
            snapshot: document.snapshot.over(default),
        }
    }
}

impl StoresDocument {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.default.validate("default")?;
        for (store, over) in [
            ("definitions", &self.definitions),
            ("identity", &self.identity),
            ("usage", &self.usage),
            ("quota", &self.quota),
            ("snapshot", &self.snapshot),
        ] {
            over.over(&self.default).validate(store)?;
        }
        Ok(())
    }
}
