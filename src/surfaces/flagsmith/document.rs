//! An environment's document as it is compiled and kept here ([`crate::surfaces::evaluated`]).

use std::rc::Rc;

use super::engine::{Compiler, Environment, Progress};
use super::health::NAME;
use super::records;
use crate::hash::Sha256Hash;
use crate::surfaces::evaluated::CompiledRules;
use crate::surfaces::evaluated::document::EvaluatedDocument;
use crate::surfaces::evaluated::reads::{DocumentRead, LandedDocument};
use crate::tenant::Tenant;

/// One version of an environment's document.
pub type EnvironmentDocument = EvaluatedDocument<Environment>;

/// What has to be read.
pub type FlagsmithRead = DocumentRead;

/// What a read came to.
pub type FlagsmithLanded = LandedDocument<Environment>;

impl CompiledRules for Environment {
    type Compiler = Compiler;

    const TENANT: &'static str = "environment";

    const SECTION: &'static str = NAME;

    fn document_key(prefix: &str, tenant: Tenant) -> String {
        records::document_key(prefix, tenant)
    }

    fn version_hash(tenant: Tenant) -> Sha256Hash {
        records::version_hash(tenant)
    }

    fn compiler(text: Rc<Vec<u8>>) -> Compiler {
        Compiler::new(text)
    }

    fn step(compiler: &mut Compiler, budget: usize) -> Option<Result<Box<Self>, String>> {
        match compiler.step(budget) {
            Progress::More => None,
            Progress::Done(rules) => Some(Ok(rules)),
            Progress::Unfit(unfit) => Some(Err(unfit.to_string())),
        }
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}
