//! The section `definitions` of a plugin configuration.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, name, number, range, short};
use crate::json::optional_object;

/// Largest reply that Envoy buffers for a callout (32 MB), less room for the reply's framing.
const LARGEST_PAYLOAD: u32 = 32_000_000;

/// The same, where the gateway answers in base64.
pub(crate) const LARGEST_BASE64_PAYLOAD: u32 = LARGEST_PAYLOAD / 4 * 3;

/// Sizes of a body cache: an even smaller one holds hardly anything, a larger one no VM.
const BODY_CACHE: RangeInclusive<u32> = (64 << 10)..=(1 << 30);

/// With less hardly any large body would be answered.
const LEAST_LARGE_BYTES: u32 = 1 << 20;

/// The payload and where PostHog keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Definitions {
    /// Django's cache key prefix, with its colon.
    pub key_prefix: String,
    /// Django's cache version.
    pub cache_version: String,
    /// Largest payload that is answered, in bytes of its text: 1 to 32 000 000.
    pub max_bytes: u32,
    /// Most bytes of bodies that each worker keeps: 0 for none, or 64 KiB to 1 GiB.
    pub body_cache_bytes: u32,
    /// Most bytes of bodies of 256 KiB and more that each worker hands to Envoy in a second: 0 for any number, or 1 MiB on.
    pub large_bytes_per_second: u32,
    /// Whether clients that accept it get the gzip form of a body that is kept.
    pub gzip: bool,
    /// For how long a worker remembers that something is absent or could not be read: 0 to 1 min.
    #[serde(deserialize_with = "duration")]
    pub negative_ttl: Duration,
    /// What is asked for a payload that Redis does not have.
    #[serde(deserialize_with = "optional_object")]
    pub object_store: Option<ObjectStore>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            key_prefix: "posthog:".to_owned(),
            cache_version: "1".to_owned(),
            max_bytes: 8 << 20,
            body_cache_bytes: 64 << 20,
            large_bytes_per_second: 512 << 20,
            gzip: true,
            negative_ttl: Duration::from_secs(1),
            object_store: None,
        }
    }
}

impl Definitions {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        number("definitions.max_bytes", self.max_bytes, 1, LARGEST_PAYLOAD)?;
        if self.body_cache_bytes != 0 && !BODY_CACHE.contains(&self.body_cache_bytes) {
            let (min, max) = (BODY_CACHE.start(), BODY_CACHE.end());
            return Err(ConfigError::new(
                "definitions.body_cache_bytes",
                format!(
                    "{} is out of range, use 0 for none, or {min} to {max}",
                    self.body_cache_bytes
                ),
            ));
        }
        if (1..LEAST_LARGE_BYTES).contains(&self.large_bytes_per_second) {
            return Err(ConfigError::new(
                "definitions.large_bytes_per_second",
                format!(
                    "{} is out of range, use 0 for any number, or at least {LEAST_LARGE_BYTES}",
                    self.large_bytes_per_second
                ),
            ));
        }
        short("definitions.key_prefix", &self.key_prefix)?;
        short("definitions.cache_version", &self.cache_version)?;
        range(
            "definitions.negative_ttl",
            self.negative_ttl,
            Duration::ZERO,
            Duration::from_secs(60),
        )?;
        if let Some(store) = &self.object_store {
            name("definitions.object_store.cluster", &store.cluster)?;
            name("definitions.object_store.bucket", &store.bucket)?;
            short("definitions.object_store.prefix", &store.prefix)?;
            range(
                "definitions.object_store.timeout",
                store.timeout,
                Duration::from_millis(1),
                Duration::from_secs(30),
            )?;
        }
        Ok(())
    }

    /// [`Definitions::max_bytes`] as a length.
    pub fn max_text_bytes(&self) -> usize {
        usize::try_from(self.max_bytes).unwrap_or(usize::MAX)
    }

    /// [`Definitions::body_cache_bytes`] as a length.
    pub fn max_kept_bytes(&self) -> usize {
        usize::try_from(self.body_cache_bytes).unwrap_or(usize::MAX)
    }

    /// Whether any answer may be in gzip form: only of what is kept there is one.
    pub const fn compresses(&self) -> bool {
        self.gzip && self.body_cache_bytes > 0
    }
}

/// An S3 bucket behind an Envoy cluster that signs requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectStore {
    /// The cluster.
    pub cluster: String,
    /// The bucket: first segment of the path.
    pub bucket: String,
    /// What stands before PostHog's object names.
    pub prefix: String,
    /// Time for one object: 1 ms to 30 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for ObjectStore {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            bucket: String::new(),
            prefix: String::new(),
            timeout: Duration::from_secs(1),
        }
    }
}
