//! One zstd frame (RFC 8878), decompressed within bounds.
//!
//! The frame's skeleton, its header and the headers of its blocks, is read here before the decoder sees a byte:
//! so sizes, features, the number of blocks and what follows the frame are settled before memory is asked
//! for.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{DecodeError, Malformed, max_blocks};

const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Furthest that a frame may look back, in bytes: what RFC 8878 §3.1.1.1.2 asks of every decoder.
const MAX_WINDOW: u64 = 8 << 20;

/// Whether bytes start like a frame.
pub(super) fn recognises(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decompresses a value that is exactly one frame, to at most `max_bytes` bytes. A checksum is verified when there
/// is one.
///
/// # Errors
/// When the content is longer, or the frame is damaged, needs more than this decoder gives, or does not end
/// with the value.
pub(super) fn decompress(frame: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let header = Header::of(frame).ok_or(Malformed::Zstd)?;
    if header.needs_dictionary || header.window.is_some_and(|size| size > MAX_WINDOW) {
        return Err(Malformed::ZstdNeeds.into());
    }
    let declared = header.content.map(usize::try_from);
    let expected = match declared {
        None => max_bytes,
        Some(Ok(size)) if size <= max_bytes => size,
        Some(_) => return Err(DecodeError::TooBig),
    };
    let blocks = frame.get(header.length..).ok_or(Malformed::Zstd)?;
    let after = after_blocks(blocks, max_blocks(expected)).ok_or(Malformed::Zstd)?;
    match (header.has_checksum, after.len()) {
        (false, 0) | (true, 4) => {}
        (true, 0..4) => return Err(Malformed::Zstd.into()),
        _ => return Err(Malformed::Trailing.into()),
    }

    match decode(frame, expected)? {
        Some(content) if declared.is_none() || content.len() == expected => Ok(content),
        None if declared.is_none() => Err(DecodeError::TooBig),
        // The declared size was a lie.
        _ => Err(Malformed::Zstd.into()),
    }
}

/// Runs the decoder. `None` when there are more than `max_bytes` bytes; then it stopped at most one block later.
fn decode(frame: &[u8], max_bytes: usize) -> Result<Option<Vec<u8>>, Malformed> {
    let mut source = frame;
    let mut decoder = FrameDecoder::new();
    // The window of a frame in a single segment is its content, whose size is checked.
    decoder.set_max_window_size(MAX_WINDOW.max(u64::try_from(max_bytes).unwrap_or(u64::MAX)));
    decoder.init(&mut source).map_err(|_| Malformed::Zstd)?;
    let enough = BlockDecodingStrategy::UptoBytes(max_bytes.saturating_add(1));
    let ended = decoder
        .decode_blocks(&mut source, enough)
        .map_err(|_| Malformed::Zstd)?;
    if !ended || decoder.can_collect() > max_bytes {
        return Ok(None);
    }
    let content = decoder.collect().ok_or(Malformed::Zstd)?;
    let stored = decoder.get_checksum_from_data();
    if stored.is_some() && stored != decoder.get_calculated_checksum() {
        return Err(Malformed::Zstd);
    }
    Ok(Some(content))
}

/// A frame header (RFC 8878 §3.1.1.1).
struct Header {
    /// Its bytes, magic number included.
    length: usize,
    /// The window in bytes; none when the content is one segment.
    window: Option<u64>,
    /// Size of the content in bytes, if declared.
    content: Option<u64>,
    needs_dictionary: bool,
    has_checksum: bool,
}

impl Header {
    fn of(frame: &[u8]) -> Option<Self> {
        let (descriptor, mut rest) = frame.strip_prefix(MAGIC)?.split_first()?;
        if descriptor & 0x08 != 0 {
            return None; // Reserved: something that RFC 8878 does not know.
        }
        let is_single_segment = descriptor & 0x20 != 0;
        let mut window = None;
        if !is_single_segment {
            let (byte, after) = rest.split_first()?;
            let base = 1_u64 << (10 + (byte >> 3));
            window = Some(base + base / 8 * u64::from(byte & 7));
            rest = after;
        }
        let dictionary = number(&mut rest, [0, 1, 2, 4], descriptor & 3)?;
        let shortest = usize::from(is_single_segment);
        let size_flag = descriptor >> 6;
        let size = number(&mut rest, [shortest, 2, 4, 8], size_flag)?;
        let content = match size_flag {
            0 if !is_single_segment => None,
            1 => Some(size + 256),
            _ => Some(size),
        };
        Some(Self {
            length: frame.len() - rest.len(),
            window,
            content,
            needs_dictionary: dictionary != 0,
            has_checksum: descriptor & 0x04 != 0,
        })
    }
}

/// Takes a little-endian number whose size a two-bit flag chooses; no bytes are zero.
fn number(input: &mut &[u8], sizes: [usize; 4], flag: u8) -> Option<u64> {
    let size = *sizes.get(usize::from(flag))?;
    let (bytes, rest) = input.split_at_checked(size)?;
    *input = rest;
    let number = bytes.iter().rev();
    Some(number.fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// What follows the last block (RFC 8878 §3.1.1.2); `None` when the blocks are cut short or too many.
fn after_blocks(mut blocks: &[u8], max_bytes: usize) -> Option<&[u8]> {
    for _ in 0..max_bytes {
        let ([a, b, c], rest) = blocks.split_first_chunk()?;
        let header = u32::from_le_bytes([*a, *b, *c, 0]);
        let size = match header >> 1 & 3 {
            1 => 1, // One byte, repeated.
            _ => usize::try_from(header >> 3).ok()?,
        };
        blocks = rest.get(size..)?;
        if header & 1 == 1 {
            return Some(blocks);
        }
    }
    None
}
