//! Operators that need nothing but their arguments.

use super::RuleFailure;
use super::operator::Operator;
use super::sem_ver;
use crate::surfaces::ofrep::flagd::number;
use crate::surfaces::ofrep::flagd::value::JsonValue;

type Result<T> = std::result::Result<T, RuleFailure>;

/// What stands behind an operator: a list of arguments, or something else.
pub(super) enum Arguments {
    List(Vec<JsonValue>),
    One(JsonValue),
}

impl Arguments {
    /// The list, where only a list will do.
    fn list(self) -> Result<Vec<JsonValue>> {
        match self {
            Self::List(list) => Ok(list),
            Self::One(_) => Err(RuleFailure),
        }
    }

    /// Steps that an operator takes for them.
    pub(super) fn cost(&self, operator: Operator) -> usize {
        match (operator, self) {
            // Each element is looked for in the other list.
            (
                Operator::ContainsAll | Operator::ContainsAny | Operator::ContainsNone,
                Self::List(list),
            ) => list
                .iter()
                .map(|value| size(value).max(1))
                .fold(1, usize::saturating_mul),
            (Operator::Cat | Operator::Substr | Operator::Var, Self::List(list)) => {
                list.iter().map(text_size).sum::<usize>() + list.len()
            }
            (_, Self::List(list)) => list.iter().map(size).sum::<usize>() + list.len(),
            (_, Self::One(value)) => text_size(value),
        }
    }

    /// The list, or what is none as a list of one.
    fn many(self) -> Vec<JsonValue> {
        match self {
            Self::List(list) => list,
            Self::One(value) => vec![value],
        }
    }
}

/// Steps of looking at a value, and at the elements of a list.
pub(super) fn size(value: &JsonValue) -> usize {
    let element = |value: &JsonValue| match value {
        JsonValue::Text(text) => 1 + text.len() / 16,
        _ => 1,
    };
    match value {
        JsonValue::Text(text) => text.len() / 16,
        JsonValue::List(list) => list.iter().map(element).sum(),
        JsonValue::Object(members) => members.len(),
        _ => 0,
    }
}

/// Steps of a value whose [`text`] is made. That of a number has up to 326 bytes.
pub(super) fn text_size(value: &JsonValue) -> usize {
    match value {
        JsonValue::Number(number) if *number != 0.0 && number.is_finite() => {
            usize::try_from(whole(number.abs().log10().abs())).unwrap_or_default() / 16
        }
        value => size(value),
    }
}

/// Evaluates an operator. Those that look into the data are not here.
pub(super) fn evaluate(operator: Operator, arguments: Arguments) -> Result<JsonValue> {
    use Operator as O;
    let says = |truth: Option<bool>| truth.map_or(JsonValue::Null, JsonValue::Bool);
    Ok(match operator {
        O::Equal | O::NotEqual => {
            let equal = match arguments.list()?.as_slice() {
                [a, b, ..] => equal(a, b),
                _ => false,
            };
            JsonValue::Bool(equal == (operator == O::Equal))
        }
        O::Same | O::NotSame => {
            let same = match &arguments {
                Arguments::List(list) => same(list),
                Arguments::One(_) => false,
            };
            JsonValue::Bool(same == (operator == O::Same))
        }
        O::Less => JsonValue::Bool(compare(arguments, less)?),
        O::LessOrEqual => JsonValue::Bool(compare(arguments, |a, b| less(a, b) || equal(a, b))?),
        O::Greater => JsonValue::Bool(compare(arguments, |a, b| less(b, a))?),
        O::GreaterOrEqual => JsonValue::Bool(compare(arguments, |a, b| less(b, a) || equal(a, b))?),
        O::Not | O::Truth => {
            let truth = match &arguments {
                Arguments::List(list) => list.first().is_some_and(JsonValue::is_true),
                Arguments::One(value) => value.is_true(),
            };
            JsonValue::Bool(truth == (operator == O::Truth))
        }
        O::Add => JsonValue::Number(fold(&arguments.many(), 0.0, |a, b| a + b)?),
        O::Multiply => JsonValue::Number(fold(&arguments.list()?, 1.0, |a, b| a * b)?),
        O::Subtract => match arguments.list()?.as_slice() {
            [] => JsonValue::Number(0.0),
            [one] => JsonValue::Number(-number(one)?),
            [first, rest @ ..] => JsonValue::Number(fold(rest, number(first)?, |a, b| a - b)?),
        },
        O::Divide => match arguments.list()?.as_slice() {
            [] => JsonValue::Number(0.0),
            [first, rest @ ..] => JsonValue::Number(fold(rest, number(first)?, |a, b| a / b)?),
        },
        O::Remainder => match arguments.list()?.as_slice() {
            [a, b, ..] => JsonValue::Number(number(a)? % number(b)?),
            _ => return Err(RuleFailure),
        },
        O::Absolute => {
            let list = arguments.many();
            JsonValue::Number(number(list.first().ok_or(RuleFailure)?)?.abs())
        }
        O::Min => best(&arguments.list()?, |a, b| b < a)?,
        O::Max => best(&arguments.list()?, |a, b| b > a)?,
        O::In => JsonValue::Bool(is_in(&arguments.list()?)?),
        O::Cat => match arguments {
            Arguments::One(text @ JsonValue::Text(_)) => text,
            arguments => cat(&arguments.list()?)?,
        },
        O::Substr => substr(&arguments.list()?)?,
        O::Merge => match arguments {
            Arguments::One(JsonValue::Null | JsonValue::Object(_)) => return Err(RuleFailure),
            arguments => merge(arguments.many()),
        },
        O::Set => set(arguments.list()?)?,
        O::ContainsAll => JsonValue::Bool(contains(&arguments, true)?),
        O::ContainsAny => JsonValue::Bool(contains(&arguments, false)?),
        O::ContainsNone => JsonValue::Bool(!contains(&arguments, false)?),
        O::SemVer => match &arguments {
            Arguments::List(list) => says(sem_ver::evaluate(list)),
            Arguments::One(_) => JsonValue::Null,
        },
        O::StartsWith => says(affix(&arguments, |text, affix| text.starts_with(affix))),
        O::EndsWith => says(affix(&arguments, |text, affix| text.ends_with(affix))),
        _ => return Err(RuleFailure),
    })
}

