//! Evaluating rules.

use super::fractional::Fractional;
use super::node::{Node, Path, parts};
use super::operator::Operator;
use super::operators::{self, Arguments, number, text, text_size, whole};
use super::{RuleFailure, TargetingRule};
use crate::surfaces::ofrep::flagd::number as numbers;
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// Steps that the rule of one flag may take: a part of a rule that is evaluated, an element that is looked at, 16 bytes of
/// text, also of that which is made of a number. They take 4 ms natively. A rule that needs more fails, alone and among all flags of a selection.
pub const MAX_STEPS: usize = 200_000;

pub(super) type Result<T> = std::result::Result<T, RuleFailure>;

/// How the rules of one request are evaluated.
#[derive(Debug)]
pub struct RuleEvaluation {
    fractional: Fractional,
    /// Of the rule that is evaluated.
    steps_left: usize,
    /// What all rules took together.
    taken: usize,
}

/// What a rule looks into.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    /// The context, or an element of a list.
    pub data: &'s JsonValue,
    /// What a `var` is looked up in first: flagd replaces those in the rule of `filter`, `none` and `some` by what they are
    /// outside of the list, before it looks at an element.
    pub outer: Option<&'s Scope<'s>>,
}

impl RuleEvaluation {
    /// No rule is evaluated yet.
    pub const fn new(fractional: Fractional) -> Self {
        Self {
            fractional,
            steps_left: 0,
            taken: 0,
        }
    }

    /// The result of a rule for a context that has `$flagd`: JSON, whose text the steps cover as well.
    ///
    /// # Errors
    /// flagd fails as well, or the steps are used up.
    pub fn evaluate(&mut self, rule: &TargetingRule, context: &JsonValue) -> Result<JsonValue> {
        let scope = Scope {
            data: context,
            outer: None,
        };
        self.steps_left = MAX_STEPS;
        let result = self.node(&rule.node, &scope)?;
        self.weigh(&result)?;
        Some(result).filter(JsonValue::is_json).ok_or(RuleFailure)
    }

    /// How many steps all rules took.
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Takes the steps of looking at all of a value.
    fn weigh(&mut self, value: &JsonValue) -> Result<()> {
        self.take(1)?;
        match value {
            JsonValue::Text(text) => self.take(text.len() / 16),
            JsonValue::List(list) => list.iter().try_for_each(|value| self.weigh(value)),
            JsonValue::Object(members) => members.iter().try_for_each(|(name, value)| {
                self.take(name.len() / 16)?;
                self.weigh(value)
            }),
            _ => Ok(()),
        }
    }

    /// Takes steps.
    pub(super) fn take(&mut self, steps: usize) -> Result<()> {
        let left = self.steps_left.checked_sub(steps);
        self.taken = self.taken.saturating_add(steps.min(self.steps_left));
        self.steps_left = left.unwrap_or_default();
        left.map(|_| ()).ok_or(RuleFailure)
    }

