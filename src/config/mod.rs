//! Plugin configuration: a JSON document → [`Settings`].
//!
//! Unknown fields are refused and each error names the field by its path, because Envoy shows the operator
//! nothing but that one line when it rejects a configuration.
//!
//! Each section is read and checked by the room that it is for; here they are put together.

mod health;
mod scopes;
mod team_labels;

use serde::Deserialize;

use crate::json::{self, ConfigError, object};
use crate::snapshot::settings::Snapshot;
use crate::surfaces::Upstream;
#[cfg(feature = "flagsmith")]
use crate::surfaces::flagsmith::settings::FlagsmithSettings;
#[cfg(feature = "ofrep")]
use crate::surfaces::ofrep::settings::OfrepSettings;
use crate::surfaces::posthog::definitions::settings::Definitions;
use crate::surfaces::posthog::quota::settings::Quota;
use crate::surfaces::posthog::read_through::settings::ReadThrough;
use crate::surfaces::posthog::rebuild::settings::RebuildDocument;
use crate::surfaces::posthog::settings::{
    self as posthog, HeadRequests, RateLimitDocument, UnknownCredential,
};
use crate::usage::settings::Usage;

pub use health::{HealthPath, HealthSettings};
pub use scopes::{reported_scope, scopes};
pub use team_labels::Metrics;

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

/// The document as written, before what depends on other fields is settled.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    /// Tells editors of `filter-config/plugin.schema.json`.
    #[serde(rename = "$schema")]
    _schema: String,
    role: Role,
    #[serde(deserialize_with = "object")]
    redis: posthog::StoresDocument,
    #[serde(deserialize_with = "object")]
    snapshot: Snapshot,
    #[serde(deserialize_with = "object")]
    definitions: Definitions,
    #[serde(deserialize_with = "object")]
    read_through: ReadThrough,
    upstream: Upstream,
    unknown_credential: Option<UnknownCredential>,
    #[serde(deserialize_with = "object")]
    rate_limit: RateLimitDocument,
    #[serde(deserialize_with = "object")]
    quota: Quota,
    #[serde(deserialize_with = "object")]
    usage: Usage,
    #[serde(deserialize_with = "object")]
    rebuild: RebuildDocument,
    head_requests: HeadRequests,
    #[serde(deserialize_with = "object")]
    metrics: Metrics,
    #[serde(deserialize_with = "object")]
    health: HealthSettings,
    #[serde(deserialize_with = "object")]
    posthog: PostHogSection,
    #[cfg(feature = "flagsmith")]
    #[serde(deserialize_with = "object")]
    flagsmith: FlagsmithSettings,
    #[cfg(feature = "ofrep")]
    #[serde(deserialize_with = "object")]
    ofrep: OfrepSettings,
}

/// The section `posthog`: all else of that surface stands at the top.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PostHogSection {
    enabled: bool,
}

impl Default for PostHogSection {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// A validated plugin configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What the plugin does on its listener.
    pub role: Role,
    /// PostHog's surface.
    pub posthog: posthog::PostHogSettings,
    /// Flagsmith's surface.
    #[cfg(feature = "flagsmith")]
    pub flagsmith: FlagsmithSettings,
    /// OFREP's surface.
    #[cfg(feature = "ofrep")]
    pub ofrep: OfrepSettings,
    /// Metrics with a team label.
    pub metrics: Metrics,
    /// What the filter role says of itself.
    pub health: HealthSettings,
    /// What was wrong in the document without being refused; for the log.
    pub warnings: Vec<String>,
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
            return Self::from_document(Document::default());
        }
        let document: Document = json::read(text, "plugin configuration")
            .map_err(|(path, error)| ConfigError::new(&path, problem(&error)))?;
        Self::from_document(document)
    }

    fn from_document(mut document: Document) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let sections = posthog::Sections {
            redis: document.redis,
            snapshot: document.snapshot,
            definitions: document.definitions,
            read_through: document.read_through,
            upstream: document.upstream,
            unknown_credential: document.unknown_credential,
            rate_limit: document.rate_limit,
            quota: document.quota,
            usage: document.usage,
            rebuild: document.rebuild,
            head_requests: document.head_requests,
            enabled: document.posthog.enabled,
        };
        let posthog = sections.settle(&mut warnings)?;
        document.metrics.validate()?;
        #[cfg(feature = "flagsmith")]
        document.flagsmith.validate()?;
        #[cfg(feature = "ofrep")]
        document.ofrep.validate()?;
        #[cfg(feature = "flagsmith")]
        let tells_of_flagsmith = document.flagsmith.enabled;
        #[cfg(not(feature = "flagsmith"))]
        let tells_of_flagsmith = false;
        let is_answered = |path: &HealthPath| {
            tells_of_flagsmith || matches!(path, HealthPath::Ready | HealthPath::Health)
        };
        let mut paths = document.health.paths.iter();
        if let Some(path) = paths.find(|path| !is_answered(path)) {
            let path = path.text();
            warnings.push(format!(
                "health.paths: {path} is not answered, since flagsmith.enabled is false"
            ));
        }
        Ok(Self {
            role: document.role,
            posthog,
            #[cfg(feature = "flagsmith")]
            flagsmith: document.flagsmith,
            #[cfg(feature = "ofrep")]
            ofrep: document.ofrep,
            metrics: document.metrics,
            health: document.health,
            warnings,
        })
    }
}

