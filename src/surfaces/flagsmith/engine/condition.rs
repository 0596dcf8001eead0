//! Operators: what a condition demands of a value.

use std::borrow::Cow;
use std::cmp::Ordering;

use semver::Version;

use super::scalar::{Scalar, TraitValue};

/// A value that conditions look at, read once for all of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// null, and what is a list or an object: its text is empty.
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64, Digits),
    /// Text, and what it says as something else.
    Text(&'a str, Option<bool>, Option<i64>, Option<f64>),
}

/// How a number that is compared as a float is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Digits {
    /// Without exponent, `2.0` as `2`: a trait's.
    Plain,
    /// As in JSON: what a place holds.
    Json,
    /// These: a whole number above `i64::MAX`.
    Whole(u64),
}

impl<'a> Fact<'a> {
    /// A text.
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(text, truth(text), text.parse().ok(), text.parse().ok())
    }

    /// A trait's value.
    pub(super) fn of_trait(value: &'a TraitValue<'_>) -> Self {
        match value {
            TraitValue::Scalar(scalar) => Self::of_scalar(scalar, Digits::Plain),
            TraitValue::Nested(_) => Self::Null,
        }
    }

    /// A value whose floats are written in this way.
    pub(super) fn of_scalar(scalar: &'a Scalar<'_>, digits: Digits) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Bool(flag) => Self::Bool(*flag),
            Scalar::Int(number) => Self::Int(*number),
            Scalar::Big(number) => Self::Float(*number as f64, Digits::Whole(*number)),
            Scalar::Float(number) => Self::Float(*number, digits),
            Scalar::Text(text) => Self::text(text),
        }
    }

    /// The same as a place holds it, which holds nothing for null.
    pub(super) fn in_place(self) -> Option<Self> {
        match self {
            Self::Null => None,
            Self::Float(number, Digits::Plain) => Some(Self::Float(number, Digits::Json)),
            other => Some(other),
        }
    }

    /// Its text.
    pub(super) fn written(&self) -> Cow<'a, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Float(number, Digits::Plain) => Cow::Owned(number.to_string()),
            Self::Float(number, Digits::Json) => {
                Cow::Owned(serde_json::to_string(number).unwrap_or_default())
            }
            Self::Float(_, Digits::Whole(number)) => Cow::Owned(number.to_string()),
            Self::Text(text, ..) => Cow::Borrowed(text),
        }
    }

    /// It as a number, if it can be read as one.
    fn number(&self) -> Option<f64> {
        match self {
            Self::Null | Self::Bool(_) => None,
            Self::Int(number) => Some(*number as f64),
            Self::Float(number, _) => Some(*number),
            Self::Text(_, _, _, number) => *number,
        }
    }
}

/// What a text says of truth.
fn truth(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A comparison's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    /// Whether it holds; of what cannot be compared only "not equal" does.
    fn holds<T: PartialOrd>(self, one: T, other: T) -> bool {
        let order = one.partial_cmp(&other);
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        }
    }

    /// The same of what has no order.
    fn holds_of_truth(self, one: bool, other: bool) -> bool {
        match self {
            Self::Equal => one == other,
            Self::NotEqual => one != other,
            _ => false,
        }
    }
}

/// What a value is compared with, read once.
#[derive(Debug)]
pub(super) struct Operand {
    text: Box<str>,
    truth: Option<bool>,
    int: Option<i64>,
    float: Option<f64>,
    /// Of a text that ends in `:semver`: its version, if it is one.
    version: Option<Option<Version>>,
}

impl Operand {
    fn new(text: &str) -> Self {
        Self {
            truth: truth(text),
            int: text.parse().ok(),
            float: text.parse().ok(),
            version: text
                .strip_suffix(":semver")
                .map(|version| Version::parse(version).ok()),
            text: text.into(),
        }
    }

    fn compare(&self, comparison: Comparison, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::Null => false,
            Fact::Bool(flag) => {
                let truth = self.truth.or((&*self.text == "1").then_some(true));
                truth.is_some_and(|truth| comparison.holds_of_truth(*flag, truth))
            }
            Fact::Int(number) => self.int.is_some_and(|int| comparison.holds(*number, int)),
            Fact::Float(number, _) => {
                (self.float).is_some_and(|float| comparison.holds(*number, float))
            }
            Fact::Text(text, flag, int, float) => {
                if let Some(version) = &self.version {
                    let given = version.as_ref().and_then(|_| Version::parse(text).ok());
                    return match (given, version) {
                        (Some(given), Some(version)) => comparison.holds(&given, version),
                        _ => false,
                    };
                }
                if let (Some(flag), Some(truth)) = (flag, self.truth) {
                    return comparison.holds_of_truth(*flag, truth);
                }
                if let (Some(number), Some(int)) = (int, self.int) {
                    return comparison.holds(*number, int);
                }
                if let (Some(number), Some(float)) = (float, self.float) {
                    return comparison.holds(*number, float);
                }
                comparison.holds(*text, &*self.text)
            }
        }
    }
}

