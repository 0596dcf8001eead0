//! Targeting rules: JSONLogic as flagd evaluates it (jsonlogic/v3 3.9 in Go), with flagd's own operators.
//!
//! A rule is compiled once ([`TargetingRule`]). Evaluating it recurses as deep as the rule nests, at most
//! [`MAX_DEPTH`](super::MAX_DEPTH), and takes a bounded number of steps ([`MAX_STEPS`]).
//!
//! Where it differs from flagd: an object or a list that came from the context is data, and is never run as a rule; only decimal
//! digits in texts are numbers, without underscores; -0 is written 0.

mod cbor;
mod evaluation;
mod fractional;
mod lists;
mod murmur;
mod node;
mod operator;
mod operators;
mod sem_ver;
mod time;

pub use evaluation::{MAX_STEPS, RuleEvaluation};
pub use fractional::Fractional;

use self::node::Node;
use super::reader::MAX_DEPTH;
use super::value::JsonValue;

/// A compiled rule.
#[derive(Debug)]
pub struct TargetingRule {
    node: Node,
    reads_time: bool,
}

impl TargetingRule {
    /// Compiles a rule. One that nests deeper than [`MAX_DEPTH`] always fails. An operator that is not known fails where it is
    /// reached, as in flagd.
    pub fn new(rule: &JsonValue) -> Self {
        if !rule.nests_within(MAX_DEPTH) {
            return Self {
                node: Node::Failure,
                reads_time: false,
            };
        }
        Self {
            node: Node::new(rule),
            reads_time: time::is_read(rule),
        }
    }

    /// Whether its result may change with time alone.
    pub const fn reads_time(&self) -> bool {
        self.reads_time
    }
}

/// A rule that cannot be evaluated: the flag's `PARSE_ERROR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleFailure;
