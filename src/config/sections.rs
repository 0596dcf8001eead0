//! The sections of a plugin configuration, each with its defaults and ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::json::check::{ConfigError, duration, name, number, range, short};
use crate::limits::{Limits, Period, Rate};
use crate::signal::{Celery, Signal};
use crate::tenant::Tenant;

/// Largest reply that Envoy buffers for a callout (32 MB), less room for the reply's framing.
const LARGEST_PAYLOAD: u32 = 32_000_000;

/// The same, where the gateway answers in base64.
pub(super) const LARGEST_BASE64_PAYLOAD: u32 = LARGEST_PAYLOAD / 4 * 3;

/// Sizes of a body cache: an even smaller one holds hardly anything, a larger one no VM.
const BODY_CACHE: RangeInclusive<u32> = (64 << 10)..=(1 << 30);

/// With less hardly any large body would be answered.
const LEAST_LARGE_BYTES: u32 = 1 << 20;

const DAY: Duration = Duration::from_secs(86_400);

/// The snapshot of teams and credentials.
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
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
    pub fn most(&self) -> usize {
        usize::try_from(self.max_bytes).unwrap_or(usize::MAX)
    }

    /// [`Definitions::body_cache_bytes`] as a length.
    pub fn most_kept(&self) -> usize {
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
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "read_through.ttl",
            self.ttl,
            Duration::from_secs(1),
            Duration::from_secs(3_600),
        )
    }
}

/// PostHog's quota set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Whether it is read and enforced.
    pub enabled: bool,
    /// How often it is read: 1 s to 10 min.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Whether a team's ETag changes with the end of its quota period.
    pub free_latch: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            free_latch: true,
        }
    }
}

impl Quota {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "quota.interval",
            self.interval,
            Duration::from_secs(1),
            Duration::from_secs(600),
        )
    }
}

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
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        range(
            "usage.flush_interval",
            self.flush_interval,
            Duration::from_millis(100),
            Duration::from_secs(60),
        )
    }
}

/// How PostHog is told that a payload is missing, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RebuildKind {
    #[default]
    SortedSet,
    Celery,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RebuildDocument {
    kind: RebuildKind,
    #[serde(deserialize_with = "duration")]
    repeat_after: Duration,
    celery: Option<Celery>,
}

impl Default for RebuildDocument {
    fn default() -> Self {
        Self {
            kind: RebuildKind::default(),
            repeat_after: Duration::from_secs(60),
            celery: None,
        }
    }
}

/// How PostHog is told that a payload is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuild {
    /// What is sent.
    pub signal: Signal,
    /// For how long a team is not signalled again: 1 s to 24 h.
    pub repeat_after: Duration,
}

impl Default for Rebuild {
    fn default() -> Self {
        Self {
            signal: Signal::default(),
            repeat_after: RebuildDocument::default().repeat_after,
        }
    }
}

impl RebuildDocument {
    pub(super) fn settle(self) -> Result<Rebuild, ConfigError> {
        range(
            "rebuild.repeat_after",
            self.repeat_after,
            Duration::from_secs(1),
            DAY,
        )?;
        let signal = match (self.kind, self.celery) {
            (RebuildKind::Off, _) => Signal::Off,
            (RebuildKind::SortedSet, _) => Signal::default(),
            (RebuildKind::Celery, Some(celery)) => {
                name("rebuild.celery.task", &celery.task)?;
                name("rebuild.celery.queue", &celery.queue)?;
                Signal::Celery(celery)
            }
            (RebuildKind::Celery, None) => {
                return Err(ConfigError::new(
                    "rebuild.celery",
                    "is needed for the kind \"celery\": set rebuild.celery.task",
                ));
            }
        };
        Ok(Rebuild {
            signal,
            repeat_after: self.repeat_after,
        })
    }
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

/// Rate limits, as written.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimitDocument {
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
    pub(super) fn settle(self, warnings: &mut Vec<String>) -> Limits {
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