/// The number that arithmetic takes a value for; a text that is none is 0.
pub(super) fn number(value: &JsonValue) -> Result<f64> {
    match value {
        JsonValue::Number(number) => Ok(*number),
        JsonValue::Text(text) => Ok(number::parse(text).unwrap_or_default()),
        _ => Err(RuleFailure),
    }
}

/// The number that comparisons take a value for.
fn loose(value: &JsonValue) -> f64 {
    match value {
        JsonValue::Null | JsonValue::Bool(false) => 0.0,
        JsonValue::Bool(true) => 1.0,
        JsonValue::Number(number) => *number,
        JsonValue::Text(text) if text.trim().is_empty() => 0.0,
        // A number out of range is none; `inf` is one.
        JsonValue::Text(text) => number::parse(text)
            .filter(|number| number.is_finite() || !text.contains(|c: char| c.is_ascii_digit()))
            .unwrap_or(f64::NAN),
        JsonValue::List(_) | JsonValue::Object(_) => f64::NAN,
    }
}

fn equal(a: &JsonValue, b: &JsonValue) -> bool {
    match (a, b) {
        (JsonValue::Null, JsonValue::Null) => true,
        (JsonValue::Null, _) | (_, JsonValue::Null) => false,
        (JsonValue::Text(a), JsonValue::Text(b)) => a == b,
        #[allow(clippy::float_cmp)] // as it says
        _ => loose(a) == loose(b),
    }
}

fn less(a: &JsonValue, b: &JsonValue) -> bool {
    match (a, b) {
        (JsonValue::Text(a), JsonValue::Text(b)) => a < b,
        _ => loose(a) < loose(b),
    }
}

fn same(list: &[JsonValue]) -> bool {
    match list {
        [a, b, ..] => std::mem::discriminant(a) == std::mem::discriminant(b) && equal(a, b),
        _ => false,
    }
}

/// Whether an order holds of the first two; of exactly three arguments also of the last two.
fn compare(arguments: Arguments, holds: impl Fn(&JsonValue, &JsonValue) -> bool) -> Result<bool> {
    Ok(match arguments.list()?.as_slice() {
        [a, b, c] => holds(a, b) && holds(b, c),
        [a, b, ..] => holds(a, b),
        _ => false,
    })
}

fn fold(values: &[JsonValue], first: f64, with: impl Fn(f64, f64) -> f64) -> Result<f64> {
    let mut values = values.iter().map(number);
    values.try_fold(first, |sum, value| Ok(with(sum, value?)))
}

fn best(values: &[JsonValue], is_better: impl Fn(f64, f64) -> bool) -> Result<JsonValue> {
    let [first, rest @ ..] = values else {
        return Ok(JsonValue::Null);
    };
    let choose = |best, value| if is_better(best, value) { value } else { best };
    Ok(JsonValue::Number(fold(rest, number(first)?, choose)?))
}

