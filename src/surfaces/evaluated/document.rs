//! A document and its rules: read together, compiled in slices, kept together. A long text is inflated in slices as well, for
//! who takes no gzip form, and then kept beside them.

use std::collections::VecDeque;
use std::io::Write;
use std::rc::Rc;

use flate2::write::GzDecoder;

use super::CompiledRules;
use crate::documents::Document;
use crate::http::ETag;
use crate::tenant::Tenant;

/// Bytes of text that one slice inflates or compiles: about a millisecond.
const SLICE: usize = 64 << 10;

/// Slices that are done at once where a document is read. Most documents are no longer.
const SLICES_AT_ONCE: usize = 3;

/// Longest text that is inflated in one go for who takes no gzip form; a longer one is inflated in slices, and kept.
const AT_ONCE: usize = 2 * SLICE;

/// Bytes in gzip form that are inflated at once. They become a thousand times as many at most.
const PIECE: usize = 512;

/// Most documents that are compiled at a time. Whoever needs another one reads it again.
const MAX_COMPILING: usize = 256;

/// One version of a tenant's document.
#[derive(Debug)]
pub struct EvaluatedDocument<R> {
    version: ETag,
    gzip: Rc<Vec<u8>>,
    text_length: usize,
    /// A long text that somebody asked for without gzip.
    text: Option<Rc<Vec<u8>>>,
    rules: Option<Rc<R>>,
}

impl<R> PartialEq for EvaluatedDocument<R> {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.text.is_some() == other.text.is_some()
            && self.gzip == other.gzip
    }
}

impl<R: CompiledRules> EvaluatedDocument<R> {
    /// Its rules. `None`: it does not fit, and there never was one that does.
    pub fn rules(&self) -> Option<&R> {
        self.rules.as_deref()
    }

    /// Its text in gzip form.
    pub const fn gzip(&self) -> &Rc<Vec<u8>> {
        &self.gzip
    }

    /// Its text, where it is kept or short. `None`: it is inflated first ([`Workshop::inflate`]).
    pub fn text_at_hand(&self) -> Option<Rc<Vec<u8>>> {
        match &self.text {
            Some(text) => Some(Rc::clone(text)),
            None if self.text_length <= AT_ONCE => self.inflated().map(Rc::new),
            None => None,
        }
    }

    fn inflated(&self) -> Option<Vec<u8>> {
        let mut inflated = GzDecoder::new(Vec::with_capacity(self.text_length));
        inflated.write_all(&self.gzip).ok()?;
        let text = inflated.finish().ok()?;
        (text.len() == self.text_length).then_some(text)
    }

    fn with_text(&self, text: Rc<Vec<u8>>) -> Self {
        Self {
            version: self.version.clone(),
            gzip: Rc::clone(&self.gzip),
            text_length: self.text_length,
            text: Some(text),
            rules: self.rules.clone(),
        }
    }

    /// Its rules, where nobody else has them.
    pub(super) fn into_rules(self) -> Option<R> {
        self.rules.and_then(Rc::into_inner)
    }

    /// Length of its text, in bytes.
    pub const fn text_length(&self) -> usize {
        self.text_length
    }
}

impl<R: CompiledRules> Document for EvaluatedDocument<R> {
    fn etag(&self) -> &ETag {
        &self.version
    }

    /// The publisher computed it of the text, and wrote both at once.
    fn etag_is_stored(&self) -> bool {
        false
    }

    /// What is kept of the text.
    fn text(&self) -> &Rc<Vec<u8>> {
        &self.gzip
    }

    fn weight(&self) -> usize {
        let rules = self.rules().map_or(0, R::weight);
        let text = self.text.as_ref().map_or(0, |text| text.len());
        self.gzip.len().saturating_add(text).saturating_add(rules)
    }
}

/// Why a document cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its text is longer than documents may be.
    TooLong,
    /// Its text cannot be inflated.
    Unreadable,
}

/// A document that is being inflated, then compiled, or the text of one that is compiled.
struct Work<R: CompiledRules> {
    tenant: Tenant,
    version: ETag,
    gzip: Rc<Vec<u8>>,
    done: usize,
    max_bytes: usize,
    /// The one whose text is wanted.
    compiled: Option<Rc<EvaluatedDocument<R>>>,
    stage: Stage<R>,
}

enum Stage<R: CompiledRules> {
    Inflating(Box<GzDecoder<Vec<u8>>>),
    Compiling(Box<R::Compiler>, usize),
    /// Nothing is left to do.
    Over,
}

/// What came of a document.
pub type Compiled<R> = Result<Rc<EvaluatedDocument<R>>, Unusable>;

impl<R: CompiledRules> Stage<R> {
    fn inflating() -> Self {
        Self::Inflating(Box::new(GzDecoder::new(Vec::new())))
    }
}

