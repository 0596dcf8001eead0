//! The gzip form of a text (RFC 1952), made in slices.
//!
//! A megabyte takes tens of milliseconds, and a worker does nothing else meanwhile. So each call does one slice of
//! about two milliseconds, and long texts get the fast level.

use std::io::Write;
use std::rc::Rc;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

/// Longest text that gets [`BEST`]: 200 KiB take some 4 ms.
const BEST_UP_TO: usize = 200 << 10;

/// Longest text that is compressed at all: 2 MiB take some 8 ms with [`FASTEST`].
pub const LONGEST: usize = 2 << 20;

/// Level, and bytes of text in one slice.
const BEST: (u32, usize) = (6, 96 << 10);
const FASTEST: (u32, usize) = (1, 384 << 10);

/// A text that is being compressed.
pub struct Compression {
    text: Rc<Vec<u8>>,
    done: usize,
    slice: usize,
    encoder: GzEncoder<Vec<u8>>,
}

/// How far it has come.
pub enum CompressionStep {
    /// There is more to do.
    More(Compression),
    /// The gzip form; `None` when it would not be shorter than the text.
    Done(Option<Vec<u8>>),
}

impl Compression {
    /// Begins. `None` for a text that is too long.
    pub fn begin(text: Rc<Vec<u8>>) -> Option<Self> {
        let length = text.len();
        if length > LONGEST {
            return None;
        }
        let (level, slice) = if length > BEST_UP_TO { FASTEST } else { BEST };
        // JSON of flags becomes a tenth.
        let content = Vec::with_capacity(length / 8);
        Some(Self {
            text,
            done: 0,
            slice,
            encoder: GzEncoder::new(content, Level::new(level)),
        })
    }

    /// What is compressed.
    pub const fn text(&self) -> &Rc<Vec<u8>> {
        &self.text
    }

    /// Compresses the next slice.
    pub fn step(mut self) -> CompressionStep {
        let text = &self.text;
        let end = self.done.saturating_add(self.slice).min(text.len());
        let slice = text.get(self.done..end).unwrap_or_default();
        if self.encoder.write_all(slice).is_err() {
            return CompressionStep::Done(None);
        }
        self.done = end;
        if self.encoder.get_ref().len() >= text.len() {
            return CompressionStep::Done(None);
        }
        if end < text.len() {
            return CompressionStep::More(self);
        }
        let Ok(mut content) = self.encoder.finish() else {
            return CompressionStep::Done(None);
        };
        content.shrink_to_fit();
        CompressionStep::Done((content.len() < text.len()).then_some(content))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Flags that differ, as in a payload.
    fn flags(length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length + 100);
        let mut n = 0_u64;
        while text.len() < length {
            n += 1;
            let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let flag = format!(r#"{{"id": {n}, "key": "flag-{noise:x}", "active": true}}, "#);
            text.extend_from_slice(flag.as_bytes());
        }
        text.truncate(length);
        text
    }

    fn gzip(text: &[u8]) -> (Option<Vec<u8>>, usize) {
        let mut work = Compression::begin(Rc::new(text.to_vec())).unwrap();
        for steps in 1.. {
            match work.step() {
                CompressionStep::More(more) => work = more,
                CompressionStep::Done(content) => return (content, steps),
            }
        }
        panic!("no end");
    }

    #[test]
    fn slices_make_one_stream_that_becomes_the_text_again() {
        let (best, fastest) = (BEST.1, FASTEST.1);
        for (length, slices) in [
            (200, 1),
            (best - 1, 1),
            (best, 1),
            (best + 1, 2),
            (2 * best, 2),
            (BEST_UP_TO, 3),
            (BEST_UP_TO + 1, 1),
            (fastest, 1),
            (fastest + 1, 2),
            (LONGEST, LONGEST.div_ceil(fastest)),
        ] {
            let text = flags(length);
            let (content, steps) = gzip(&text);
            let content = content.unwrap();
            assert_eq!(steps, slices, "{length}");
            assert!(content.len() < length, "{length}");
            let mut back = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(content.as_slice());
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == text, "{length}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_left_alone() {
        assert!(Compression::begin(Rc::new(vec![b' '; LONGEST])).is_some());
        assert!(Compression::begin(Rc::new(vec![b' '; LONGEST + 1])).is_none());
    }

    #[test]
    fn what_does_not_get_shorter_has_no_gzip_form() {
        for text in [&b""[..], b"{}", br#"{"flags":[]}"#] {
            assert_eq!(gzip(text), (None, 1));
        }
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(BEST_UP_TO).collect();
        let (content, _) = gzip(&noise);
        assert_eq!(content, None);
    }
}
