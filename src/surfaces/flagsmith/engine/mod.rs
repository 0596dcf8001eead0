//! Flagsmith's evaluation, for one environment document at a time: the document is compiled once, in slices
//! ([`Compiler`]), and then answers each request ([`Environment`]).
//!
//! It answers as Flagsmith's edge-proxy-rs with flagsmith-flag-engine 0.6.1 does. Where that proxy, Flagsmith's older
//! proxy and the SDKs in local evaluation disagree, these hold:
//!
//! - Variants are taken in the order of their ids, whatever order the document has, and hashed in 64 bits, as the SDKs do.
//! - Flags come in the order of their feature's id.
//! - A server key sees every feature ([`Sees::Everything`]).
//! - A whole number above `i64::MAX` is compared as a float.
//!
//! A float is read as serde_json reads it without `float_roundtrip`: of more than 15 digits the last one may come back as its
//! neighbour. The feature would add 43 KB to the filter. Native test builds have it, since a crate for tests asks for it.
//!
//! # Bounds
//! Whatever a document or a client sends, no call runs for long and nothing recurses deeper than JSON may nest.
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | nesting of a document, of a body | 127 | refused |
//! | one element (a feature state, a top rule, a member of its own) | [`MAX_ELEMENT`] | the document is refused |
//! | text of a pattern, a compiled pattern | [`pattern::MAX_TEXT`], [`pattern::MAX_COMPILED`] | the pattern matches nothing, see [`Environment::patterns_left_out`] |
//! | all compiled patterns of a document | [`pattern::MAX_ALL`] | the same, for those that come later |
//! | work of an evaluation: bytes searched and hashed | [`MAX_WORK`] | what is left matches nothing, see [`Flags::is_cut_short`] |
//!
//! # What is read of a document
//! What engine and proxy take is taken, and what they refuse is refused, with these exceptions. Refused, though the proxy
//! takes it: a repeated member (canonical JSON has none), a list in place of one of the objects that are split
//! (document, project, segment, identity). Refused, where the proxy panics: an identity's `created_date` that is no
//! RFC 3339 time.

mod compiler;
mod condition;
mod document;
mod environment;
mod evaluation;
mod hash;
mod identity;
mod path;
pub mod pattern;
mod place;
mod program;
mod scalar;
mod split;
mod state;
mod unfit;

#[cfg(test)]
mod tests;

pub use compiler::{Compiler, Progress};
pub use environment::Environment;
pub use evaluation::{Flag, Flags, MAX_WORK, Sees};
pub use identity::{BodyProblem, IdentityRequest, IdentityTrait, parse_identity};
pub use scalar::{Scalar, TraitValue};
pub use split::MAX_ELEMENT;
pub use unfit::Unfit;
