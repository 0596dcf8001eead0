//! Whether a text has the ETag that was stored beside it.
//!
//! PostHog writes the two one after the other, so a read in between brings a pair that does not belong together. To
//! answer with it once does little harm: the next read brings another. Kept, it would be answered with each time that
//! this ETag is current again. PostHog's ETag is that of the text ([`ETag::of_text`]), so it can be told.

use std::rc::Rc;

use super::outcome::Full;
use crate::hash::Hasher;
use crate::http::ETag;

/// Bytes hashed at once: about a millisecond.
const SLICE: usize = 256 << 10;

/// A text that is being hashed.
pub struct Proof {
    full: Rc<Full>,
    done: usize,
    hasher: Hasher,
}

/// How far it has come.
pub enum Progress {
    /// There is more to do.
    More(Proof),
    /// The version, if text and ETag belong together.
    Done(Option<Rc<Full>>),
}

impl Proof {
    /// Begins, and hashes the first slice. An ETag that was computed here, or is not of PostHog's form, is taken
    /// as it is.
    pub fn begin(full: &Rc<Full>) -> Progress {
        if !full.etag_stored || full.etag.digits().is_none() {
            return Progress::Done(Some(Rc::clone(full)));
        }
        let proof = Self {
            full: Rc::clone(full),
            done: 0,
            hasher: Hasher::default(),
        };
        proof.step()
    }

    /// What is hashed.
    pub fn full(&self) -> &Rc<Full> {
        &self.full
    }

    /// Hashes the next slice.
    pub fn step(mut self) -> Progress {
        let text = &self.full.text;
        let end = self.done.saturating_add(SLICE).min(text.len());
        self.hasher
            .add(text.get(self.done..end).unwrap_or_default());
        self.done = end;
        if end < text.len() {
            return Progress::More(self);
        }
        let own = ETag::of_hash(self.hasher.finish());
        let belongs = own.digits() == self.full.etag.digits();
        Progress::Done(belongs.then_some(self.full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn full(etag: &[u8], text: &[u8]) -> Rc<Full> {
        Rc::new(Full {
            etag: ETag::new(etag).unwrap(),
            etag_stored: true,
            text: text.to_vec(),
            billable: true,
        })
    }

    /// Whether it belongs together, and in how many slices that was told.
    fn prove(full: &Rc<Full>) -> (bool, usize) {
        let mut progress = Proof::begin(full);
        for slices in 1.. {
            match progress {
                Progress::More(proof) => progress = proof.step(),
                Progress::Done(proven) => return (proven.is_some(), slices),
            }
        }
        panic!("it never ends")
    }

    #[test]
    fn a_pair_of_two_versions_is_told_and_a_suffix_does_not_matter() {
        // PostHog's own vectors.
        let (old, new) = (&br#"{"flags":[]}"#[..], &b"{\"flags\":[1]}"[..]);
        for (etag, text, expected) in [
            (&b"ccbb299897f0a689"[..], old, true),
            (b"ccbb299897f0a689-t5xyz", old, true),
            (b"ccbb299897f0a689", new, false),
            (b"ccbb299897f0a689-t5xyz", new, false),
            // Not of PostHog's form.
            (b"CCBB299897F0A689", new, true),
            (b"ccbb299897f0a68", new, true),
            (b"e1", new, true),
        ] {
            assert_eq!(prove(&full(etag, text)), (expected, 1));
        }
        let mut computed = full(b"ccbb299897f0a689", new);
        Rc::get_mut(&mut computed).unwrap().etag_stored = false;
        assert_eq!(prove(&computed), (true, 1));
    }

    #[test]
    fn a_long_text_is_hashed_in_slices() {
        for (length, slices) in [(SLICE, 1), (SLICE + 1, 2), (5 * SLICE, 5)] {
            let text = vec![b'x'; length];
            let own = full(ETag::of_text(&text).as_bytes(), &text);
            assert_eq!(prove(&own), (true, slices));
            assert_eq!(prove(&full(b"0123456789abcdef", &text)), (false, slices));
        }
    }
}
