//! The section `ofrep` of a plugin configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::flagd::Fractional;
use crate::json::check::{ConfigError, number};
use crate::json::object;
use crate::limits::Rate;
use crate::surfaces::Upstream;

/// Most members of `context.static`, most header fields of `context.headers`, and most of `cors_origins`.
const MAX_NAMES: usize = 64;

/// Whether a key is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Everybody is answered, as by flagd.
    #[default]
    None,
    /// Who has one of the source document's `ofrep_keys` is.
    Required,
}

/// What is added to the context of each request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddedContext {
    /// Members that take the place of the body's.
    #[serde(rename = "static")]
    pub fixed: BTreeMap<String, Value>,
    /// Names of header fields, each with the member that its value becomes: in the place of the body's and of fixed ones.
    pub headers: BTreeMap<String, String>,
}

/// OFREP's surface.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfrepSettings {
    /// Whether its routes are answered.
    pub enabled: bool,
    /// Where undecided requests go.
    pub upstream: Upstream,
    /// Most bytes of definitions that one worker keeps, compiled rules and texts in gzip form.
    pub documents_bytes: u32,
    /// Whether a key is needed.
    pub keys: Keys,
    /// Which generation of `fractional` decides.
    pub fractional: Fractional,
    /// Longest body of a request, in bytes: 1 KiB to 8 MiB.
    pub max_body_bytes: u32,
    /// What is added to the context of each request.
    #[serde(deserialize_with = "object")]
    pub context: AddedContext,
    /// Origins that browsers may ask from. None at all, or `*`: every one.
    pub cors_origins: Vec<String>,
    /// How often a selection may be asked for, on one worker. `None`: as often as clients like.
    pub rate_limit: Option<Rate>,
    /// Longest text of a selection's definitions, in bytes: 1 KiB to 32 MiB.
    pub max_document_bytes: u32,
    /// Most bytes of answers that one worker keeps.
    pub answers_bytes: u32,
}

impl Default for OfrepSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            upstream: Upstream::default(),
            documents_bytes: 64 << 20,
            keys: Keys::default(),
            fractional: Fractional::default(),
            max_body_bytes: 1_000_000,
            context: AddedContext::default(),
            cors_origins: Vec::new(),
            rate_limit: None,
            max_document_bytes: 8 << 20,
            answers_bytes: 16 << 20,
        }
    }
}

impl OfrepSettings {
    /// Checks ranges and names.
    ///
    /// # Errors
    /// Names the field by its path.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (path, value, min, max) in [
            (
                "ofrep.max_body_bytes",
                self.max_body_bytes,
                1 << 10,
                8 << 20,
            ),
            (
                "ofrep.max_document_bytes",
                self.max_document_bytes,
                1 << 10,
                32 << 20,
            ),
            ("ofrep.documents_bytes", self.documents_bytes, 0, 1 << 30),
            ("ofrep.answers_bytes", self.answers_bytes, 0, 1 << 30),
        ] {
            number(path, value, min, max)?;
        }
        let (fixed, headers) = (&self.context.fixed, &self.context.headers);
        for (path, names) in [
            ("ofrep.context.static", fixed.len()),
            ("ofrep.context.headers", headers.len()),
            ("ofrep.cors_origins", self.cors_origins.len()),
        ] {
            if names > MAX_NAMES {
                return Err(ConfigError::new(
                    path,
                    format!("has more than {MAX_NAMES} members"),
                ));
            }
        }
        for name in headers.keys() {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                let path = format!("ofrep.context.headers.{name}");
                return Err(ConfigError::new(&path, "is no name of a header field"));
            }
        }
        Ok(())
    }

    /// Whether browsers may ask from every origin.
    pub fn allows_any_origin(&self) -> bool {
        self.cors_origins.is_empty() || self.cors_origins.iter().any(|origin| origin == "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(json: &str) -> Result<OfrepSettings, String> {
        let settings: OfrepSettings =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        settings.validate().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn nothing_means_the_documented_defaults() {
        let settings = read("{}").unwrap();
        assert_eq!(settings, OfrepSettings::default());
        assert_eq!(
            (settings.keys, settings.fractional),
            (Keys::None, Fractional::V2)
        );
        assert!(settings.allows_any_origin());
        assert!(
            !read(r#"{"cors_origins":["https://a"]}"#)
                .unwrap()
                .allows_any_origin()
        );
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (json, expected) in [
            (
                r#"{"max_body_bytes":1}"#,
                "ofrep.max_body_bytes: 1 is out of range, use 1024 to 8388608",
            ),
            (
                r#"{"context":{"headers":{"a b":"c"}}}"#,
                "ofrep.context.headers.a b: is no name of a header field",
            ),
            (
                r#"{"keys":"maybe"}"#,
                "unknown variant `maybe`, expected `none` or `required`",
            ),
            (
                r#"{"context":[]}"#,
                "invalid type: sequence, expected a JSON object",
            ),
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }
}