/// What a condition demands.
#[derive(Debug)]
pub(super) enum Demand {
    /// A comparison.
    Compare(Comparison, Box<Operand>),
    /// The text is in the value's.
    Contains(Box<str>),
    /// It is not.
    ContainsNot(Box<str>),
    /// The value's text is one of these, in order.
    In(Box<[Box<str>]>),
    /// The pattern of this number is found in the value's text.
    Pattern(u32),
    /// Divided by the first, the second remains.
    Modulo(f64, f64),
    /// There is a value.
    IsSet,
    /// There is none.
    IsNotSet,
    /// The value's text, or the identity's key, is among the first so many percent.
    Split(f64),
    /// Nothing fits: the condition's value is none that its operator takes.
    Never,
}

/// Largest difference from the remainder that MODULO takes for none.
const EPSILON: f64 = 1e-10;

impl Demand {
    /// What an operator demands with this value; of an unknown operator equality. `pattern` numbers the patterns.
    pub(super) fn new(operator: &str, value: &str, pattern: impl FnOnce(&str) -> u32) -> Self {
        let compare = |comparison| Self::Compare(comparison, Box::new(Operand::new(value)));
        match operator {
            "NOT_EQUAL" => compare(Comparison::NotEqual),
            "GREATER_THAN" => compare(Comparison::Greater),
            "GREATER_THAN_INCLUSIVE" => compare(Comparison::GreaterOrEqual),
            "LESS_THAN" => compare(Comparison::Less),
            "LESS_THAN_INCLUSIVE" => compare(Comparison::LessOrEqual),
            "CONTAINS" => Self::Contains(value.into()),
            "NOT_CONTAINS" => Self::ContainsNot(value.into()),
            "IN" => {
                let mut texts: Vec<Box<str>> =
                    value.split(',').map(|text| text.trim().into()).collect();
                texts.sort_unstable();
                texts.dedup();
                Self::In(texts.into())
            }
            "REGEX" => Self::Pattern(pattern(value)),
            "MODULO" => modulo(value).map_or(Self::Never, |(by, rest)| Self::Modulo(by, rest)),
            "IS_SET" => Self::IsSet,
            "IS_NOT_SET" => Self::IsNotSet,
            "PERCENTAGE_SPLIT" => value.parse().map_or(Self::Never, Self::Split),
            _ => compare(Comparison::Equal),
        }
    }

    /// Whether a value fits. What needs more than the value is not decided here, and fits none.
    pub(super) fn fits(&self, fact: &Fact<'_>) -> bool {
        match self {
            Self::Compare(comparison, operand) => operand.compare(*comparison, fact),
            Self::Contains(text) => fact.written().contains(&**text),
            Self::ContainsNot(text) => !fact.written().contains(&**text),
            Self::In(texts) => {
                let is_bool = matches!(fact, Fact::Bool(_));
                let written = fact.written();
                !is_bool
                    && texts
                        .binary_search_by(|text| (**text).cmp(&*written))
                        .is_ok()
            }
            Self::Modulo(by, rest) => {
                (fact.number()).is_some_and(|number| (number % by - rest).abs() < EPSILON)
            }
            Self::IsSet => true,
            Self::IsNotSet | Self::Pattern(_) | Self::Split(_) | Self::Never => false,
        }
    }

    /// Units of work that [`Self::fits`] takes, beyond a few.
    pub(super) fn cost(&self, fact: &Fact<'_>) -> u64 {
        let searches = match self {
            Self::Contains(_) | Self::ContainsNot(_) => true,
            Self::Compare(_, operand) => operand.version.is_some(),
            _ => false,
        };
        match fact {
            Fact::Text(text, ..) if searches => u64::try_from(text.len()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    /// Bytes that it takes, beyond its own size.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Compare(_, operand) => size_of::<Operand>() + operand.text.len(),
            Self::Contains(text) | Self::ContainsNot(text) => text.len(),
            Self::In(texts) => texts
                .iter()
                .map(|text| size_of_val(text) + text.len())
                .sum(),
            _ => 0,
        }
    }
}

/// Divisor and remainder.
fn modulo(value: &str) -> Option<(f64, f64)> {
    let (by, rest) = value.split_once('|')?;
    Some((by.parse().ok()?, rest.parse().ok()?))
}
