//! Plugin configuration: a JSON document → [`Settings`].
//!
//! Unknown fields are refused and each error names the field by its path, because Envoy shows the operator
//! nothing but that one line when it rejects a configuration.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::json;

/// Largest reply that Envoy buffers for a callout (32 MB), less room for the reply's framing.
const LARGEST_PAYLOAD: u32 = 32_000_000;

/// A refused plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// What the plugin does on its listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Answers flag definition requests and loads the snapshot.
    #[default]
    Filter,
    /// Answers `/ready` and `/health`, and nothing else.
    Health,
}

/// HTTP face of the gateway in front of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// webdis: one command a request.
    #[default]
    Webdis,
}

/// Whether a request that the filter may not decide goes to the service behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// There is a service that can answer; forward to it.
    Forward,
    /// There is none: answer here.
    #[default]
    None,
}

/// What happens to a token or credential that a complete, fresh snapshot does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCredential {
    /// Ask the service behind the filter.
    Forward,
    /// 401.
    Reject,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RedisStores {
    default: Redis,
}

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
    /// Number of shared-data buckets: 1 to 1 048 576.
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
            buckets: 65_536,
        }
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
    /// Largest payload that is answered, in bytes: 1 to 32 000 000.
    pub max_bytes: u32,
}

impl Default for Definitions {
    fn default() -> Self {
        Self {
            key_prefix: "posthog:".to_owned(),
            cache_version: "1".to_owned(),
            max_bytes: 8 << 20,
        }
    }
}

/// The document as written, before what depends on other fields is settled.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    role: Role,
    redis: RedisStores,
    snapshot: Snapshot,
    definitions: Definitions,
    upstream: Upstream,
    unknown_credential: Option<UnknownCredential>,
}

/// A validated plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the plugin does on its listener.
    pub role: Role,
    /// The Redis that holds the snapshot and the payloads.
    pub redis: Redis,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The payload.
    pub definitions: Definitions,
    /// Where undecided requests go.
    pub upstream: Upstream,
    /// Where unknown tokens and credentials go.
    pub unknown_credential: UnknownCredential,
}

impl Default for Settings {
    fn default() -> Self {
        Self::from_document(Document::default())
    }
}

impl Settings {
    /// Reads a plugin configuration; no bytes at all mean the defaults.
    ///
    /// # Errors
    /// Names the field by its path: `redis.default.cluster: must not be empty`.
    ///
    /// ```
    /// use flag_definitions_filter::config::Settings;
    /// let error = Settings::from_json(br#"{"redis":{"default":{"cluster":""}}}"#).unwrap_err();
    /// assert_eq!(error.to_string(), "redis.default.cluster: must not be empty");
    /// ```
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let document: Document = json::read(text, "plugin configuration")
            .map_err(|(path, error)| ConfigError::new(&path, error.to_string()))?;
        let settings = Self::from_document(document);
        settings.validate()?;
        Ok(settings)
    }

    fn from_document(document: Document) -> Self {
        let unknown_credential = document
            .unknown_credential
            .unwrap_or(match document.upstream {
                Upstream::Forward => UnknownCredential::Forward,
                Upstream::None => UnknownCredential::Reject,
            });
        Self {
            role: document.role,
            redis: document.redis.default,
            snapshot: document.snapshot,
            definitions: document.definitions,
            upstream: document.upstream,
            unknown_credential,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            redis,
            snapshot,
            definitions,
            ..
        } = self;
        name("redis.default.cluster", &redis.cluster)?;
        range(
            "redis.default.timeout",
            redis.timeout,
            Duration::from_millis(1),
            Duration::from_secs(30),
        )?;
        name("snapshot.prefix", &snapshot.prefix)?;
        range(
            "snapshot.poll_interval",
            snapshot.poll_interval,
            Duration::from_millis(100),
            Duration::from_secs(60),
        )?;
        range(
            "snapshot.etag_max_age",
            snapshot.etag_max_age,
            Duration::ZERO,
            Duration::from_secs(60),
        )?;
        let day = Duration::from_secs(86_400);
        if snapshot.refuse_max_age < snapshot.poll_interval * 2 || snapshot.refuse_max_age > day {
            return Err(ConfigError::new(
                "snapshot.refuse_max_age",
                "must be at least twice snapshot.poll_interval and at most 24h",
            ));
        }
        if snapshot.max_age < snapshot.refuse_max_age || snapshot.max_age > 7 * day {
            return Err(ConfigError::new(
                "snapshot.max_age",
                "must be at least snapshot.refuse_max_age and at most 168h",
            ));
        }
        number("snapshot.buckets", snapshot.buckets, 1, 1 << 20)?;
        number(
            "definitions.max_bytes",
            definitions.max_bytes,
            1,
            LARGEST_PAYLOAD,
        )?;
        short("definitions.key_prefix", &definitions.key_prefix)?;
        short("definitions.cache_version", &definitions.cache_version)?;
        if self.unknown_credential == UnknownCredential::Forward && self.upstream == Upstream::None
        {
            return Err(ConfigError::new(
                "unknown_credential",
                "\"forward\" needs an upstream: set \"upstream\" to \"forward\"",
            ));
        }
        Ok(())
    }
}

