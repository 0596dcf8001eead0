//! Rules as a program without recursion: each step tests one condition, and names the step that follows a hit and the one
//! that follows a miss. A step only ever names earlier ones, so a run ends after each step was taken once, at most.

use super::condition::Demand;
use super::document::{ConditionText, RuleText};
use super::path::FeaturePart;

/// Where a run ends: the rule holds, or it does not.
pub(super) const HOLDS: u32 = u32::MAX;
/// See [`HOLDS`].
pub(super) const FAILS: u32 = u32::MAX - 1;

/// One condition, and what follows.
#[derive(Debug)]
pub(super) struct Step {
    /// What is looked at.
    pub source: Source,
    /// What is demanded of it.
    pub demand: Demand,
    /// What follows when that is met: a step before this one, [`HOLDS`] or [`FAILS`].
    pub hit: u32,
    /// What follows when it is not.
    pub miss: u32,
}

/// What a condition looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// A place, which comes first.
    pub place: Option<Spot>,
    /// The trait of this number. `None`: the condition names no property.
    pub slot: Option<u32>,
}

/// A place, with numbers in place of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    EnvironmentKey,
    EnvironmentName,
    Identifier,
    IdentityKey,
    /// The trait of this number.
    Trait(u32),
    /// A part of the feature of this number.
    Feature(u32, FeaturePart),
}

/// A rule's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Any,
    None,
}

impl Kind {
    fn of(rule: &RuleText<'_>) -> Self {
        match rule.kind.as_ref() {
            "ANY" => Self::Any,
            "NONE" => Self::None,
            _ => Self::All,
        }
    }

    /// Chains parts from the last to the first, each by its hit and its miss; `hold` and `fail` follow the whole.
    fn chain<P>(
        self,
        parts: impl DoubleEndedIterator<Item = P>,
        hold: u32,
        fail: u32,
        mut add: impl FnMut(P, u32, u32) -> u32,
    ) -> u32 {
        let end = if self == Self::Any { fail } else { hold };
        parts.rev().fold(end, |next, part| match self {
            Self::All => add(part, next, fail),
            Self::Any => add(part, hold, next),
            Self::None => add(part, fail, next),
        })
    }
}

/// Adds a rule's steps, through `condition` for each of them, and returns its first. Conditions come before sub-rules; both
/// have to hold by the rule's type, and what is empty does. Recurses as deep as the rule nests, which its reader bounds.
pub(super) fn add(
    rule: &RuleText<'_>,
    hold: u32,
    fail: u32,
    condition: &mut impl FnMut(&ConditionText<'_>, u32, u32) -> u32,
) -> u32 {
    let kind = Kind::of(rule);
    let mut next = hold;
    if !rule.rules.is_empty() {
        next = kind.chain(rule.rules.iter(), hold, fail, |sub, hit, miss| {
            add(sub, hit, miss, &mut *condition)
        });
    }
    if !rule.conditions.is_empty() {
        next = kind.chain(rule.conditions.iter(), next, fail, &mut *condition);
    }
    next
}
