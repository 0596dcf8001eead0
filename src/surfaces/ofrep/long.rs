//! What takes longer than a callback may, done in slices while who asked waits: the context of a long body, and all flags of a
//! long selection.

use std::collections::VecDeque;
use std::io::Write;
use std::rc::Rc;

use flate2::write::GzEncoder;

use super::document::{OfrepLanded, OfrepRead, SelectionDocument};
use super::flagd::{
    EvaluationContext, Fractional, PartialAnswer, PartialContext, Selection, Selector, tag,
};
use crate::documents::Document as _;
use crate::hash::{Hasher, Sha256Hash};
use crate::surfaces::evaluated::kept_answers::{AnswerForms, encoder, is_zipped};
use crate::surfaces::evaluated::reads::LandedDocument;
use crate::surfaces::evaluated::slices::Slices;

/// Bytes of JSON that one slice reads, writes, hashes or compresses: less than a millisecond.
const SLICE: usize = 16 << 10;

/// Bytes of an answer that one slice evaluates, and longest answer that is evaluated at once.
const EVALUATED: usize = 128 << 10;

/// Most pieces of work at a time.
const MAX_QUEUED: usize = 64;

/// Most bytes of the bodies and contexts among them. One alone always has room.
const MAX_BYTES: usize = 16 << 20;

/// What an answer rests on, and the form that it is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LongName {
    /// The digest of all but the time.
    pub digest: Sha256Hash,
    /// The Unix time in seconds, where a rule reads it.
    pub unix: u64,
    /// Whether gzip may be sent.
    pub accepts_gzip: bool,
}

/// The answer with all flags of a selection, evaluated in slices.
pub struct LongAnswer {
    document: Rc<SelectionDocument>,
    selector: Selector,
    fractional: Fractional,
    context: Sha256Hash,
    answer: PartialAnswer,
    text: Option<Finish>,
}

/// A text that is there; what is left is its hash and its gzip form.
struct Finish {
    text: Rc<Vec<u8>>,
    done: usize,
    hasher: Option<Hasher>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl LongAnswer {
    /// Evaluates the flags of a document for this context at this time.
    pub fn new(
        document: &Rc<SelectionDocument>,
        selector: &Selector,
        fractional: Fractional,
        context: (&EvaluationContext, Sha256Hash),
        unix: u64,
    ) -> Self {
        Self {
            document: Rc::clone(document),
            selector: selector.clone(),
            fractional,
            context: context.1,
            answer: PartialAnswer::new(context.0, fractional, unix),
            text: None,
        }
    }

    /// Evaluates a slice of the document's flags; the text, where that is all.
    pub fn evaluate(&mut self, selection: &Selection) -> Option<Vec<u8>> {
        self.answer.step(selection, &self.selector, EVALUATED)
    }

    /// Does a slice. What it comes to, where that is all.
    fn step(&mut self, name: &LongName) -> Option<OfrepLanded> {
        let Some(finish) = &mut self.text else {
            let document = Rc::clone(&self.document);
            let Some(selection) = document.rules() else {
                return Some(OfrepLanded::Document(LandedDocument::Missing));
            };
            let text = Rc::new(self.evaluate(selection)?);
            let zips = name.accepts_gzip && is_zipped(text.len());
            self.text = Some(Finish {
                hasher: selection.reads_time().then(Hasher::default),
                gzip: zips.then(|| encoder(text.len())),
                text,
                done: 0,
            });
            return None;
        };
        let is_over = match finish.hasher.is_some() || finish.gzip.is_some() {
            true => finish.step(),
            false => true,
        };
        if !is_over {
            return None;
        }
        let hash = finish.hasher.take().map(Hasher::finish);
        let digest = match &hash {
            None => name.digest,
            Some(_) => {
                let version = self.document.etag();
                let (selector, context) = (&self.selector, &self.context);
                tag(self.fractional, selector, version, context, hash.as_ref())
            }
        };
        let gzip = finish.gzip.take().and_then(|gzip| gzip.finish().ok());
        let forms = AnswerForms {
            text: Rc::clone(&finish.text),
            gzip: gzip.map(Rc::new),
        };
        Some(OfrepLanded::Answer(forms, digest))
    }
}

impl Finish {
    /// Goes on for a slice. Whether that is all.
    fn step(&mut self) -> bool {
        let end = self.done.saturating_add(SLICE).min(self.text.len());
        let piece = self.text.get(self.done..end).unwrap_or_default();
        self.done = end;
        if let Some(hasher) = &mut self.hasher {
            hasher.add(piece);
        }
        // What cannot be compressed is sent as it is.
        if let Some(gzip) = &mut self.gzip
            && gzip.write_all(piece).is_err()
        {
            self.gzip = None;
        }
        end == self.text.len()
    }
}

enum Work {
    /// With the bytes that it takes once it is read.
    Context(PartialContext, usize),
    /// With the bytes that its context takes.
    Answer(LongName, Box<LongAnswer>, usize),
}

impl Work {
    /// Bytes of the body, or of the context, that it keeps.
    const fn bytes(&self) -> usize {
        match self {
            Self::Context(context, _) => context.bytes(),
            Self::Answer(_, _, bytes) => *bytes,
        }
    }
}

/// What one worker does in slices, in the order in which it was asked for.
#[derive(Default)]
pub struct LongWork {
    queue: VecDeque<(OfrepRead, Work)>,
    /// What nobody waits for any more: freeing it takes time as well.
    abandoned: Vec<Work>,
    /// What both keep.
    bytes: usize,
    contexts: u64,
    /// Documents of answers that are done: nobody else may have them any more.
    outgoing: Vec<Rc<SelectionDocument>>,
}

impl LongWork {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.abandoned.is_empty()
    }

