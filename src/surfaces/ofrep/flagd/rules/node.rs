//! A rule as a tree.

use super::operator::Operator;
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// A part of a rule.
#[derive(Debug)]
pub(super) enum Node {
    /// A value as it stands.
    Constant(JsonValue),
    /// A list with something to evaluate.
    List(Box<[Node]>),
    /// What a path leads to.
    Var(Box<Path>),
    /// An operator with a list of arguments.
    Call(Operator, Box<[Node]>),
    /// An operator whose argument is no list in the rule; its value may be one.
    Unary(Operator, Box<Node>),
    /// Nothing that can be evaluated.
    Failure,
}

/// The argument of a `var` that is known beforehand.
#[derive(Debug)]
pub(super) struct Path {
    /// Names of members, and indices; none: the data as a whole.
    pub parts: Box<[Box<str>]>,
    /// Whether an element of a list is looked into alone ([`is_inner`]).
    pub is_inner: bool,
    /// What holds where nothing is there.
    pub default: Option<Node>,
}

impl Node {
    /// Compiles a rule, or a part of one. Recurses as deep as it nests.
    pub(super) fn new(rule: &JsonValue) -> Self {
        match rule {
            JsonValue::List(list) => {
                let nodes = Self::each(list);
                // What evaluates to itself is kept as it is.
                match nodes.iter().all(|node| matches!(node, Self::Constant(_))) {
                    true => Self::Constant(rule.clone()),
                    false => Self::List(nodes),
                }
            }
            JsonValue::Object(members) => match members.as_slice() {
                [(name, arguments)] => Self::call(name, arguments),
                _ => Self::Constant(rule.clone()),
            },
            _ => Self::Constant(rule.clone()),
        }
    }

    fn each(values: &[JsonValue]) -> Box<[Self]> {
        values.iter().map(Self::new).collect()
    }

    fn call(name: &str, arguments: &JsonValue) -> Self {
        let Some(operator) = Operator::named(name) else {
            return Self::Failure;
        };
        match (operator, arguments) {
            (Operator::Var, _) => Path::new(arguments).map_or_else(
                || Self::plain(operator, arguments),
                |path| Self::Var(Box::new(path)),
            ),
            (_, JsonValue::List(list)) if operator.is_of_lists() => {
                Self::Call(operator, Self::of_lists(operator, list))
            }
            (Operator::And | Operator::Or | Operator::If, JsonValue::List(_)) => {
                Self::plain(operator, arguments)
            }
            (Operator::And | Operator::Or | Operator::If, _) => Self::Failure,
            _ if operator.is_of_lists() => Self::Failure,
            _ => Self::plain(operator, arguments),
        }
    }

    fn plain(operator: Operator, arguments: &JsonValue) -> Self {
        match arguments {
            JsonValue::List(list) => Self::Call(operator, Self::each(list)),
            value => Self::Unary(operator, Box::new(Self::new(value))),
        }
    }

    /// The arguments of an operator of lists. A list in the rule is data; of all else only an operator gives one.
    fn of_lists(operator: Operator, arguments: &[JsonValue]) -> Box<[Self]> {
        let argument = |(place, value): (usize, &JsonValue)| match (place, value) {
            (0, JsonValue::Object(_)) | (2, JsonValue::Object(_)) => Self::new(value),
            (0, JsonValue::List(_)) | (2, _) => Self::Constant(value.clone()),
            (0, _) => Self::Constant(JsonValue::Null),
            (1, JsonValue::Object(_)) => Self::new(value),
            (1, _) if matches!(operator, Operator::Map | Operator::Filter) => Self::new(value),
            _ => Self::Failure,
        };
        arguments.iter().enumerate().map(argument).collect()
    }
}

impl Path {
    /// The path of a `var` with this argument; `None` where it has to be evaluated.
    fn new(argument: &JsonValue) -> Option<Self> {
        let (path, default) = match argument {
            JsonValue::Text(path) => (path, None),
            JsonValue::List(list) => match list.as_slice() {
                [JsonValue::Text(path)] => (path, None),
                [JsonValue::Text(path), default] => (path, Some(Node::new(default))),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self {
            parts: parts(path).map(Box::from).collect(),
            is_inner: is_inner(argument),
            default,
        })
    }
}

/// Whether a `var` with this argument looks into an element of a list alone: `""`, or a leading dot.
pub(super) fn is_inner(argument: &JsonValue) -> bool {
    matches!(argument, JsonValue::Text(path) if path.is_empty() || path.starts_with('.'))
}

/// The parts of a path: what is between dots, without empty ones.
pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|part| !part.is_empty())
}