impl<R: CompiledRules> Work<R> {
    /// Does a slice; the result, once it is done.
    fn step(&mut self) -> Option<Compiled<R>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Inflating(inflated) => match (self.inflate(inflated), &self.compiled) {
                (Ok(None), _) => None,
                (Ok(Some(text)), Some(compiled)) => Some(Ok(Rc::new(compiled.with_text(text)))),
                (Ok(Some(text)), None) => {
                    let length = text.len();
                    self.stage = Stage::Compiling(Box::new(R::compiler(text)), length);
                    None
                }
                (Err(problem), _) => Some(Err(problem)),
            },
            Stage::Compiling(mut compiler, length) => match R::step(&mut compiler, SLICE) {
                None => {
                    self.stage = Stage::Compiling(compiler, length);
                    None
                }
                Some(Ok(rules)) => Some(Ok(self.document(length, Some(rules)))),
                Some(Err(unfit)) => {
                    log::warn!("{} {}: {unfit}", R::TENANT, self.tenant);
                    Some(Ok(self.document(length, None)))
                }
            },
            Stage::Over => Some(Err(Unusable::Unreadable)),
        }
    }

    /// Inflates a slice; the text, once it is whole.
    fn inflate(
        &mut self,
        mut inflated: Box<GzDecoder<Vec<u8>>>,
    ) -> Result<Option<Rc<Vec<u8>>>, Unusable> {
        let goal = inflated.get_ref().len().saturating_add(SLICE);
        while inflated.get_ref().len() < goal {
            let end = self.done.saturating_add(PIECE).min(self.gzip.len());
            let piece = self.gzip.get(self.done..end).unwrap_or_default();
            if piece.is_empty() {
                let mut text = inflated.finish().map_err(|_| Unusable::Unreadable)?;
                // It counts by its length, and may have twice the room.
                text.shrink_to_fit();
                if text.len() > self.max_bytes {
                    return Err(Unusable::TooLong);
                }
                return Ok(Some(Rc::new(text)));
            }
            let written = inflated.write_all(piece);
            written.map_err(|_| Unusable::Unreadable)?;
            self.done = end;
            if inflated.get_ref().len() > self.max_bytes {
                return Err(Unusable::TooLong);
            }
        }
        self.stage = Stage::Inflating(inflated);
        Ok(None)
    }

    fn document(&self, text_length: usize, rules: Option<Box<R>>) -> Rc<EvaluatedDocument<R>> {
        Rc::new(EvaluatedDocument {
            version: self.version.clone(),
            gzip: Rc::clone(&self.gzip),
            text_length,
            text: None,
            rules: rules.map(Rc::from),
        })
    }
}

/// The documents that one worker compiles.
pub struct Workshop<R: CompiledRules> {
    queue: VecDeque<Work<R>>,
    dropped: Vec<ETag>,
}

/// How far a document has come that was just read.
pub enum Begun<R> {
    /// It is done.
    Done(Compiled<R>),
    /// It goes on in later slices.
    Queued,
    /// Too many are being compiled.
    Full,
}

impl<R: CompiledRules> Default for Workshop<R> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            dropped: Vec::new(),
        }
    }
}

impl<R: CompiledRules> Workshop<R> {
    /// Begins to compile a document that was read, with a text of at most `max_bytes`. A short one is done at once.
    pub fn begin(
        &mut self,
        tenant: Tenant,
        version: &ETag,
        gzip: &[u8],
        max_bytes: usize,
    ) -> Begun<R> {
        if self.has(tenant, version) {
            return Begun::Queued;
        }
        self.add(Work {
            tenant,
            version: version.clone(),
            gzip: Rc::new(gzip.to_vec()),
            done: 0,
            max_bytes,
            compiled: None,
            stage: Stage::inflating(),
        })
    }

    /// Begins to inflate the text of a document, for who takes no gzip form. What it comes to is the document with its text.
    pub fn inflate(&mut self, tenant: Tenant, document: &Rc<EvaluatedDocument<R>>) -> Begun<R> {
        if self.has(tenant, &document.version) {
            return Begun::Queued;
        }
        self.add(Work {
            tenant,
            version: document.version.clone(),
            gzip: Rc::clone(&document.gzip),
            done: 0,
            max_bytes: document.text_length,
            compiled: Some(Rc::clone(document)),
            stage: Stage::inflating(),
        })
    }

    fn add(&mut self, mut work: Work<R>) -> Begun<R> {
        // Of two versions the older is of no use any more.
        let is_older = |older: &&Work<R>| older.tenant == work.tenant;
        let older = self.queue.iter().filter(is_older);
        self.dropped.extend(older.map(|work| work.version.clone()));
        self.queue.retain(|older| older.tenant != work.tenant);
        if self.queue.len() >= MAX_COMPILING {
            return Begun::Full;
        }
        for _ in 0..SLICES_AT_ONCE {
            if let Some(compiled) = work.step() {
                return Begun::Done(compiled);
            }
        }
        self.queue.push_back(work);
        Begun::Queued
    }

    /// The versions that the last document took the place of.
    pub fn take_dropped(&mut self) -> Vec<ETag> {
        std::mem::take(&mut self.dropped)
    }

    /// Does a slice of what came first; that document, once it is done.
    pub fn work(&mut self) -> Option<(Tenant, ETag, Compiled<R>)> {
        let work = self.queue.front_mut()?;
        let compiled = work.step()?;
        let work = self.queue.pop_front()?;
        Some((work.tenant, work.version, compiled))
    }

    /// Whether a version is being compiled.
    pub fn has(&self, tenant: Tenant, version: &ETag) -> bool {
        let mut queue = self.queue.iter();
        queue.any(|work| work.tenant == tenant && work.version == *version)
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
