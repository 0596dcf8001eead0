//! DEFLATE (RFC 1951) within bounds: what zlib and gzip have in common.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{DecodeError, Malformed, max_blocks};

/// Room at first, in multiples of the stream; JSON of flags is about ten times as long.
const FIRST_GUESS: usize = 8;

/// What is around the compressed data, and read together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// Nothing.
    None,
    /// A zlib header and a checksum, which is verified.
    Zlib,
}

/// Decompresses one stream after the other into one content.
pub(super) struct Inflater {
    max_bytes: usize,
    blocks_left: usize,
    state: Box<DecompressorOxide>,
    content: Vec<u8>,
    length: usize,
}

impl Inflater {
    /// Accepts at most `max_bytes` bytes of content, and so many blocks as these may come in.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            blocks_left: max_blocks(max_bytes),
            state: Box::default(),
            content: Vec::new(),
            length: 0,
        }
    }

    /// Decompresses the stream that begins here, and returns what it added and what follows the stream.
    ///
    /// # Errors
    /// [`DecodeError::TooBig`], or `damaged` for a stream that is cut short, damaged, or in too many blocks.
    // Once in the module, not in each of its two callers.
    #[inline(never)]
    pub(super) fn inflate<'a>(
        &mut self,
        stream: &'a [u8],
        wrapper: Wrapper,
        damaged: Malformed,
    ) -> Result<(&[u8], &'a [u8]), DecodeError> {
        let mut flags =
            TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        if wrapper == Wrapper::Zlib {
            flags |= TINFL_FLAG_PARSE_ZLIB_HEADER;
        }
        // One byte more than is accepted tells content that is too long.
        let limit = self.max_bytes.saturating_add(1);
        let guess = self
            .length
            .saturating_add(stream.len().saturating_mul(FIRST_GUESS));
        if self.content.len() < guess.min(limit) {
            self.content.resize(guess.min(limit), 0);
        }
        // Its last block has no boundary behind it.
        self.blocks_left = self.blocks_left.checked_sub(1).ok_or(damaged)?;
        self.state.init();
        let (mut rest, begin) = (stream, self.length);
        loop {
            let (status, read, written) =
                decompress(&mut self.state, rest, &mut self.content, self.length, flags);
            rest = rest.get(read..).ok_or(damaged)?;
            self.length += written;
            match status {
                TINFLStatus::Done => break,
                TINFLStatus::BlockBoundary if self.blocks_left > 0 => self.blocks_left -= 1,
                TINFLStatus::HasMoreOutput if self.content.len() < limit => {
                    let larger = self.content.len().saturating_mul(2).min(limit);
                    self.content.resize(larger, 0);
                }
                TINFLStatus::HasMoreOutput => return Err(DecodeError::TooBig),
                _ => return Err(damaged.into()),
            }
        }
        if self.length > self.max_bytes {
            return Err(DecodeError::TooBig);
        }
        let added = self.content.get(begin..self.length).unwrap_or_default();
        Ok((added, rest))
    }

    /// Everything that was decompressed.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.content.truncate(self.length);
        self.content
    }
}
