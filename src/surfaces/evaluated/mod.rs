//! What surfaces share that evaluate flags here: a document for each tenant, which the publisher writes into Redis, compiled and
//! kept by each worker. No product is known here; a surface says by [`CompiledRules`] what its documents become.
//!
//! | room | job |
//! |---|---|
//! | [`library`] | the documents of one surface: which version is current, what has to be read, what answers meanwhile |
//! | [`admission`] | who is admitted, and when somebody may be refused |
//! | [`reads`], [`document`] | a document out of Redis: text and rules together, compiled in slices |
//! | [`slices`] | how much of it one callback does |
//! | `intake` | what becomes of a document that was read |
//! | [`kept_answers`] | answers to equal questions |
//! | [`records`] | records in shared data, of later releases as well |
//! | [`bodies`], [`counts`] | what a body costs; what is counted |

use std::fmt;
use std::rc::Rc;

use crate::hash::Sha256Hash;
use crate::tenant::Tenant;

pub mod admission;
pub mod bodies;
pub mod counts;
pub mod document;
mod intake;
pub mod kept_answers;
pub mod library;
pub mod reads;
pub mod records;
pub mod slices;

/// Rules that a text is compiled to, and what their surface calls things.
pub trait CompiledRules: fmt::Debug + Sized {
    /// Compiles a text.
    type Compiler;

    /// What a tenant is called in the log.
    const TENANT: &'static str;

    /// The section of the plugin configuration.
    const SECTION: &'static str;

    /// The key in Redis of a tenant's document. `prefix` is that of the filter's own keys.
    fn document_key(prefix: &str, tenant: Tenant) -> String;

    /// What the record of a document's version is found by.
    fn version_hash(tenant: Tenant) -> Sha256Hash;

    /// Begins to compile a text.
    fn compiler(text: Rc<Vec<u8>>) -> Self::Compiler;

    /// Goes on for about so many bytes of the text. `None`: there is more to do. An error says why the text does not fit.
    fn step(compiler: &mut Self::Compiler, budget: usize) -> Option<Result<Box<Self>, String>>;

    /// About how many bytes of memory they take.
    fn weight(&self) -> usize;

    /// Frees a part of rules that nobody needs any more: about a millisecond's worth. Whether the rest takes no longer.
    fn shrink(&mut self) -> bool {
        true
    }
}