/// What is wrong with a value. Where it stands says its path: operators write YAML, of which Envoy makes the one
/// line of JSON that the position counts in.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert_eq!(
            settings.posthog.redis.snapshot.cluster,
            "flag_definitions_redis"
        );
        assert_eq!(
            settings.posthog.redis.snapshot.timeout,
            Duration::from_millis(250)
        );
        assert_eq!(
            settings.posthog.redis.definitions.timeout,
            Duration::from_millis(750)
        );
        assert_eq!(
            settings.posthog.snapshot.etag_max_age,
            Duration::from_secs(2)
        );
        assert_eq!(
            settings.posthog.unknown_credential,
            UnknownCredential::Reject
        );
    }

    #[test]
    fn a_document_may_name_its_schema() {
        let named = br#"{"$schema":"../plugin.schema.json"}"#;
        assert_eq!(Settings::from_json(named), Ok(Settings::default()));
        assert!(error(r#"{"$schema":1}"#).starts_with("$schema: invalid type"));
        assert!(error(r#"{"redis":{"$schema":"a"}}"#).starts_with("redis.$schema: unknown field"));
    }

    #[test]
    fn a_callout_for_definitions_has_time_to_transfer_them_unless_less_is_asked_for() {
        for (redis, definitions, others) in [
            (r#"{}"#, 750, 250),
            (r#"{"default":{"timeout":"100ms"}}"#, 750, 100),
            (r#"{"default":{"timeout":"2s"}}"#, 2_000, 2_000),
            (r#"{"definitions":{"timeout":"300ms"}}"#, 300, 250),
            (
                r#"{"default":{"timeout":"2s"},"definitions":{"timeout":"1s"}}"#,
                1_000,
                2_000,
            ),
        ] {
            let json = format!(r#"{{"redis":{redis}}}"#);
            let stores = Settings::from_json(json.as_bytes()).unwrap().posthog.redis;
            assert_eq!(
                stores.definitions.timeout.as_millis(),
                definitions,
                "{redis}"
            );
            assert_eq!(stores.identity.timeout.as_millis(), others, "{redis}");
            assert_eq!(stores.snapshot.timeout.as_millis(), others, "{redis}");
        }
    }

    #[test]
    fn a_body_cache_can_be_off_and_then_nothing_is_compressed() {
        for (json, kept, compresses) in [
            ("{}", 64 << 20, true),
            (r#"{"definitions":{"body_cache_bytes":0}}"#, 0, false),
            (
                r#"{"definitions":{"body_cache_bytes":65536}}"#,
                65_536,
                true,
            ),
            (
                r#"{"definitions":{"body_cache_bytes":1073741824}}"#,
                1 << 30,
                true,
            ),
            (r#"{"definitions":{"gzip":false}}"#, 64 << 20, false),
        ] {
            let settings = Settings::from_json(json.as_bytes())
                .unwrap()
                .posthog
                .definitions;
            assert_eq!(settings.max_kept_bytes(), kept, "{json}");
            assert_eq!(settings.compresses(), compresses, "{json}");
        }
    }

    #[test]
    fn unknown_credentials_are_forwarded_where_there_is_an_upstream() {
        let settings = Settings::from_json(br#"{"upstream":"forward"}"#).unwrap();
        assert_eq!(
            settings.posthog.unknown_credential,
            UnknownCredential::Forward
        );
    }

    #[test]
    fn an_error_is_one_line_about_the_value() {
        assert_eq!(
            error(r#"{"rate_limit":{"full":"600/fortnight"}}"#),
            r#"rate_limit.full: "600/fortnight": unknown period, use second, minute, hour or day"#
        );
        // In a text that is no JSON the position is all there is.
        assert!(error("{").ends_with("at line 1 column 1"));
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
                r#"{"definitions":{"body_cache_bytes":65535}}"#,
                "definitions.body_cache_bytes: 65535 is out of range, use 0 for none, or 65536 to 1073741824",
            ),
            (
                r#"{"definitions":{"body_cache_bytes":1073741825}}"#,
                "definitions.body_cache_bytes: 1073741825 is out of range",
            ),
            (
                r#"{"definitions":{"large_bytes_per_second":1048575}}"#,
                "definitions.large_bytes_per_second: 1048575 is out of range, use 0 for any number, or at least 1048576",
            ),
            (
                r#"{"definitions":{"gzip":"yes"}}"#,
                "definitions.gzip: invalid type",
            ),
            (
                r#"{"unknown_credential":"forward"}"#,
                "unknown_credential: \"forward\" needs an upstream",
            ),
            (
                r#"{"snapshot":["other:"]}"#,
                "snapshot: invalid type: sequence, expected a JSON object",
            ),
            (
                r#"{"redis":{"default":["other"]}}"#,
                "redis.default: invalid type: sequence, expected a JSON object",
            ),
            (
                r#"{"redis":{"usage":["other"]}}"#,
                "redis.usage: invalid type: sequence, expected a JSON object",
            ),
            (
                r#"{"definitions":{"object_store":["a","b"]}}"#,
                "definitions.object_store: invalid type: sequence, expected a JSON object",
            ),
            (
                r#"{"rebuild":{"celery":["task"]}}"#,
                "rebuild.celery: invalid type: sequence, expected a JSON object",
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
}