    pub(super) fn node(&mut self, node: &Node, scope: &Scope<'_>) -> Result<JsonValue> {
        self.take(1)?;
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::List(nodes) => Ok(JsonValue::list(self.each(nodes, scope)?)),
            Node::Var(path) => self.var(path, scope),
            Node::Call(operator, nodes) => match operator {
                Operator::And | Operator::Or | Operator::If => self.branch(*operator, nodes, scope),
                operator if operator.is_of_lists() => self.of_list(*operator, nodes, scope),
                operator => {
                    let list = self.each(nodes, scope)?;
                    self.call(*operator, Arguments::List(list), scope)
                }
            },
            Node::Unary(operator, node) => {
                let arguments = match self.node(node, scope)? {
                    JsonValue::List(list) => Arguments::List(list.to_vec()),
                    value => Arguments::One(value),
                };
                self.call(*operator, arguments, scope)
            }
            Node::Failure => Err(RuleFailure),
        }
    }

    fn each(&mut self, nodes: &[Node], scope: &Scope<'_>) -> Result<Vec<JsonValue>> {
        nodes.iter().map(|node| self.node(node, scope)).collect()
    }

    fn branch(
        &mut self,
        operator: Operator,
        nodes: &[Node],
        scope: &Scope<'_>,
    ) -> Result<JsonValue> {
        if operator == Operator::If {
            for clause in nodes.chunks(2) {
                match clause {
                    [condition, then] if self.node(condition, scope)?.is_true() => {
                        return self.node(then, scope);
                    }
                    [otherwise] => return self.node(otherwise, scope),
                    _ => {}
                }
            }
            return Ok(JsonValue::Null);
        }
        let mut last = JsonValue::Null;
        for node in nodes {
            last = self.node(node, scope)?;
            if last.is_true() == (operator == Operator::Or) {
                break;
            }
        }
        Ok(last)
    }

    fn call(
        &mut self,
        operator: Operator,
        arguments: Arguments,
        scope: &Scope<'_>,
    ) -> Result<JsonValue> {
        self.take(arguments.cost(operator))?;
        match (operator, arguments) {
            (Operator::Var, arguments) => get(arguments, scope.data),
            (Operator::Missing, Arguments::List(names)) => self.missing(names, scope.data, None),
            (Operator::Missing, Arguments::One(name @ JsonValue::Text(_))) => {
                self.missing(vec![name], scope.data, None)
            }
            (Operator::MissingSome, Arguments::List(list)) => match list.as_slice() {
                [least, JsonValue::List(names), ..] => {
                    let least = whole(number(least)?);
                    self.missing(names.to_vec(), scope.data, Some(least))
                }
                _ => Err(RuleFailure),
            },
            (Operator::Fractional, Arguments::List(list)) => {
                if let [value @ JsonValue::Object(_), ..] = list.as_slice() {
                    self.weigh(value)?;
                }
                let (variant, hashed) = self.fractional.evaluate(&list, scope.data);
                self.take(hashed / 16)?;
                Ok(variant.unwrap_or(JsonValue::Null))
            }
            (Operator::Fractional, Arguments::One(_)) => Ok(JsonValue::Null),
            (operator, arguments) => operators::evaluate(operator, arguments),
        }
    }

    /// The names that lead to nothing; none where at least this many lead to something.
    fn missing(
        &mut self,
        names: Vec<JsonValue>,
        data: &JsonValue,
        least: Option<i64>,
    ) -> Result<JsonValue> {
        let all = names.len();
        let mut missing = Vec::new();
        for name in names {
            self.take(1 + text_size(&name))?;
            if get(Arguments::from(name.clone()), data)? == JsonValue::Null {
                missing.push(name);
            }
        }
        let found = i64::try_from(all - missing.len()).unwrap_or(i64::MAX);
        if least.is_some_and(|least| least <= found) {
            missing.clear();
        }
        Ok(JsonValue::list(missing))
    }

    /// What a path leads to, where it leads somewhere first.
    pub(super) fn var(&mut self, path: &Path, scope: &Scope<'_>) -> Result<JsonValue> {
        self.take(path.parts.len())?;
        if !path.is_inner
            && let Some(outer) = scope.outer
        {
            let value = self.var(path, outer)?;
            if value != JsonValue::Null {
                return Ok(value);
            }
        }
        let default = match &path.default {
            // In a rule of its own: nothing outside of the element is looked into.
            Some(node) => {
                let scope = Scope {
                    data: scope.data,
                    outer: None,
                };
                self.node(node, &scope)?
            }
            None => JsonValue::Null,
        };
        Ok(follow(path.parts.iter().map(|part| &**part), scope.data).unwrap_or(default))
    }
}

impl From<JsonValue> for Arguments {
    fn from(value: JsonValue) -> Self {
        match value {
            JsonValue::List(list) => Self::List(list.to_vec()),
            value => Self::One(value),
        }
    }
}

/// What a computed `var` leads to.
fn get(arguments: Arguments, data: &JsonValue) -> Result<JsonValue> {
    let (path, default) = match arguments {
        Arguments::List(list) => match list.as_slice() {
            [] => return Ok(data.clone()),
            [JsonValue::Text(path), rest @ ..] => {
                let default = match rest {
                    [default] => default.clone(),
                    _ => JsonValue::Null,
                };
                (path.to_string(), default)
            }
            _ => return Err(RuleFailure),
        },
        Arguments::One(JsonValue::Null) => {
            return Ok(match data {
                JsonValue::List(_) | JsonValue::Object(_) => JsonValue::Null,
                data => data.clone(),
            });
        }
        Arguments::One(path @ (JsonValue::Text(_) | JsonValue::Number(_))) => {
            (text(&path)?, JsonValue::Null)
        }
        Arguments::One(_) => return Err(RuleFailure),
    };
    Ok(follow(parts(&path), data).unwrap_or(default))
}

/// Goes down a path; `None` where nothing, or null, is there.
fn follow<'p>(path: impl Iterator<Item = &'p str>, data: &JsonValue) -> Option<JsonValue> {
    let mut value = data;
    for part in path {
        value = match value {
            JsonValue::List(list) => {
                // What is no number is 0 to Go.
                let place = numbers::parse(part).unwrap_or_default();
                list.get(usize::try_from(whole(place)).ok()?)?
            }
            value => value.member(part)?,
        };
        if *value == JsonValue::Null {
            return None;
        }
    }
    Some(value.clone()).filter(|value| *value != JsonValue::Null)
}
