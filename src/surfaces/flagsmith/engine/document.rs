//! The elements of an environment document, as the engine in Flagsmith's proxy reads them. Members that are not here are
//! ignored. The order of members counts where a list stands in place of an object: serde takes that, there as here.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error};

use super::scalar::{Scalar, TraitValue};

/// A feature state.
#[derive(serde::Deserialize)]
pub(super) struct StateText<'a> {
    #[serde(borrow)]
    pub feature: FeatureText<'a>,
    pub enabled: bool,
    pub django_id: Option<u32>,
    pub feature_segment: Option<PriorityText>,
    /// What is missing is random there.
    #[serde(default, deserialize_with = "present")]
    pub featurestate_uuid: Option<String>,
    #[serde(borrow, default)]
    pub multivariate_feature_state_values: Vec<VariantText<'a>>,
    #[serde(borrow)]
    pub feature_state_value: Scalar<'a>,
}

/// A feature.
#[derive(serde::Deserialize)]
pub(super) struct FeatureText<'a> {
    pub id: u32,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// The place of a segment's override among others.
#[derive(serde::Deserialize)]
pub(super) struct PriorityText {
    pub priority: u32,
}

/// A variant.
#[derive(serde::Deserialize)]
pub(super) struct VariantText<'a> {
    #[serde(borrow)]
    pub multivariate_feature_option: OptionText<'a>,
    pub percentage_allocation: f64,
    pub id: Option<u32>,
    /// What is missing is random there.
    #[serde(default, deserialize_with = "present")]
    pub mv_fs_value_uuid: Option<String>,
}

/// A variant's value.
#[derive(serde::Deserialize)]
pub(super) struct OptionText<'a> {
    #[serde(borrow)]
    pub value: Scalar<'a>,
    /// Only checked.
    #[serde(rename = "id")]
    _id: Option<u32>,
}

/// A rule of a segment.
#[derive(serde::Deserialize)]
pub(super) struct RuleText<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub rules: Vec<RuleText<'a>>,
    #[serde(borrow)]
    pub conditions: Vec<ConditionText<'a>>,
}

/// A condition of a rule.
#[derive(serde::Deserialize)]
pub(super) struct ConditionText<'a> {
    #[serde(borrow)]
    pub operator: Cow<'a, str>,
    pub value: Option<String>,
    #[serde(rename = "property_")]
    pub property: Option<String>,
}

/// The owner of a project, which is only checked.
#[derive(serde::Deserialize)]
pub(super) struct OrganisationText {
    #[serde(rename = "id")]
    _id: u32,
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "feature_analytics")]
    _analytics: bool,
    #[serde(rename = "stop_serving_flags")]
    _stop: bool,
    #[serde(rename = "persist_trait_data")]
    _persist: bool,
}

/// A trait in an identity's override, which is only checked.
#[derive(serde::Deserialize)]
pub(super) struct TraitText<'a> {
    #[serde(borrow, rename = "trait_key")]
    _key: Cow<'a, str>,
    #[serde(borrow, rename = "trait_value")]
    _value: Scalar<'a>,
}

/// When an identity was made, which is only checked: an RFC 3339 time, whose zone may be missing.
pub(super) struct TimeText;

impl<'de> Deserialize<'de> for TimeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_time = is_time(&text);
        is_time
            .then_some(Self)
            .ok_or_else(|| Error::custom("no time, expected an RFC 3339 time"))
    }
}

/// Any text that is text: other values of the member mean nothing.
pub(super) fn text_or_none(value: TraitValue<'_>) -> Option<String> {
    match value {
        TraitValue::Scalar(Scalar::Text(text)) => Some(text.into_owned()),
        _ => None,
    }
}

/// A member that may be missing, and must not be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Whether a text is an RFC 3339 time, with or without a zone, as chrono reads it: a blank may part date and time, and a
/// second may be the 60th.
fn is_time(text: &str) -> bool {
    let zoned = |zone: &str| match zone {
        "" | "Z" | "z" => true,
        _ => zone
            .strip_prefix(['+', '-', '\u{2212}'])
            .and_then(|zone| zone.split_once(':'))
            .is_some_and(|(hour, minute)| within(hour, 23) && within(minute, 59)),
    };
    let Some((date, rest)) = text.split_at_checked(10) else {
        return false;
    };
    let Some((time, rest)) = rest
        .strip_prefix(['T', 't', ' '])
        .and_then(|rest| rest.split_at_checked(8))
    else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|sign: char| sign.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
    };
    is_date(date) && is_time_of_day(time) && zoned(zone)
}

fn is_date(date: &str) -> bool {
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts.as_slice() else {
        return false;
    };
    let (true, Some(year)) = (year.len() == 4, number(year)) else {
        return false;
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match number(month) {
        Some(2) if is_leap => 29,
        Some(2) => 28,
        Some(4 | 6 | 9 | 11) => 30,
        Some(1..=12) => 31,
        _ => return false,
    };
    within(month, 12) && within(day, days) && number(day) != Some(0)
}

fn is_time_of_day(time: &str) -> bool {
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else {
        return false;
    };
    within(hour, 23) && within(minute, 59) && within(second, 60)
}

/// Whether these are two digits, of a number that is not above `most`.
fn within(digits: &str, most: u32) -> bool {
    digits.len() == 2 && number(digits).is_some_and(|number| number <= most)
}

fn number(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        for time in [
            "2026-01-02T03:04:05.678901+00:00",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05",
            "2024-02-29 23:59:60.1-12:30",
            "0000-12-31t00:00:00z",
        ] {
            assert!(is_time(time), "{time}");
        }
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "yesterday",
            "2026-01-02",
            "2026-01-02T03:04",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05+0000",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05ZZ",
            "+026-01-02T03:04:05Z",
            "ä026-01-02T03:04:05Z",
        ] {
            assert!(!is_time(text), "{text}");
        }
    }
}