fn is_in(arguments: &[JsonValue]) -> Result<bool> {
    let wanted = arguments.first().ok_or(RuleFailure)?;
    match (arguments.get(1), wanted) {
        (Some(JsonValue::Text(text)), JsonValue::Text(wanted)) => Ok(text.contains(&**wanted)),
        (Some(JsonValue::Text(_)), _) => Err(RuleFailure),
        (Some(JsonValue::List(list)), _) => {
            for element in list.iter() {
                let is_it = match (element, wanted) {
                    (JsonValue::List(range), _) => {
                        let [from, to, ..] = range.as_slice() else {
                            return Err(RuleFailure);
                        };
                        let wanted = number(wanted)?;
                        wanted >= number(from)? && number(to)? >= wanted
                    }
                    #[allow(clippy::float_cmp)] // as it says
                    (_, JsonValue::Number(wanted)) => number(element)? == *wanted,
                    _ => is_identical(element, wanted)?,
                };
                if is_it {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Whether two values are of one type and equal. Lists and objects cannot be compared.
fn is_identical(a: &JsonValue, b: &JsonValue) -> Result<bool> {
    match (a, b) {
        (JsonValue::List(_), JsonValue::List(_)) | (JsonValue::Object(_), JsonValue::Object(_)) => {
            Err(RuleFailure)
        }
        _ => Ok(a == b),
    }
}

/// Whether the first of two lists has every element of the second one, or any.
fn contains(arguments: &Arguments, every: bool) -> Result<bool> {
    let lists = match arguments {
        Arguments::List(list) => list.as_slice(),
        Arguments::One(_) => &[],
    };
    let [JsonValue::List(all), JsonValue::List(wanted)] = lists else {
        return Ok(false);
    };
    for wanted in wanted.iter() {
        let mut found = false;
        for element in all.iter() {
            found = is_identical(element, wanted)?;
            if found {
                break;
            }
        }
        if found != every {
            return Ok(found);
        }
    }
    Ok(every)
}

/// The text that a value is in another text.
pub(super) fn text(value: &JsonValue) -> Result<String> {
    match value {
        JsonValue::Null => Ok(String::new()),
        JsonValue::Number(number) => Ok(number::plain(*number)),
        JsonValue::Text(text) => Ok(text.to_string()),
        _ => Err(RuleFailure),
    }
}

/// The text that a version is; only texts and numbers can be one.
pub(super) fn shown(value: &JsonValue) -> Option<String> {
    match value {
        JsonValue::Text(text) => Some(text.to_string()),
        JsonValue::Number(number) => {
            let mut out = Vec::new();
            number::write(*number, &mut out);
            String::from_utf8(out).ok()
        }
        _ => None,
    }
}

fn cat(values: &[JsonValue]) -> Result<JsonValue> {
    let mut all = String::new();
    for value in values {
        all.push_str(&text(value)?);
    }
    // Go's operator trims what it joined, and not what stands alone.
    Ok(JsonValue::text(if values.len() > 1 {
        all.trim()
    } else {
        &all
    }))
}

fn substr(arguments: &[JsonValue]) -> Result<JsonValue> {
    let [subject, from, rest @ ..] = arguments else {
        return Err(RuleFailure);
    };
    let subject = text(subject)?;
    let count = i64::try_from(subject.chars().count()).unwrap_or(i64::MAX);
    let mut from = whole(number(from)?);
    if from < 0 {
        from = from.saturating_add(count);
    }
    if !(0..=count).contains(&from) {
        return Ok(JsonValue::text(&subject));
    }
    let length = match rest {
        [length] => whole(number(length)?),
        _ => count,
    };
    let to = match length < 0 {
        true => count.saturating_add(length),
        false => from.saturating_add(length).min(count),
    };
    if to < from {
        return Err(RuleFailure);
    }
    let place = |at: i64| usize::try_from(at).unwrap_or_default();
    let part = subject.chars().skip(place(from)).take(place(to - from));
    Ok(JsonValue::text(&part.collect::<String>()))
}

/// The whole number before the point.
pub(super) const fn whole(number: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation)] // what is beyond saturates
    {
        number as i64
    }
}

fn merge(values: Vec<JsonValue>) -> JsonValue {
    let mut merged = Vec::new();
    for value in values {
        match value {
            JsonValue::List(list) => merged.extend_from_slice(&list),
            value => merged.push(value),
        }
    }
    JsonValue::list(merged)
}

fn set(arguments: Vec<JsonValue>) -> Result<JsonValue> {
    let mut arguments = arguments.into_iter();
    let Some(object) = arguments.next() else {
        return Ok(JsonValue::Null);
    };
    match (&object, arguments.next(), arguments.next()) {
        (JsonValue::Object(members), Some(name), Some(value)) => {
            let name = name.as_text().ok_or(RuleFailure)?.clone();
            let mut members = members.to_vec();
            members.push((name, value));
            Ok(JsonValue::object(members))
        }
        _ => Ok(object),
    }
}

fn affix(arguments: &Arguments, holds: impl Fn(&str, &str) -> bool) -> Option<bool> {
    match arguments {
        Arguments::List(list) => match list.as_slice() {
            [JsonValue::Text(text), JsonValue::Text(affix)] => Some(holds(text, affix)),
            _ => None,
        },
        Arguments::One(_) => None,
    }
}
