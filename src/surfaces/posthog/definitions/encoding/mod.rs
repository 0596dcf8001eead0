//! How PostHog stores a text in Redis, and back.
//!
//! Django pickles the text and compresses the pickle when it is long: zstd today, zlib in older entries. The
//! form is recognised by content, so plain JSON and compressed plain JSON are read as well. Layers are taken
//! off once each, compression first; nothing that a pickle asks for is executed.
//!
//! No declared size is believed: all are checked against the bytes that are there and against the
//! caller's bound before memory is asked for.

mod gzip;
mod inflate;
mod pickle;
mod zlib;
mod zstd;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

pub use gzip::gunzip;

use super::syntax::{first, skip_white_space};

/// What Django stores where it knows that there is nothing, to spare the next look-up.
pub const MISSING: &[u8] = b"__missing__";

/// What a stored value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A JSON object's text, as it was stored: valid UTF-8, and `{` after white space. More is not checked.
    Text(Cow<'a, [u8]>),
    /// The sentinel `__missing__`: to be answered like an absent key.
    Missing,
}

/// Why a stored value has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The text is longer than the caller accepts.
    TooBig,
    /// It is not what PostHog stores.
    Malformed(Malformed),
}

/// What is wrong with a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A zstd frame that is cut short, damaged, lies about its size, or consists of tiny blocks.
    Zstd,
    /// A zstd frame that needs a dictionary, or more memory to look back than 8 MiB.
    ZstdNeeds,
    /// A zlib stream that is cut short or damaged, or consists of tiny blocks.
    Zlib,
    /// A gzip stream that is cut short or damaged, or consists of tiny blocks.
    Gzip,
    /// A content coding other than gzip.
    Coding,
    /// Bytes after the compressed data, such as a second zstd frame.
    Trailing,
    /// A pickle that is cut short, lies about its size, or holds anything else than one string.
    Pickle,
    /// A text that is not a JSON object.
    NotJson,
    /// A text that begins like one, and is cut short, damaged, or not the end.
    Json,
    /// A text that is not UTF-8.
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig => f.write_str("the text is longer than definitions.max_bytes"),
            Self::Malformed(what) => write!(f, "the stored value is malformed: {what}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "the zstd frame is cut short or damaged",
            Self::ZstdNeeds => "the zstd frame needs a dictionary or a window above 8 MiB",
            Self::Zlib => "the zlib stream is cut short or damaged",
            Self::Gzip => "the gzip stream is cut short or damaged",
            Self::Coding => "the object has a content coding other than gzip",
            Self::Trailing => "bytes follow the compressed data",
            Self::Pickle => "the pickle is cut short, damaged, or not of one string",
            Self::NotJson => "the text does not start with '{'",
            Self::Json => "the JSON is cut short or damaged, or something follows it",
            Self::NotUtf8 => "the text is not UTF-8",
        })
    }
}

impl From<Malformed> for DecodeError {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

/// Reads a stored value. `max_bytes` is the longest text in bytes that is accepted.
///
/// Memory asked for is a small multiple of `max_bytes`, and the work is bounded by `max_bytes` and the stored bytes.
/// A text that is not compressed is borrowed.
///
/// # Errors
/// When the text is longer than `max_bytes`, and when the value is none of the known forms. The text must be
/// UTF-8 although it is passed on as bytes: the check costs a twentieth of decompressing it, and no client
/// could read anything else.
pub fn decode(stored: &[u8], max_bytes: usize) -> Result<Decoded<'_>, DecodeError> {
    let max_pickled = max_bytes.saturating_add(pickle::OVERHEAD);
    // No encoder makes data longer by more than that. A longer value is too big or, compressed, nothing
    // but a way to spend time.
    if stored.len()
        > max_pickled
            .saturating_add(max_bytes / 16)
            .saturating_add(64)
    {
        return Err(DecodeError::TooBig);
    }
    if zstd::recognises(stored) {
        shrink(zstd::decompress(stored, max_pickled)?, max_bytes)
    } else if zlib::recognises(stored) {
        shrink(zlib::decompress(stored, max_pickled)?, max_bytes)
    } else {
        let text = stored.get(text_range(stored)?).unwrap_or_default();
        if !is_payload(text, max_bytes)? {
            return Ok(Decoded::Missing);
        }
        Ok(Decoded::Text(Cow::Borrowed(text)))
    }
}

/// Where the text lies in what is not, or no longer, compressed.
fn text_range(bytes: &[u8]) -> Result<Range<usize>, Malformed> {
    if pickle::recognises(bytes) {
        return pickle::text_range(bytes);
    }
    Ok(0..bytes.len())
}

/// Reduces decompressed bytes to the text inside.
fn shrink(mut bytes: Vec<u8>, max_bytes: usize) -> Result<Decoded<'static>, DecodeError> {
    let range = text_range(&bytes)?;
    let text = bytes.get(range.clone()).unwrap_or_default();
    if !is_payload(text, max_bytes)? {
        return Ok(Decoded::Missing);
    }
    bytes.truncate(range.end);
    bytes.drain(..range.start.min(bytes.len()));
    Ok(Decoded::Text(Cow::Owned(bytes)))
}

/// Most blocks that so many bytes of content may come in. Both formats set up tables for each block, which
/// takes microseconds whatever the block holds, while encoders fill their blocks: 8 MiB of empty ones would
/// hold a worker for seconds.
fn max_blocks(content: usize) -> usize {
    64 + content / 512
}

/// Whether a text is a payload; `false` for the sentinel.
fn is_payload(text: &[u8], max_bytes: usize) -> Result<bool, DecodeError> {
    if text == MISSING {
        return Ok(false);
    }
    if text.len() > max_bytes {
        return Err(DecodeError::TooBig);
    }
    if first(skip_white_space(text)) != b'{' {
        return Err(Malformed::NotJson.into());
    }
    if !is_utf8(text) {
        return Err(Malformed::NotUtf8.into());
    }
    Ok(true)
}

/// Most payloads are ASCII, or nearly, which is seen at a third of the price: the check of the standard library looks at
/// four bytes at a time here.
fn is_utf8(mut text: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some((words, rest)) = text.split_first_chunk::<64>() {
        let all = words
            .as_chunks()
            .0
            .iter()
            .fold(0, |all, word| all | u64::from_ne_bytes(*word));
        if all & HIGH != 0 {
            break;
        }
        text = rest;
    }
    std::str::from_utf8(text).is_ok()
}

#[cfg(test)]
mod tests;