fn name(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(ConfigError::new(path, "must not be empty"));
    }
    short(path, value)
}

fn short(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() > 200 || value.chars().any(char::is_control) {
        return Err(ConfigError::new(
            path,
            "must be at most 200 bytes, without control characters",
        ));
    }
    Ok(())
}

fn range(path: &str, value: Duration, min: Duration, max: Duration) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(
            path,
            format!("{value:?} is out of range, use {min:?} to {max:?}"),
        ));
    }
    Ok(())
}

fn number(path: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(
            path,
            format!("{value} is out of range, use {min} to {max}"),
        ));
    }
    Ok(())
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|problem| de::Error::custom(format!("\"{text}\": {problem}")))
}

/// Reads `"250ms"`, `"2s"`, `"10m"` or `"24h"`.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let count: u64 = digits
        .parse()
        .map_err(|_| "must be a whole number and a unit, such as \"250ms\"")?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err("has no unit, use ms, s, m or h"),
        _ => return Err("unknown unit, use ms, s, m or h"),
    };
    count
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or("is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn error(json: &str) -> String {
        Settings::from_json(json.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn nothing_means_the_documented_defaults() {
        for json in ["", "  \n", "{}"] {
            let settings = Settings::from_json(json.as_bytes()).unwrap();
            assert_eq!(settings, Settings::default());
        }
        let settings = Settings::default();
        assert_eq!(settings.redis.cluster, "flag_definitions_redis");
        assert_eq!(settings.redis.timeout, Duration::from_millis(250));
        assert_eq!(settings.snapshot.etag_max_age, Duration::from_secs(2));
        assert_eq!(settings.unknown_credential, UnknownCredential::Reject);
    }

    #[test]
    fn unknown_credentials_are_forwarded_where_there_is_an_upstream() {
        let settings = Settings::from_json(br#"{"upstream":"forward"}"#).unwrap();
        assert_eq!(settings.unknown_credential, UnknownCredential::Forward);
    }

    #[test]
    fn an_error_names_the_field_by_its_path() {
        for (json, expected) in [
            (
                r#"{"redis":{"default":{"cluster":""}}}"#,
                "redis.default.cluster: must not be empty",
            ),
            (
                r#"{"snapshot":{"poll_interval":"2 fortnights"}}"#,
                "snapshot.poll_interval: \"2 fortnights\": unknown unit",
            ),
            (
                r#"{"snapshot":{"poll_interval":"5"}}"#,
                "snapshot.poll_interval: \"5\": has no unit",
            ),
            (
                r#"{"snapshot":{"poll_interval":5}}"#,
                "snapshot.poll_interval: invalid type",
            ),
            (
                r#"{"redis":{"default":{"timeout":"0s"}}}"#,
                "redis.default.timeout: 0ns is out of range",
            ),
            (
                r#"{"redis":{"default":{"timeout":"99999999999999999999h"}}}"#,
                "redis.default.timeout: ",
            ),
            (
                r#"{"redis":{"default":{"dialect":"carrier_pigeon"}}}"#,
                "redis.default.dialect: unknown variant `carrier_pigeon`",
            ),
            (
                r#"{"snapshot":{"bucket":1}}"#,
                "snapshot.bucket: unknown field `bucket`",
            ),
            (r#"{"nonsense":1}"#, "nonsense: unknown field `nonsense`"),
            (
                r#"{"snapshot":{"buckets":0}}"#,
                "snapshot.buckets: 0 is out",
            ),
            (
                r#"{"snapshot":{"poll_interval":"10s"}}"#,
                "snapshot.refuse_max_age: must be at least twice",
            ),
            (
                r#"{"snapshot":{"max_age":"1s"}}"#,
                "snapshot.max_age: must be at least",
            ),
            (
                r#"{"definitions":{"max_bytes":64000000}}"#,
                "definitions.max_bytes: 64000000 is out of range",
            ),
            (
                r#"{"unknown_credential":"forward"}"#,
                "unknown_credential: \"forward\" needs an upstream",
            ),
            ("{", "plugin configuration: EOF while parsing"),
            ("[]", "plugin configuration: "),
            ("{} {}", "plugin configuration: trailing characters"),
            ("\u{0}", "plugin configuration: expected value"),
        ] {
            let message = error(json);
            assert!(message.starts_with(expected), "{json}: {message}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            " 1s",
            "1 s",
            "1S",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
