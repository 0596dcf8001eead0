//! `sem_ver`: versions as Go's `semver` package orders them.

use std::cmp::Ordering;

use super::operators::shown;
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// Evaluates `[version, operator, version]`; `None` where it says nothing.
pub(super) fn evaluate(arguments: &[JsonValue]) -> Option<bool> {
    let [left, JsonValue::Text(operator), right] = arguments else {
        return None;
    };
    let (left, right) = (shown(left)?, shown(right)?);
    let (left, right) = (Version::parse(&left)?, Version::parse(&right)?);
    let order = left.compare(&right);
    Some(match &**operator {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "^" => left.numbers[0] == right.numbers[0],
        "~" => left.numbers[..2] == right.numbers[..2],
        _ => return None,
    })
}

struct Version<'t> {
    /// Major, minor and patch: digits without leading zeros, as many as there are.
    numbers: [&'t str; 3],
    pre_release: &'t str,
}

impl<'t> Version<'t> {
    /// Reads `1`, `1.2` or `1.2.3-rc.1+build`, with or without a `v` in front. What is short has neither pre-release nor build.
    fn parse(text: &'t str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let (core, pre_release) = match text.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (text, None),
        };
        let mut parts = core.split('.');
        let major = parts.next()?;
        let (minor, patch) = (parts.next(), parts.next());
        let is_short = patch.is_none();
        if parts.next().is_some() || is_short && (build.is_some() || pre_release.is_some()) {
            return None;
        }
        let numbers = [major, minor.unwrap_or("0"), patch.unwrap_or("0")];
        let identifiers = |text: Option<&str>, test: fn(&str) -> bool| {
            text.is_none_or(|text| {
                text.split('.')
                    .all(|part| is_identifier(part) && test(part))
            })
        };
        let fits = numbers
            .iter()
            .all(|number| is_digits(number) && is_shortest(number))
            && identifiers(pre_release, |part| !is_digits(part) || is_shortest(part))
            && identifiers(build, |_| true);
        fits.then_some(Self {
            numbers,
            pre_release: pre_release.unwrap_or_default(),
        })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let pairs = self.numbers.iter().zip(other.numbers);
        let numbers = pairs.map(|(a, b)| compare_digits(a, b));
        numbers
            .fold(Ordering::Equal, Ordering::then)
            .then_with(|| compare_pre_releases(self.pre_release, other.pre_release))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_shortest(digits: &str) -> bool {
    digits == "0" || !digits.starts_with('0')
}

fn is_identifier(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(fits)
}

fn compare_digits(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A release comes after its pre-releases. Numbers come before other identifiers, fewer identifiers before more.
fn compare_pre_releases(a: &str, b: &str) -> Ordering {
    if a.is_empty() || b.is_empty() {
        return b.len().min(1).cmp(&a.len().min(1));
    }
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (is_digits(a), is_digits(b)) {
                (true, true) => compare_digits(a, b),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}
