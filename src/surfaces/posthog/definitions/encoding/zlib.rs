//! One zlib stream (RFC 1950), decompressed within bounds. Entries of older writers have this form.

use super::inflate::{Inflater, Wrapper};
use super::{DecodeError, Malformed};

/// Whether bytes start like a stream with the window that everybody uses (32 KiB).
pub(super) fn recognises(bytes: &[u8]) -> bool {
    matches!(bytes, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..])
}

/// Decompresses a value that is exactly one stream, to at most `max_bytes` bytes. The checksum is verified.
///
/// # Errors
/// When the content is longer, or the stream is damaged or does not end with the value.
pub(super) fn decompress(stream: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let mut inflater = Inflater::new(max_bytes);
    let (_, rest) = inflater.inflate(stream, Wrapper::Zlib, Malformed::Zlib)?;
    if !rest.is_empty() {
        return Err(Malformed::Trailing.into());
    }
    Ok(inflater.finish())
}
