//! A request target's query (WHATWG URL §5.1, `application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// The same bytes, kept beyond what they were borrowed from.
pub(crate) fn owned(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
    let mut bytes = bytes.into_owned();
    // What was decoded may have room to spare, which `weight` does not know.
    bytes.shrink_to_fit();
    Cow::Owned(bytes)
}

/// A `:path` before and after its first `?`.
pub(crate) fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    split_at_byte(path, b'?')
}

/// Bytes before and after the first `separator`.
pub(crate) fn split_at_byte(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == separator) {
        None => (bytes, &[]),
        Some(at) => (
            bytes.get(..at).unwrap_or_default(),
            bytes.get(at + 1..).unwrap_or_default(),
        ),
    }
}

/// Percent-decodes; `+` is a blank, and an incomplete escape stands for itself.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    unescape(bytes, b' ')
}

/// Percent-decodes; `plus` is what `+` stands for: a plus in a path (RFC 3986 §2.1). An incomplete escape stands for itself.
pub(crate) fn unescape(bytes: &[u8], plus: u8) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return Cow::Owned(out),
            [b'+', tail @ ..] => {
                out.push(plus);
                tail
            }
            [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
