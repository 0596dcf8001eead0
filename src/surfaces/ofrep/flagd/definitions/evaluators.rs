//! `$evaluators`, and what refers to them.

use std::rc::Rc;

use super::UnfitDefinitions;
use crate::surfaces::ofrep::flagd::reader::MAX_DEPTH;
use crate::surfaces::ofrep::flagd::value::{JsonValue, Members};

/// Values that references may bring into the rules of one document.
pub const MAX_REFERRED: usize = 1 << 20;

/// The member that alone makes an object a reference.
const REF: &str = "$ref";

/// The evaluators of a document.
pub(super) struct Evaluators {
    all: JsonValue,
    referred_left: usize,
}

/// Why a rule's references are not resolved.
enum Unresolved {
    /// An evaluator refers to itself, or nests too deep: the rule cannot be evaluated.
    Endless,
    /// The document has too much of it.
    TooMuch,
}

impl Evaluators {
    /// Checks that none is empty.
    pub(super) fn new(members: Members) -> Result<Self, UnfitDefinitions> {
        let is_empty = |value: &JsonValue| match value {
            JsonValue::Object(members) => members.is_empty(),
            JsonValue::List(list) => list.is_empty(),
            JsonValue::Text(text) => text.is_empty(),
            _ => false,
        };
        if let Some((name, _)) = members.iter().find(|(_, value)| is_empty(value)) {
            let problem = format!("has {name:?}, which is empty");
            return Err(UnfitDefinitions::new("$evaluators", problem));
        }
        Ok(Self {
            all: JsonValue::object(members),
            referred_left: MAX_REFERRED,
        })
    }

    /// A rule with each reference replaced by what it refers to. One to nothing stays, and fails where it is reached. A rule that
    /// meets an evaluator in itself, or nests deeper than [`MAX_DEPTH`], becomes a reference to nothing.
    ///
    /// # Errors
    /// More than [`MAX_REFERRED`] values were brought in.
    pub(super) fn resolve(&mut self, rule: &JsonValue) -> Result<JsonValue, UnfitDefinitions> {
        match self.replaced(rule, &mut Vec::new(), 0) {
            Ok(rule) if rule.nests_within(MAX_DEPTH) => Ok(rule),
            Ok(_) | Err(Unresolved::Endless) => {
                Ok(JsonValue::object(vec![(REF.into(), JsonValue::Null)]))
            }
            Err(Unresolved::TooMuch) => {
                let problem = format!("refers to more than {MAX_REFERRED} values");
                Err(UnfitDefinitions::new("targeting", problem))
            }
        }
    }

    fn replaced(
        &mut self,
        rule: &JsonValue,
        within: &mut Vec<Rc<str>>,
        depth: u32,
    ) -> Result<JsonValue, Unresolved> {
        // Evaluators in evaluators may nest deeper than any text.
        if depth > 2 * MAX_DEPTH {
            return Err(Unresolved::Endless);
        }
        if !within.is_empty() {
            let left = self.referred_left.checked_sub(1);
            self.referred_left = left.ok_or(Unresolved::TooMuch)?;
        }
        match rule {
            JsonValue::Object(members) => {
                if let [(name, JsonValue::Text(target))] = members.as_slice()
                    && &**name == REF
                {
                    let Some(evaluator) = self.all.member(target).cloned() else {
                        return Ok(rule.clone());
                    };
                    if within.contains(target) {
                        return Err(Unresolved::Endless);
                    }
                    within.push(Rc::clone(target));
                    let value = self.replaced(&evaluator, within, depth + 1);
                    within.pop();
                    return value;
                }
                let mut replaced = Members::with_capacity(members.len());
                for (name, value) in members.iter() {
                    replaced.push((Rc::clone(name), self.replaced(value, within, depth + 1)?));
                }
                Ok(JsonValue::object(replaced))
            }
            JsonValue::List(list) => {
                let each = |value: &JsonValue| self.replaced(value, within, depth + 1);
                let list: Result<Vec<_>, _> = list.iter().map(each).collect();
                Ok(JsonValue::list(list?))
            }
            _ => Ok(rule.clone()),
        }
    }
}
