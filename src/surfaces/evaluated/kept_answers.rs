//! Evaluated answers that were given last, so that equal questions are evaluated once.
//!
//! A question's digest covers everything that the answer depends on, the document's version among it. So nothing in here is
//! ever wrong; what is not asked for any more gives way.

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

use flate2::write::GzEncoder;
use rustc_hash::FxHashMap;

use crate::hash::Sha256Hash;
use crate::http::Body;

/// What keeping an answer costs beyond its bytes.
const OVERHEAD: usize = 200;

/// Longest text that is compressed at once, in bytes; who makes a longer one brings its gzip form.
pub const AT_ONCE: usize = 256 << 10;

/// Shortest body that is compressed, in bytes.
const GZIP_FROM: usize = 32;

/// Compresses a text of this length.
pub fn encoder(length: usize) -> GzEncoder<Vec<u8>> {
    let content = Vec::with_capacity(length / 4 + 32);
    GzEncoder::new(content, flate2::Compression::new(4))
}

/// The gzip form of a short text; `None` when it cannot be made.
pub fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = encoder(text.len());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

/// Whether a body of this length is sent in gzip form to who accepts that.
pub const fn is_zipped(length: usize) -> bool {
    length >= GZIP_FROM
}

/// An answer in each form that was made of it.
#[derive(Clone, Debug)]
pub struct AnswerForms {
    /// Its text.
    pub text: Rc<Vec<u8>>,
    /// Its gzip form.
    pub gzip: Option<Rc<Vec<u8>>>,
}

impl AnswerForms {
    /// Of a short text: gzip, where the client accepts that.
    pub fn of(text: Vec<u8>, accepts_gzip: bool) -> Self {
        let zipped = match accepts_gzip && is_zipped(text.len()) {
            true => gzip(&text).map(Rc::new),
            false => None,
        };
        Self {
            text: Rc::new(text),
            gzip: zipped,
        }
    }

    /// What is sent.
    pub fn body(&self) -> Body {
        match &self.gzip {
            Some(zipped) => Body::Gzip(Rc::clone(zipped)),
            None => Body::Text(Rc::clone(&self.text)),
        }
    }
}

/// Answers of one worker.
pub struct KeptAnswers {
    limit: usize,
    /// Most bytes of one answer.
    largest: usize,
    bytes: usize,
    entries: FxHashMap<Sha256Hash, Entry>,
    /// Who was used when: the first gives way.
    by_use: BTreeMap<u64, Sha256Hash>,
    uses: u64,
}

struct Entry {
    forms: AnswerForms,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        let gzip = self.forms.gzip.as_ref().map_or(0, |gzip| gzip.len());
        self.forms.text.len() + gzip + OVERHEAD
    }
}

