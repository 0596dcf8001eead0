//! A selection's definitions as they are compiled and kept here ([`crate::surfaces::evaluated`]).

use std::rc::Rc;

use super::flagd::{Compilation, EvaluationContext, InvalidContext, Selection, SelectionCompiler};
use super::health::NAME;
use super::long::LongName;
use super::records;
use crate::hash::Sha256Hash;
use crate::surfaces::Read;
use crate::surfaces::evaluated::CompiledRules;
use crate::surfaces::evaluated::document::EvaluatedDocument;
use crate::surfaces::evaluated::kept_answers::AnswerForms;
use crate::surfaces::evaluated::reads::{DocumentRead, LandedDocument};
use crate::tenant::Tenant;

/// One version of a selection's definitions.
pub type SelectionDocument = EvaluatedDocument<Selection>;

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OfrepRead {
    /// Definitions.
    Document(DocumentRead),
    /// The context of a long body, by its number.
    Context(u64),
    /// All flags of a long selection.
    Answer(LongName),
}

impl Read for OfrepRead {
    fn unconditional(&self) -> Option<Self> {
        match self {
            Self::Document(read) => read.unconditional().map(Self::Document),
            Self::Context(_) | Self::Answer(_) => None,
        }
    }
}

/// What that came to.
pub enum OfrepLanded {
    /// Definitions.
    Document(LandedDocument<Selection>),
    /// A context, and the bytes that it takes.
    Context(Result<EvaluationContext, InvalidContext>, usize),
    /// An answer, and the digest that is its tag.
    Answer(AnswerForms, Sha256Hash),
}

/// Flags that are freed in one slice.
const FREED_AT_ONCE: usize = 500;

/// The text of a selection that no flag is in.
pub const EMPTY: &[u8] = br#"{"flags":[]}"#;

impl CompiledRules for Selection {
    type Compiler = SelectionCompiler;

    const TENANT: &'static str = "selection";

    const SECTION: &'static str = NAME;

    fn document_key(prefix: &str, tenant: Tenant) -> String {
        records::document_key(prefix, tenant)
    }

    fn version_hash(tenant: Tenant) -> Sha256Hash {
        records::version_hash(tenant)
    }

    fn compiler(text: Rc<Vec<u8>>) -> SelectionCompiler {
        SelectionCompiler::new(text)
    }

    fn step(compiler: &mut SelectionCompiler, budget: usize) -> Option<Result<Box<Self>, String>> {
        match compiler.step(budget) {
            Compilation::More => None,
            Compilation::Done(selection) => Some(Ok(selection)),
            Compilation::Unfit(unfit) => Some(Err(unfit.to_string())),
        }
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }

    fn shrink(&mut self) -> bool {
        self.drop_flags(FREED_AT_ONCE)
    }
}
