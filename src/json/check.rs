//! What all sections of a plugin configuration share: the error, ranges, durations.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// A refused plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// A problem with the value at `path`.
    pub(crate) fn new(path: &str, problem: impl Into<String>) -> Self {
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

pub(crate) fn name(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(ConfigError::new(path, "must not be empty"));
    }
    short(path, value)
}

pub(crate) fn short(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() > 200 || value.chars().any(char::is_control) {
        return Err(ConfigError::new(
            path,
            "must be at most 200 bytes, without control characters",
        ));
    }
    Ok(())
}

pub(crate) fn range(
    path: &str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(
            path,
            format!("{value:?} is out of range, use {min:?} to {max:?}"),
        ));
    }
    Ok(())
}

pub(crate) fn number(path: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(
            path,
            format!("{value} is out of range, use {min} to {max}"),
        ));
    }
    Ok(())
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(|problem| de::Error::custom(format!("\"{text}\": {problem}")))
}

pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Reads `"250ms"`, `"2s"`, `"10m"` or `"24h"`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
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
