//! Whether a text has the ETag that was stored beside it.
//!
//! A writer that stores the two one after the other leaves a moment in which a read brings a pair of two versions. One
//! answer with such a pair does little harm: the next read brings another. Kept, the pair would be answered with each time
//! that this ETag is current again. An ETag that is a hash of the text ([`ETag::of_text`]) tells whether they belong
//! together.

use std::rc::Rc;

use super::Document;
use crate::hash::Hasher;
use crate::http::ETag;

/// Bytes hashed at once: about a millisecond.
const SLICE: usize = 256 << 10;

/// A text that is being hashed.
pub struct Proof<D> {
    document: Rc<D>,
    done: usize,
    hasher: Hasher,
}

/// How far it has come.
pub enum ProofStep<D> {
    /// There is more to do.
    More(Proof<D>),
    /// The version, if text and ETag belong together.
    Done(Option<Rc<D>>),
}

impl<D: Document> Proof<D> {
    /// Begins, and hashes the first slice. An ETag that was computed here, or is no hash, is taken as it is.
    pub fn begin(document: &Rc<D>) -> ProofStep<D> {
        if !document.etag_is_stored() || document.etag().digits().is_none() {
            return ProofStep::Done(Some(Rc::clone(document)));
        }
        let proof = Self {
            document: Rc::clone(document),
            done: 0,
            hasher: Hasher::default(),
        };
        proof.step()
    }

    /// What is hashed.
    pub const fn document(&self) -> &Rc<D> {
        &self.document
    }

    /// Hashes the next slice.
    pub fn step(mut self) -> ProofStep<D> {
        let text = self.document.text();
        let end = self.done.saturating_add(SLICE).min(text.len());
        self.hasher
            .add(text.get(self.done..end).unwrap_or_default());
        self.done = end;
        if end < text.len() {
            return ProofStep::More(self);
        }
        let own = ETag::of_hash(self.hasher.finish());
        let belongs = own.digits() == self.document.etag().digits();
        ProofStep::Done(belongs.then_some(self.document))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Plain;
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn version(etag: &[u8], text: &[u8]) -> Rc<Plain> {
        Rc::new(Plain {
            etag: ETag::new(etag).unwrap(),
            etag_stored: true,
            text: Rc::new(text.to_vec()),
        })
    }

    /// Whether it belongs together, and in how many slices that was told.
    fn prove(version: &Rc<Plain>) -> (bool, usize) {
        let mut progress = Proof::begin(version);
        for slices in 1.. {
            match progress {
                ProofStep::More(proof) => progress = proof.step(),
                ProofStep::Done(proven) => return (proven.is_some(), slices),
            }
        }
        panic!("it never ends")
    }

    #[test]
    fn a_pair_of_two_versions_is_told_and_a_suffix_does_not_matter() {
        // Of texts as they are served.
        let (old, new) = (&br#"{"flags":[]}"#[..], &b"{\"flags\":[1]}"[..]);
        for (etag, text, expected) in [
            (&b"ccbb299897f0a689"[..], old, true),
            (b"ccbb299897f0a689-t5xyz", old, true),
            (b"ccbb299897f0a689", new, false),
            (b"ccbb299897f0a689-t5xyz", new, false),
            // No hash of a text.
            (b"CCBB299897F0A689", new, true),
            (b"ccbb299897f0a68", new, true),
            (b"e1", new, true),
        ] {
            assert_eq!(prove(&version(etag, text)), (expected, 1));
        }
        let mut computed = version(b"ccbb299897f0a689", new);
        Rc::get_mut(&mut computed).unwrap().etag_stored = false;
        assert_eq!(prove(&computed), (true, 1));
    }

    #[test]
    fn a_long_text_is_hashed_in_slices() {
        for (length, slices) in [(SLICE, 1), (SLICE + 1, 2), (5 * SLICE, 5)] {
            let text = vec![b'x'; length];
            let own = version(ETag::of_text(&text).as_bytes(), &text);
            assert_eq!(prove(&own), (true, slices));
            assert_eq!(prove(&version(b"0123456789abcdef", &text)), (false, slices));
        }
    }
}