impl KeptAnswers {
    /// Keeps at most so many bytes, and of one answer at most `largest`; with 0 nothing at all.
    pub fn new(limit: usize, largest: usize) -> Self {
        Self {
            limit,
            largest: largest.min(limit),
            bytes: 0,
            entries: FxHashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    /// The answer to a question, in the form that the client takes; `None` also where a long one has no such form.
    pub fn get(&mut self, question: &Sha256Hash, accepts_gzip: bool) -> Option<Body> {
        let entry = self.entries.get_mut(question)?;
        if entry.used != self.uses {
            self.by_use.remove(&entry.used);
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, *question);
        }
        let forms = &mut entry.forms;
        if !accepts_gzip || !is_zipped(forms.text.len()) {
            return Some(Body::Text(Rc::clone(&forms.text)));
        }
        if forms.gzip.is_none() {
            if forms.text.len() > AT_ONCE {
                return None;
            }
            let zipped = Rc::new(gzip(&forms.text)?);
            self.bytes += zipped.len();
            forms.gzip = Some(zipped);
        }
        let zipped = forms.gzip.clone();
        self.make_room();
        zipped.map(Body::Gzip)
    }

    /// Whether there is none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a short answer, and returns it in the form that the client takes.
    pub fn put(&mut self, question: Sha256Hash, text: Vec<u8>, accepts_gzip: bool) -> Body {
        let forms = AnswerForms::of(text, accepts_gzip);
        let body = forms.body();
        self.put_forms(question, forms);
        body
    }

    /// Keeps an answer.
    pub fn put_forms(&mut self, question: Sha256Hash, forms: AnswerForms) {
        self.uses += 1;
        let entry = Entry {
            forms,
            used: self.uses,
        };
        if entry.bytes() > self.largest {
            return;
        }
        self.remove(&question);
        self.bytes += entry.bytes();
        self.by_use.insert(self.uses, question);
        self.entries.insert(question, entry);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.limit
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, question: &Sha256Hash) {
        if let Some(entry) = self.entries.remove(question) {
            self.by_use.remove(&entry.used);
            self.bytes = self.bytes.saturating_sub(entry.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn question(number: usize) -> Sha256Hash {
        Sha256Hash::of(&number.to_le_bytes())
    }

    #[test]
    fn what_was_used_last_stays_and_all_is_bounded() {
        let mut kept = KeptAnswers::new(10 * (100 + OVERHEAD), usize::MAX);
        for number in 0..10 {
            kept.put(question(number), vec![b'x'; 100], false);
        }
        assert!(kept.get(&question(0), false).is_some());
        kept.put(question(10), vec![b'x'; 100], false);
        assert!(kept.get(&question(0), false).is_some());
        assert!(kept.get(&question(1), false).is_none(), "it gave way");
        for number in 0..1_000 {
            kept.put(question(number), vec![b'x'; number], number % 2 == 0);
            assert!(kept.bytes <= kept.limit);
        }
        assert_eq!(kept.entries.len(), kept.by_use.len());
        let bytes: usize = kept.entries.values().map(Entry::bytes).sum();
        assert_eq!(bytes, kept.bytes);
    }

    #[test]
    fn a_form_is_made_when_it_is_asked_for_and_only_of_what_is_long_enough() {
        let mut kept = KeptAnswers::new(1 << 20, usize::MAX);
        let (long, short) = (vec![b'x'; 32], vec![b'x'; 31]);
        assert_eq!(
            kept.put(question(1), long.clone(), false),
            Body::Text(Rc::new(long.clone()))
        );
        let Some(Body::Gzip(zipped)) = kept.get(&question(1), true) else {
            panic!("no gzip form");
        };
        assert_eq!(
            kept.get(&question(1), true),
            Some(Body::Gzip(Rc::clone(&zipped)))
        );
        assert_eq!(
            kept.get(&question(1), false),
            Some(Body::Text(Rc::new(long)))
        );
        let body = kept.put(question(2), short.clone(), true);
        assert_eq!(body, Body::Text(Rc::new(short)));
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be() {
        for mut kept in [KeptAnswers::new(0, 1 << 20), KeptAnswers::new(1 << 20, 0)] {
            kept.put(question(1), Vec::new(), false);
            assert!(kept.get(&question(1), false).is_none() && kept.bytes == 0);
        }
    }

    #[test]
    fn a_long_answer_is_kept_in_the_forms_that_it_came_in() {
        let mut kept = KeptAnswers::new(4 << 20, 1 << 20);
        let forms = |length: usize, zips: bool| AnswerForms {
            text: Rc::new(vec![b'x'; length]),
            gzip: zips.then(|| Rc::new(vec![b'z'; 100])),
        };
        kept.put_forms(question(1), forms(AT_ONCE + 1, false));
        assert!(matches!(kept.get(&question(1), false), Some(Body::Text(_))));
        assert_eq!(
            kept.get(&question(1), true),
            None,
            "it takes too long to make"
        );
        kept.put_forms(question(1), forms(AT_ONCE + 1, true));
        assert!(matches!(kept.get(&question(1), true), Some(Body::Gzip(_))));
        assert!(matches!(kept.get(&question(1), false), Some(Body::Text(_))));
        kept.put_forms(question(2), forms(1 << 20, false));
        assert_eq!(
            kept.get(&question(2), false),
            None,
            "it is above the bound of one"
        );
    }
}
