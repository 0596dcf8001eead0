//! Flags as flagd 0.16 defines and evaluates them: from definitions to the bodies of answers.
//!
//! | room | job |
//! |---|---|
//! | [`definitions`] | flagd's documents: read, checked, merged; one text for each [`Selector`] that selects something |
//! | [`compiler`], [`selection`] | such a text, compiled in slices, and what it says of a flag |
//! | [`rules`] | targeting: JSONLogic and flagd's own operators |
//! | [`selector`], [`context`] | what is asked, and by whom |
//! | [`answers`], [`mod@tag`] | bodies of answers; the entity tag of a bulk answer |
//! | [`value`], [`reader`], [`partial`], [`number`] | JSON, read exactly and written canonically, in slices where it is long |
//!
//! # Bounds
//! | bound | value | beyond it |
//! |---|---|---|
//! | nesting of a body; of a rule | [`MAX_DEPTH`] | 400 `INVALID_CONTEXT`; the flag's `PARSE_ERROR` |
//! | steps of a flag's rule | [`MAX_STEPS`] | the flag's `PARSE_ERROR` |
//! | one flag in a text | [`MAX_FLAG`] | the definitions, or the text, are refused |
//! | what `$ref` brings into a document | [`MAX_REFERRED`] | the definitions are refused |
//! | a selector | [`MAX_SELECTOR`] | 400 |

pub mod answers;
pub mod compiler;
pub mod context;
pub mod definitions;
mod number;
mod partial;
mod reader;
pub mod rules;
pub mod selection;
pub mod selector;
pub mod tag;
mod value;

#[cfg(test)]
pub(in crate::surfaces::ofrep) mod tests;

pub use answers::{FlagAnswer, PartialAnswer};
pub use compiler::{Compilation, MAX_FLAG, SelectionCompiler};
pub use context::{EvaluationContext, InvalidContext, PartialContext};
pub use definitions::{FlagdDocument, MAX_REFERRED, UnfitDefinitions, selections};
pub use reader::{MAX_DEPTH, NotJson};
pub use rules::{Fractional, MAX_STEPS};
pub use selection::Selection;
pub use selector::{BadSelector, MAX_SELECTOR, Selector};
pub use tag::tag;
pub use value::{JsonValue, Members};
