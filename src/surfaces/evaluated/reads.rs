//! What has to be read for a request: a document out of Redis, or one that is being compiled.

use std::rc::Rc;

use super::CompiledRules;
use super::document::EvaluatedDocument;
use crate::documents::Confirmed;
use crate::http::ETag;
use crate::redis::{Command, Failure, Reply, Script};
use crate::surfaces::Read;
use crate::tenant::Tenant;

/// The script answers three strings: `same|full|long|none`, the version, and the text in gzip form (of `full` only). Version and
/// text come from one read, so that they belong together.
static SCRIPT: Script = Script::new(include_str!("document.lua"));

/// What has to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DocumentRead {
    /// A tenant's document out of Redis.
    Document {
        /// Whose.
        tenant: Tenant,
        /// The version that is kept here.
        held: Option<ETag>,
    },
    /// A document that was read and is being compiled.
    Compiled {
        /// Whose.
        tenant: Tenant,
        /// Its version.
        version: ETag,
    },
}

impl Read for DocumentRead {
    fn unconditional(&self) -> Option<Self> {
        match self {
            Self::Document { tenant, .. } => Some(Self::Document {
                tenant: *tenant,
                held: None,
            }),
            Self::Compiled { .. } => None,
        }
    }
}

/// The command that reads a document, if it is another one than `held` and has at most `max_bytes` in gzip form. `prefix` is
/// that of the filter's own keys.
pub fn command<R: CompiledRules>(
    prefix: &str,
    tenant: Tenant,
    held: Option<&ETag>,
    max_bytes: usize,
) -> Command {
    let key = R::document_key(prefix, tenant);
    let held: &[u8] = held.map_or(b"", ETag::as_bytes);
    let max_bytes = max_bytes.to_string();
    Command::eval_ro(&SCRIPT, [key], [held, max_bytes.as_bytes()])
}

/// What the script said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredDocument<'a> {
    /// What is held is current.
    Same(ETag),
    /// The current version, and its text in gzip form.
    Full(ETag, &'a [u8]),
    /// The current version, whose text is longer than it may be.
    TooLong(ETag),
    /// There is none.
    Missing,
    /// It is not known whether there is one.
    Failed(Failure),
}

impl<'a> StoredDocument<'a> {
    /// Reads the script's reply.
    pub fn of(reply: &'a Result<Reply<'_>, Failure>) -> Self {
        let parts = match reply {
            Ok(reply) => reply.strings().unwrap_or_default(),
            Err(failure) => return Self::Failed(*failure),
        };
        match *parts {
            [b"none", _, _] => Self::Missing,
            [kind, version, text] => match (kind, ETag::new(version)) {
                (b"same", Some(version)) => Self::Same(version),
                (b"full", Some(version)) => Self::Full(version, text),
                (b"long", Some(version)) => Self::TooLong(version),
                _ => Self::Failed(Failure::Malformed),
            },
            _ => Self::Failed(Failure::Malformed),
        }
    }
}

/// What a read came to, for all who waited for it.
pub enum LandedDocument<R> {
    /// The version that was held is current.
    Same(ETag),
    /// The current document.
    Read(Rc<EvaluatedDocument<R>>),
    /// The current version, which is being compiled.
    Compiling(ETag),
    /// Redis has none.
    Missing,
    /// It is not known whether there is one.
    Failed(Failure),
}

impl<R> Clone for LandedDocument<R> {
    fn clone(&self) -> Self {
        match self {
            Self::Same(version) => Self::Same(version.clone()),
            Self::Read(document) => Self::Read(Rc::clone(document)),
            Self::Compiling(version) => Self::Compiling(version.clone()),
            Self::Missing => Self::Missing,
            Self::Failed(failure) => Self::Failed(*failure),
        }
    }
}

/// What is known when a read is sent.
pub type KnownVersion = Option<Confirmed>;
