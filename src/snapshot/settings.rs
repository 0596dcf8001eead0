//! The section `snapshot` of a plugin configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, name, number, range};

const DAY: Duration = Duration::from_secs(86_400);

/// The snapshot of records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// Prefix of the snapshot's keys in Redis.
    pub prefix: String,
    /// How often the manifest is read: 100 ms to 1 min.
    #[serde(deserialize_with = "duration")]
    pub poll_interval: Duration,
    /// For how long a confirmed ETag answers 304 without a callout: 0 to 1 min.
    #[serde(deserialize_with = "duration")]
    pub etag_max_age: Duration,
    /// For how long after the last contact with the publisher's data an unknown token or credential may be
    /// refused: at least twice `poll_interval`.
    #[serde(deserialize_with = "duration")]
    pub refuse_max_age: Duration,
    /// For how long the snapshot answers 200 and 304 without such contact: at least `refuse_max_age`.
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    /// Number of shared-data buckets: 1 to 1 048 576. Envoy's map behind shared data doubles at certain numbers of
    /// entries, and visits all of them while every worker waits: more buckets, longer slices of the first load.
    pub buckets: u32,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            prefix: "flag_definitions:".to_owned(),
            poll_interval: Duration::from_secs(1),
            etag_max_age: Duration::from_secs(2),
            refuse_max_age: Duration::from_secs(5),
            max_age: Duration::from_secs(600),
            buckets: 32_768,
        }
    }
}

impl Snapshot {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        name("snapshot.prefix", &self.prefix)?;
        range(
            "snapshot.poll_interval",
            self.poll_interval,
            Duration::from_millis(100),
            Duration::from_secs(60),
        )?;
        range(
            "snapshot.etag_max_age",
            self.etag_max_age,
            Duration::ZERO,
            Duration::from_secs(60),
        )?;
        if self.refuse_max_age < self.poll_interval * 2 || self.refuse_max_age > DAY {
            return Err(ConfigError::new(
                "snapshot.refuse_max_age",
                "must be at least twice snapshot.poll_interval and at most 24h",
            ));
        }
        if self.max_age < self.refuse_max_age || self.max_age > 7 * DAY {
            return Err(ConfigError::new(
                "snapshot.max_age",
                "must be at least snapshot.refuse_max_age and at most 168h",
            ));
        }
        number("snapshot.buckets", self.buckets, 1, 1 << 20)
    }
}
