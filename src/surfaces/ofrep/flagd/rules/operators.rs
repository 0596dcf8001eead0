//! Operators that need nothing but their arguments.

use super::RuleFailure;
use super::operator::Operator;
use super::sem_ver;
use crate::surfaces::ofrep::flagd::number;
use crate::surfaces::ofrep::flagd::value::Value;

type Result<T> = std::result::Result<T, RuleFailure>;

/// What stands behind an operator: a list of arguments, or something else.
pub(super) enum Arguments {
    List(Vec<Value>),
    One(Value),
}

impl Arguments {
    /// The list, where only a list will do.
    fn list(self) -> Result<Vec<Value>> {
        match self {
            Self::List(list) => Ok(list),
            Self::One(_) => Err(RuleFailure),
        }
    }

    /// Steps that an operator takes for them.
    pub(super) fn cost(&self, operator: Operator) -> usize {
        let of = |value: &Value| match value {
            Value::Text(text) => text.len() / 16,
            Value::List(list) => list.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        match (operator, self) {
            // Each element is looked for in the other list.
            (
                Operator::ContainsAll | Operator::ContainsAny | Operator::ContainsNone,
                Self::List(list),
            ) => list
                .iter()
                .map(|value| of(value).max(1))
                .fold(1, usize::saturating_mul),
            (_, Self::List(list)) => list.iter().map(of).sum::<usize>() + list.len(),
            (_, Self::One(value)) => of(value),
        }
    }

    /// The list, or what is none as a list of one.
    fn many(self) -> Vec<Value> {
        match self {
            Self::List(list) => list,
            Self::One(value) => vec![value],
        }
    }
}

/// Evaluates an operator. Those that look into the data are not here.
pub(super) fn evaluate(operator: Operator, arguments: Arguments) -> Result<Value> {
    use Operator as O;
    let says = |truth: Option<bool>| truth.map_or(Value::Null, Value::Bool);
    Ok(match operator {
        O::Equal | O::NotEqual => {
            let equal = match arguments.list()?.as_slice() {
                [a, b, ..] => equal(a, b),
                _ => false,
            };
            Value::Bool(equal == (operator == O::Equal))
        }
        O::Same | O::NotSame => {
            let same = match &arguments {
                Arguments::List(list) => same(list),
                Arguments::One(_) => false,
            };
            Value::Bool(same == (operator == O::Same))
        }
        O::Less => Value::Bool(compare(arguments, less)?),
        O::LessOrEqual => Value::Bool(compare(arguments, |a, b| less(a, b) || equal(a, b))?),
        O::Greater => Value::Bool(compare(arguments, |a, b| less(b, a))?),
        O::GreaterOrEqual => Value::Bool(compare(arguments, |a, b| less(b, a) || equal(a, b))?),
        O::Not | O::Truth => {
            let truth = match &arguments {
                Arguments::List(list) => list.first().is_some_and(Value::is_true),
                Arguments::One(value) => value.is_true(),
            };
            Value::Bool(truth == (operator == O::Truth))
        }
        O::Add => Value::Number(fold(&arguments.many(), 0.0, |a, b| a + b)?),
        O::Multiply => Value::Number(fold(&arguments.list()?, 1.0, |a, b| a * b)?),
        O::Subtract => match arguments.list()?.as_slice() {
            [] => Value::Number(0.0),
            [one] => Value::Number(-number(one)?),
            [first, rest @ ..] => Value::Number(fold(rest, number(first)?, |a, b| a - b)?),
        },
        O::Divide => match arguments.list()?.as_slice() {
            [] => Value::Number(0.0),
            [first, rest @ ..] => Value::Number(fold(rest, number(first)?, |a, b| a / b)?),
        },
        O::Remainder => match arguments.list()?.as_slice() {
            [a, b, ..] => Value::Number(number(a)? % number(b)?),
            _ => return Err(RuleFailure),
        },
        O::Absolute => {
            let list = arguments.many();
            Value::Number(number(list.first().ok_or(RuleFailure)?)?.abs())
        }
        O::Min => best(&arguments.list()?, |a, b| b < a)?,
        O::Max => best(&arguments.list()?, |a, b| b > a)?,
        O::In => Value::Bool(is_in(&arguments.list()?)?),
        O::Cat => match arguments {
            Arguments::One(text @ Value::Text(_)) => text,
            arguments => cat(&arguments.list()?)?,
        },
        O::Substr => substr(&arguments.list()?)?,
        O::Merge => match arguments {
            Arguments::One(Value::Null | Value::Object(_)) => return Err(RuleFailure),
            arguments => merge(arguments.many()),
        },
        O::Set => set(arguments.list()?)?,
        O::ContainsAll => Value::Bool(contains(&arguments, true)?),
        O::ContainsAny => Value::Bool(contains(&arguments, false)?),
        O::ContainsNone => Value::Bool(!contains(&arguments, false)?),
        O::SemVer => match &arguments {
            Arguments::List(list) => says(sem_ver::evaluate(list)),
            Arguments::One(_) => Value::Null,
        },
        O::StartsWith => says(affix(&arguments, |text, affix| text.starts_with(affix))),
        O::EndsWith => says(affix(&arguments, |text, affix| text.ends_with(affix))),
        _ => return Err(RuleFailure),
    })
}

/// The number that arithmetic takes a value for; a text that is none is 0.
pub(super) fn number(value: &Value) -> Result<f64> {
    match value {
        Value::Number(number) => Ok(*number),
        Value::Text(text) => Ok(number::parse(text).unwrap_or_default()),
        _ => Err(RuleFailure),
    }
}

/// The number that comparisons take a value for.
fn loose(value: &Value) -> f64 {
    match value {
        Value::Null | Value::Bool(false) => 0.0,
        Value::Bool(true) => 1.0,
        Value::Number(number) => *number,
        Value::Text(text) if text.trim().is_empty() => 0.0,
        // A number out of range is none; `inf` is one.
        Value::Text(text) => number::parse(text)
            .filter(|number| number.is_finite() || !text.contains(|c: char| c.is_ascii_digit()))
            .unwrap_or(f64::NAN),
        Value::List(_) | Value::Object(_) => f64::NAN,
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Text(a), Value::Text(b)) => a == b,
        #[allow(clippy::float_cmp)] // as it says
        _ => loose(a) == loose(b),
    }
}

