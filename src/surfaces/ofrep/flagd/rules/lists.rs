//! Operators that evaluate a rule for each element of a list.

use super::RuleFailure;
use super::evaluation::{Result, RuleEvaluation, Scope};
use super::node::Node;
use super::operator::Operator;
use super::operators::{number, text, text_size};
use crate::surfaces::ofrep::flagd::value::JsonValue;

impl RuleEvaluation {
    /// Evaluates one of them.
    pub(super) fn of_list(
        &mut self,
        operator: Operator,
        nodes: &[Node],
        scope: &Scope<'_>,
    ) -> Result<JsonValue> {
        let rule = nodes.get(1);
        let is_made = matches!(operator, Operator::Map | Operator::Filter);
        if rule.is_none() && is_made {
            return Ok(JsonValue::list(Vec::new()));
        }
        if operator == Operator::Reduce {
            return self.reduce(nodes, scope);
        }
        let subject = nodes.first().ok_or(RuleFailure)?;
        let subject = self.node(subject, scope)?;
        // Of what is empty nothing holds; all else that is no list has no elements.
        let nothing = match is_made {
            true => JsonValue::list(Vec::new()),
            false => JsonValue::Bool(operator == Operator::None),
        };
        let elements = match subject {
            JsonValue::List(elements) if !elements.is_empty() => elements,
            JsonValue::List(_) | JsonValue::Null => return Ok(nothing),
            subject if !subject.is_true() && !is_made => return Ok(nothing),
            _ => return Err(RuleFailure),
        };
        let mut result = Vec::new();
        for element in elements.iter() {
            self.take(1)?;
            let rule = rule.ok_or(RuleFailure)?;
            let outer = match operator {
                Operator::Map | Operator::All => scope.outer,
                _ => Some(scope),
            };
            let inner = Scope {
                data: element,
                outer,
            };
            let value = match (operator, rule) {
                (Operator::All | Operator::None | Operator::Some, Node::Var(_)) => {
                    self.replaced(operator, rule, &inner)?
                }
                _ => self.node(rule, &inner)?,
            };
            match operator {
                Operator::Map => result.push(value),
                Operator::Filter if value.is_true() => result.push(element.clone()),
                Operator::Filter => {}
                // One element decides: of `all` one that does not hold, of the others one that does.
                _ if value.is_true() != (operator == Operator::All) => {
                    return Ok(JsonValue::Bool(operator == Operator::Some));
                }
                _ => {}
            }
        }
        Ok(match is_made {
            true => JsonValue::list(result),
            false => JsonValue::Bool(operator != Operator::Some),
        })
    }

    /// The value of a rule that is a `var` alone. flagd puts what it leads to in its place, which is no rule then, and fails.
    fn replaced(
        &mut self,
        operator: Operator,
        rule: &Node,
        inner: &Scope<'_>,
    ) -> Result<JsonValue> {
        let Node::Var(path) = rule else {
            return Err(RuleFailure);
        };
        if path.is_inner {
            return self.var(path, inner);
        }
        let replaced = match (operator, inner.outer) {
            (Operator::None, Some(outer)) => self.var(path, outer)?,
            _ => self.var(path, inner)?,
        };
        match &replaced {
            JsonValue::Null => self.var(path, inner),
            // What is no operator stands for itself.
            JsonValue::Object(members) if members.len() != 1 => Ok(replaced),
            _ => Err(RuleFailure),
        }
    }

    fn reduce(&mut self, nodes: &[Node], scope: &Scope<'_>) -> Result<JsonValue> {
        let [subject, rule, initial, ..] = nodes else {
            return Ok(JsonValue::Number(0.0));
        };
        let initial = self.node(initial, scope)?;
        let kind = match &initial {
            JsonValue::Bool(_) => "bool",
            JsonValue::Number(_) => "number",
            JsonValue::Text(_) => "string",
            _ => return Err(RuleFailure),
        };
        let elements = match self.node(subject, scope)? {
            JsonValue::List(elements) => elements,
            JsonValue::Null => return Ok(JsonValue::Number(0.0)),
            _ => return Err(RuleFailure),
        };
        let mut accumulator = initial;
        for element in elements
            .iter()
            .filter(|element| **element != JsonValue::Null)
        {
            self.take(1)?;
            let data = JsonValue::object(vec![
                ("accumulator".into(), accumulator),
                ("current".into(), element.clone()),
                ("valueType".into(), JsonValue::text(kind)),
            ]);
            let inner = Scope {
                data: &data,
                outer: scope.outer,
            };
            let value = self.node(rule, &inner)?;
            // It is read as a number, or copied as a text.
            self.take(text_size(&value))?;
            accumulator = match kind {
                "bool" => JsonValue::Bool(value.is_true()),
                "number" => JsonValue::Number(number(&value)?),
                _ => JsonValue::text(&text(&value)?),
            };
        }
        Ok(accumulator)
    }
}
