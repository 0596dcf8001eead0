//! One zlib stream (RFC 1950), decompressed within bounds. Entries of older writers have this form.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress as inflate};

use super::{DecodeError, Malformed, most_blocks};

/// Room at first, in multiples of the stream; JSON of flags is about ten times as long.
const FIRST_GUESS: usize = 8;

/// Whether bytes start like a stream with the window that everybody uses (32 KiB).
pub(super) fn recognises(bytes: &[u8]) -> bool {
    matches!(bytes, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..])
}

/// Decompresses a value that is exactly one stream, to at most `most` bytes. The checksum is verified.
///
/// # Errors
/// When the content is longer, or the stream is damaged or does not end with the value.
pub(super) fn decompress(stream: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER
        | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY
        | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    // One byte more than is accepted tells content that is too long.
    let limit = most.saturating_add(1);
    let mut state = Box::<DecompressorOxide>::default();
    let mut content = vec![0; stream.len().saturating_mul(FIRST_GUESS).min(limit)];
    let mut rest = stream;
    let mut length = 0;
    let mut blocks_left = most_blocks(most);
    loop {
        let (status, read, written) = inflate(&mut state, rest, &mut content, length, flags);
        rest = rest.get(read..).ok_or(Malformed::Zlib)?;
        length += written;
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::BlockBoundary if blocks_left > 0 => blocks_left -= 1,
            TINFLStatus::HasMoreOutput if content.len() < limit => {
                let larger = content.len().saturating_mul(2).min(limit);
                content.resize(larger, 0);
            }
            TINFLStatus::HasMoreOutput => return Err(DecodeError::TooBig),
            _ => return Err(Malformed::Zlib.into()),
        }
    }
    if length > most {
        return Err(DecodeError::TooBig);
    }
    if !rest.is_empty() {
        return Err(Malformed::Trailing.into());
    }
    content.truncate(length);
    Ok(content)
}