fn less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a < b,
        _ => loose(a) < loose(b),
    }
}

fn same(list: &[Value]) -> bool {
    match list {
        [a, b, ..] => std::mem::discriminant(a) == std::mem::discriminant(b) && equal(a, b),
        _ => false,
    }
}

/// Whether an order holds of the first two; of exactly three arguments also of the last two.
fn compare(arguments: Arguments, holds: impl Fn(&Value, &Value) -> bool) -> Result<bool> {
    Ok(match arguments.list()?.as_slice() {
        [a, b, c] => holds(a, b) && holds(b, c),
        [a, b, ..] => holds(a, b),
        _ => false,
    })
}

fn fold(values: &[Value], first: f64, with: impl Fn(f64, f64) -> f64) -> Result<f64> {
    let mut values = values.iter().map(number);
    values.try_fold(first, |sum, value| Ok(with(sum, value?)))
}

fn best(values: &[Value], is_better: impl Fn(f64, f64) -> bool) -> Result<Value> {
    let [first, rest @ ..] = values else {
        return Ok(Value::Null);
    };
    let choose = |best, value| if is_better(best, value) { value } else { best };
    Ok(Value::Number(fold(rest, number(first)?, choose)?))
}

fn is_in(arguments: &[Value]) -> Result<bool> {
    let wanted = arguments.first().ok_or(RuleFailure)?;
    match (arguments.get(1), wanted) {
        (Some(Value::Text(text)), Value::Text(wanted)) => Ok(text.contains(&**wanted)),
        (Some(Value::Text(_)), _) => Err(RuleFailure),
        (Some(Value::List(list)), _) => {
            for element in list.iter() {
                let is_it = match (element, wanted) {
                    (Value::List(range), _) => {
                        let [from, to, ..] = range.as_slice() else {
                            return Err(RuleFailure);
                        };
                        let wanted = number(wanted)?;
                        wanted >= number(from)? && number(to)? >= wanted
                    }
                    #[allow(clippy::float_cmp)] // as it says
                    (_, Value::Number(wanted)) => number(element)? == *wanted,
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
fn is_identical(a: &Value, b: &Value) -> Result<bool> {
    match (a, b) {
        (Value::List(_), Value::List(_)) | (Value::Object(_), Value::Object(_)) => Err(RuleFailure),
        _ => Ok(a == b),
    }
}

/// Whether the first of two lists has every element of the second one, or any.
fn contains(arguments: &Arguments, every: bool) -> Result<bool> {
    let lists = match arguments {
        Arguments::List(list) => list.as_slice(),
        Arguments::One(_) => &[],
    };
    let [Value::List(all), Value::List(wanted)] = lists else {
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
pub(super) fn text(value: &Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Number(number) => Ok(number::plain(*number)),
        Value::Text(text) => Ok(text.to_string()),
        _ => Err(RuleFailure),
    }
}

/// The text that a version is; only texts and numbers can be one.
pub(super) fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.to_string()),
        Value::Number(number) => {
            let mut out = Vec::new();
            number::write(*number, &mut out);
            String::from_utf8(out).ok()
        }
        _ => None,
    }
}

fn cat(values: &[Value]) -> Result<Value> {
    let mut all = String::new();
    for value in values {
        all.push_str(&text(value)?);
    }
    // Go's operator trims what it joined, and not what stands alone.
    Ok(Value::text(if values.len() > 1 {
        all.trim()
    } else {
        &all
    }))
}

fn substr(arguments: &[Value]) -> Result<Value> {
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
        return Ok(Value::text(&subject));
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
    Ok(Value::text(&part.collect::<String>()))
}

/// The whole number before the point.
pub(super) const fn whole(number: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation)] // what is beyond saturates
    {
        number as i64
    }
}

fn merge(values: Vec<Value>) -> Value {
    let mut merged = Vec::new();
    for value in values {
        match value {
            Value::List(list) => merged.extend_from_slice(&list),
            value => merged.push(value),
        }
    }
    Value::list(merged)
}

fn set(arguments: Vec<Value>) -> Result<Value> {
    let mut arguments = arguments.into_iter();
    let Some(object) = arguments.next() else {
        return Ok(Value::Null);
    };
    match (&object, arguments.next(), arguments.next()) {
        (Value::Object(members), Some(name), Some(value)) => {
            let name = name.as_text().ok_or(RuleFailure)?.clone();
            let mut members = members.to_vec();
            members.push((name, value));
            Ok(Value::object(members))
        }
        _ => Ok(object),
    }
}

fn affix(arguments: &Arguments, holds: impl Fn(&str, &str) -> bool) -> Option<bool> {
    match arguments {
        Arguments::List(list) => match list.as_slice() {
            [Value::Text(text), Value::Text(affix)] => Some(holds(text, affix)),
            _ => None,
        },
        Arguments::One(_) => None,
    }
}
