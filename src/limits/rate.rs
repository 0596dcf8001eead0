//! A rate as an operator writes it: `"600/minute"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// The time over which a rate's count is refilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
}

impl Period {
    /// Its length.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// By the first letter, case-folded, `m`, `min` and `Minutes` are the same.
    fn from_name(name: &str) -> Option<Self> {
        match name.chars().next()?.to_ascii_lowercase() {
            's' => Some(Self::Second),
            'm' => Some(Self::Minute),
            'h' => Some(Self::Hour),
            'd' => Some(Self::Day),
            _ => None,
        }
    }
}

/// A number of requests per [`Period`]. As many may come at once (the burst); they are refilled evenly over
/// the period. The count is 1 to 4 294 967 295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    count: u32,
    period: Period,
}

impl Rate {
    /// A rate for a default. A count of zero becomes one: a rate always lets something through.
    pub const fn per(count: u32, period: Period) -> Self {
        Self {
            count: if count == 0 { 1 } else { count },
            period,
        }
    }

    /// How many in one period, and at once. At least 1.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The period: 1 s to 24 h.
    pub const fn period(&self) -> Duration {
        self.period.duration()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period.name())
    }
}

/// Why a text is not a rate. Each variant holds the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateError {
    /// It is not two parts with one slash between them.
    Shape(String),
    /// The count is not a decimal number.
    Count(String),
    /// The count is 0.
    Zero(String),
    /// The count does not fit.
    TooLarge(String),
    /// The period begins with none of the four letters.
    Period(String),
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(text) => write!(
                f,
                "{text:?}: must be a count and a period, such as \"600/minute\""
            ),
            Self::Count(text) => write!(f, "{text:?}: the count must be a whole number above 0"),
            Self::Zero(text) => write!(f, "{text:?}: the count must be above 0"),
            Self::TooLarge(text) => write!(f, "{text:?}: the count must be at most {}", u32::MAX),
            Self::Period(text) => write!(
                f,
                "{text:?}: unknown period, use second, minute, hour or day"
            ),
        }
    }
}

impl std::error::Error for RateError {}

impl FromStr for Rate {
    type Err = RateError;

    /// Reads `<count>/<period>`; blanks around either part are trimmed.
    ///
    /// # Errors
    /// [`RateError`] names what to change.
    ///
    /// ```
    /// use flag_definitions_filter::limits::Rate;
    /// let rate: Rate = " 600 / Min ".parse().unwrap();
    /// assert_eq!(rate.to_string(), "600/minute");
    /// ```
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/');
        let (count, period) = parts.ok_or_else(|| RateError::Shape(text.to_owned()))?;
        if period.contains('/') {
            return Err(RateError::Shape(text.to_owned()));
        }
        let count = count.trim();
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RateError::Count(text.to_owned()));
        }
        let count: u32 = count
            .parse()
            .map_err(|_| RateError::TooLarge(text.to_owned()))?;
        if count == 0 {
            return Err(RateError::Zero(text.to_owned()));
        }
        let period =
            Period::from_name(period.trim()).ok_or_else(|| RateError::Period(text.to_owned()))?;
        Ok(Self { count, period })
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_period_is_known_by_its_first_letter_in_any_case() {
        for (text, expected) in [
            ("600/minute", Rate::per(600, Period::Minute)),
            ("600/m", Rate::per(600, Period::Minute)),
            (" 20 /\tS ", Rate::per(20, Period::Second)),
            ("007/Hours", Rate::per(7, Period::Hour)),
            ("4294967295/DAY", Rate::per(u32::MAX, Period::Day)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_error_shows_the_text_and_says_what_to_change() {
        for (text, expected) in [
            (
                "600/fortnight",
                "\"600/fortnight\": unknown period, use second, minute, hour or day",
            ),
            (
                "600/",
                "\"600/\": unknown period, use second, minute, hour or day",
            ),
            (
                "600",
                "\"600\": must be a count and a period, such as \"600/minute\"",
            ),
            (
                "6/m/h",
                "\"6/m/h\": must be a count and a period, such as \"600/minute\"",
            ),
            ("/m", "\"/m\": the count must be a whole number above 0"),
            ("+6/m", "\"+6/m\": the count must be a whole number above 0"),
            (
                "1.5/m",
                "\"1.5/m\": the count must be a whole number above 0",
            ),
            ("00/m", "\"00/m\": the count must be above 0"),
            (
                "4294967296/s",
                "\"4294967296/s\": the count must be at most 4294967295",
            ),
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_document_holds_rates_as_text() {
        let rates: Vec<Rate> = serde_json::from_str(r#"["1/s","2/d"]"#).unwrap();
        assert_eq!(
            rates,
            [Rate::per(1, Period::Second), Rate::per(2, Period::Day)]
        );
        let error = serde_json::from_str::<Rate>(r#""1/x""#).unwrap_err();
        assert!(
            error.to_string().starts_with("\"1/x\": unknown period"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn a_rate_is_read_as_it_is_shown(count in 1u32.., letter in "[smhdSMHD]") {
            let rate: Rate = format!("{count}/{letter}").parse().unwrap();
            prop_assert_eq!(rate.count(), count);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,20}") {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert!(rate.count() > 0);
            }
        }
    }
}
