//! Which rules read the time.

use super::node::{is_inner, parts};
use super::operator::Operator;
use crate::surfaces::ofrep::flagd::context::FLAGD;
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// Whether a rule may read `$flagd.timestamp`: an argument of `var`, `missing` or `missing_some` leads there, or to all that
/// it is in, or is computed. Recurses as deep as the rule nests.
pub(super) fn is_read(rule: &JsonValue) -> bool {
    reads(rule, false)
}

/// `of_element`: whether `{"var": ""}` is an element of a list, which no time is in.
fn reads(rule: &JsonValue, of_element: bool) -> bool {
    match rule {
        JsonValue::List(list) => list.iter().any(|rule| reads(rule, of_element)),
        JsonValue::Object(members) => match members.as_slice() {
            [(name, arguments)] => {
                let is_of_lists = Operator::named(name).is_some_and(Operator::is_of_lists);
                if let (true, JsonValue::List(list)) = (is_of_lists, arguments) {
                    let mut parts = list.iter().enumerate();
                    return parts.any(|(place, part)| reads(part, of_element || place == 1));
                }
                let is_var = &**name == "var";
                let leads = match &**name {
                    "var" if of_element && is_inner(arguments) => false,
                    "var" => is_path_to_time(first(arguments)),
                    "missing" => any(arguments, is_path_to_time),
                    // Its paths are in a list of their own, behind a number.
                    "missing_some" => any(arguments, |paths| any(paths, is_path_to_time)),
                    _ => false,
                };
                // What a `var` falls back on may be looked up outside of the list.
                leads || reads(arguments, of_element && !is_var)
            }
            _ => false,
        },
        _ => false,
    }
}

fn first(arguments: &JsonValue) -> &JsonValue {
    match arguments {
        JsonValue::List(list) => list.first().unwrap_or(&JsonValue::Null),
        value => value,
    }
}

fn any(arguments: &JsonValue, test: impl Fn(&JsonValue) -> bool) -> bool {
    match arguments {
        JsonValue::List(list) => list.iter().any(test),
        value => test(value),
    }
}

fn is_path_to_time(path: &JsonValue) -> bool {
    match path {
        JsonValue::Text(path) => {
            let mut parts = parts(path);
            match (parts.next(), parts.next()) {
                (None, _) | (Some(FLAGD), None) => true,
                (Some(FLAGD), Some(name)) => name.starts_with("timestamp"),
                _ => false,
            }
        }
        // A number is an index or a name, and names neither.
        JsonValue::Number(_) | JsonValue::Bool(_) => false,
        // No path at all is all data; what is computed may be any path.
        JsonValue::Null | JsonValue::List(_) | JsonValue::Object(_) => true,
    }
}