    /// Whether this is being done.
    pub fn has(&self, name: &LongName) -> bool {
        let own = OfrepRead::Answer(*name);
        self.queue.iter().any(|(read, ..)| *read == own)
    }

    /// The documents of answers that were done meanwhile.
    pub fn take_outgoing(&mut self) -> Vec<Rc<SelectionDocument>> {
        std::mem::take(&mut self.outgoing)
    }

    /// Begins with a context that takes `cost` bytes once it is read. `None`: there is too much to do.
    pub fn add_context(&mut self, context: PartialContext, cost: usize) -> Option<OfrepRead> {
        self.contexts = self.contexts.wrapping_add(1);
        let read = OfrepRead::Context(self.contexts);
        self.add(read, Work::Context(context, cost))
    }

    /// Goes on with an answer, whose context takes so many bytes. `None`: there is too much to do.
    pub fn add_answer(
        &mut self,
        name: LongName,
        answer: LongAnswer,
        bytes: usize,
    ) -> Option<OfrepRead> {
        let work = Work::Answer(name, Box::new(answer), bytes);
        self.add(OfrepRead::Answer(name), work)
    }

    fn add(&mut self, read: OfrepRead, work: Work) -> Option<OfrepRead> {
        let bytes = self.bytes.saturating_add(work.bytes());
        let has_bytes = self.bytes == 0 || bytes <= MAX_BYTES;
        let pieces = self.queue.len().saturating_add(self.abandoned.len());
        (has_bytes && pieces < MAX_QUEUED).then(|| {
            self.bytes = bytes;
            self.queue.push_back((read.clone(), work));
            read
        })
    }

    /// Nobody waits for this any more.
    pub fn abandon(&mut self, read: &OfrepRead) {
        let place = self.queue.iter().position(|(own, _)| own == read);
        let work = place.and_then(|place| self.queue.remove(place));
        self.abandoned.extend(work.map(|(_, work)| work));
    }

    fn free(&mut self, work: Work) {
        self.bytes = self.bytes.saturating_sub(work.bytes());
        if let Work::Answer(_, answer, _) = work {
            self.outgoing.push(answer.document);
        }
    }

    /// Does slices while there is time for them; the first piece of work that is done.
    pub fn work(&mut self, slices: &mut Slices<'_>) -> Option<(OfrepRead, OfrepLanded)> {
        loop {
            if let Some(work) = self.abandoned.pop() {
                self.free(work);
            } else {
                let landed = match &mut self.queue.front_mut()?.1 {
                    Work::Context(context, cost) => context
                        .step(SLICE)
                        .map(|read| OfrepLanded::Context(read, *cost)),
                    Work::Answer(name, answer, _) => answer.step(name),
                };
                if let Some(landed) = landed {
                    let (read, work) = self.queue.pop_front()?;
                    self.free(work);
                    return Some((read, landed));
                }
            }
            if !slices.goes_on() {
                return None;
            }
        }
    }
}
