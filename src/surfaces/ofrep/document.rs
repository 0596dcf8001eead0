//! A selection's definitions as they are compiled and kept here ([`crate::surfaces::evaluated`]).

use std::rc::Rc;

use super::flagd::{Compilation, Selection, SelectionCompiler};
use super::health::NAME;
use super::records;
use crate::hash::Sha256Hash;
use crate::surfaces::evaluated::CompiledRules;
use crate::surfaces::evaluated::document::EvaluatedDocument;
use crate::surfaces::evaluated::reads::LandedDocument;
use crate::tenant::Tenant;

/// One version of a selection's definitions.
pub type SelectionDocument = EvaluatedDocument<Selection>;

/// What a read came to.
pub type OfrepLanded = LandedDocument<Selection>;

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
