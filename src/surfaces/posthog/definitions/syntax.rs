//! The grammar of JSON (RFC 8259), as far as one pass over a text needs it.
//!
//! Each function takes what is left of the text, and returns what is left behind what it has read, or `None` where the
//! grammar allows no such thing. Behind the end the next byte reads as zero, which stands nowhere in JSON, so a text that
//! is cut short needs no case of its own. Whether strings are UTF-8 is not asked here.
//!
//! Every byte of a payload passes here before it is answered, so what is common is short: strings go by in words of eight
//! bytes, and a rest of a slice needs one comparison of its length for each.

/// One bit in each of eight bytes: the lowest, the highest.
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The next byte; zero behind the end.
#[inline(always)]
pub fn first(rest: &[u8]) -> u8 {
    rest.first().copied().unwrap_or(0)
}

/// Skips white space (§2): space, tab, line feed, carriage return.
#[inline(always)]
pub fn skip_white_space(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\t' | b'\r', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// The rest behind a separator and the white space after it.
#[inline(always)]
pub fn skip_separator(rest: &[u8], separator: u8) -> Option<&[u8]> {
    // As Python writes it: one blank follows.
    if let Some((next, behind)) = rest.split_first_chunk()
        && *next == [separator, b' ']
    {
        return Some(skip_white_space(behind));
    }
    match skip_white_space(rest) {
        [next, behind @ ..] if *next == separator => Some(skip_white_space(behind)),
        _ => None,
    }
}

/// A string (§7), from the byte behind its opening quotation mark: what is left behind it, and whether it has escapes.
#[inline(always)]
pub fn skip_string(mut rest: &[u8]) -> Option<(&[u8], bool)> {
    let mut escaped = false;
    loop {
        let (next, behind) = next_special(rest)?;
        match next {
            b'"' => return Some((behind, escaped)),
            b'\\' => {
                escaped = true;
                rest = skip_escape(behind)?;
            }
            _ => return None,
        }
    }
}

/// The first byte that does not stand for itself in a string: quotation mark, backslash, or a control character; and what
/// is left behind it.
#[inline(always)]
fn next_special(rest: &[u8]) -> Option<(u8, &[u8])> {
    // Most strings are that short.
    if let Some((eight, behind)) = rest.split_first_chunk() {
        let eight = u64::from_le_bytes(*eight);
        return match special_of(eight) {
            0 => next_special_far(behind),
            marks => split_at_mark(eight, marks, rest),
        };
    }
    next_special_far(rest)
}

/// The same, of a long string or near the end of the text. Not a part of the caller, so that all that it needs stays in
/// registers.
#[inline(never)]
fn next_special_far(mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while let Some((sixteen, behind)) = rest.split_first_chunk() {
        let sixteen = u128::from_le_bytes(*sixteen);
        let (one, other) = (sixteen as u64, (sixteen >> 64) as u64);
        let (marks, others) = (special_of(one), special_of(other));
        if marks | others != 0 {
            return match marks {
                0 => split_at_mark(other, others, rest.get(8..)?),
                marks => split_at_mark(one, marks, rest),
            };
        }
        rest = behind;
    }
    loop {
        let (next, behind) = rest.split_first()?;
        if matches!(next, b'"' | b'\\' | 0..0x20) {
            return Some((*next, behind));
        }
        rest = behind;
    }
}

/// The first marked byte of a word, with which the rest begins; and what is left behind it.
#[inline(always)]
fn split_at_mark(eight: u64, marks: u64, rest: &[u8]) -> Option<(u8, &[u8])> {
    let bits = marks.trailing_zeros() & 0x38;
    let behind = rest.get(bits as usize / 8 + 1..)?;
    Some(((eight >> bits) as u8, behind))
}

/// Marks the highest bit of each byte of a word that is special. Exact up to the first that is marked.
#[inline(always)]
const fn special_of(eight: u64) -> u64 {
    // Of the bytes below 128 those are marked that a subtraction takes below zero. With its second bit turned over, a
    // quotation mark is next to the control characters.
    let low = (eight ^ (LOW * 2)).wrapping_sub(LOW * 0x21);
    let backslash = (eight ^ (LOW * 0x5c)).wrapping_sub(LOW);
    (low | backslash) & !eight & HIGH
}

/// An escape, from the byte behind its backslash.
fn skip_escape(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
            behind @ ..,
        ] => Some(behind),
        [b'u', a, b, c, d, behind @ ..] => {
            let hexadecimal = [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit);
            hexadecimal.then_some(behind)
        }
        _ => None,
    }
}

/// A number (§6).
pub fn skip_number(mut rest: &[u8]) -> Option<&[u8]> {
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    rest = match rest {
        [b'0', behind @ ..] => behind,
        _ => skip_digits(rest)?,
    };
    if let [b'.', behind @ ..] = rest {
        rest = skip_digits(behind)?;
    }
    if let [b'e' | b'E', behind @ ..] = rest {
        rest = match behind {
            [b'+' | b'-', digits @ ..] => skip_digits(digits)?,
            digits => skip_digits(digits)?,
        };
    }
    Some(rest)
}

/// At least one digit.
#[inline(always)]
fn skip_digits(rest: &[u8]) -> Option<&[u8]> {
    let [b'0'..=b'9', rest @ ..] = rest else {
        return None;
    };
    let mut rest = rest;
    while let [b'0'..=b'9', behind @ ..] = rest {
        rest = behind;
    }
    Some(rest)
}

/// One of the three literal names (§3).
#[inline(always)]
pub fn skip_literal(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b't', b'r', b'u', b'e', behind @ ..]
        | [b'f', b'a', b'l', b's', b'e', behind @ ..]
        | [b'n', b'u', b'l', b'l', behind @ ..] => Some(behind),
        _ => None,
    }
}

/// What is open: a list, or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// `[`
    List,
    /// `{`
    Object,
}

/// All that is open. A bit for each, so that depth costs no stack, and an eighth of the text at most.
#[derive(Debug, Default)]
pub struct Nesting {
    depth: usize,
    /// The innermost ones, the last in the lowest bit: at least one of them, where any is open.
    inner: u64,
    /// The others, 64 to a word.
    outer: Vec<u64>,
}

impl Nesting {
    /// How many are open.
    #[inline(always)]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The innermost.
    #[inline(always)]
    pub fn last(&self) -> Option<Open> {
        match (self.depth, self.inner & 1) {
            (0, _) => None,
            (_, 0) => Some(Open::List),
            _ => Some(Open::Object),
        }
    }

    /// Opens one more.
    #[inline(always)]
    pub fn open(&mut self, open: Open) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(open == Open::Object);
        self.depth += 1;
    }

    /// Closes the innermost.
    #[inline(always)]
    pub fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inner >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(outer) = self.outer.pop()
        {
            self.inner = outer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Where what begins at `at` ends.
    fn end(text: &[u8], at: usize, skip: impl Fn(&[u8]) -> Option<&[u8]>) -> Option<usize> {
        let rest = skip(text.get(at..)?)?;
        Some(text.len() - rest.len())
    }

    fn string_end(text: &[u8], at: usize) -> Option<usize> {
        end(text, at, |rest| Some(skip_string(rest)?.0))
    }

    fn number_end(text: &[u8], at: usize) -> Option<usize> {
        end(text, at, skip_number)
    }

    fn literal_end(text: &[u8], at: usize) -> Option<usize> {
        end(text, at, skip_literal)
    }

    #[test]
    fn strings() {
        for inside in [
            "",
            "a",
            "seven b",
            "eight by",
            "nine byte",
            "é🚩\u{7f}",
            r#"\"\\\/\b\f\n\r\t"#,
            r"\u00e9\ud800\uFFFF",
            "a long one with an escape \\n behind the first eight",
        ] {
            for behind in ["", ",", "          "] {
                let text = format!(r#""{inside}"{behind}"#);
                let end = Some(inside.len() + 2);
                assert_eq!(string_end(text.as_bytes(), 1), end, "{text}");
            }
        }
        for bad in [
            "",
            "a",
            "eight by",
            "\\",
            r#"\""#,
            r#"\x""#,
            r#"\u12""#,
            r#"\u12g4""#,
            "\n\"",
            "eight by\t\"",
            "nul\0\"",
            "\u{1f}\"",
        ] {
            assert_eq!(string_end(bad.as_bytes(), 0), None, "{bad:?}");
        }
    }

    #[test]
    fn every_byte_ends_a_string_or_not_wherever_it_stands() {
        for value in 0..=255_u8 {
            for before in 0..10 {
                let text = [&b"aaaaaaaaaa"[..before], &[value], b"bbbbbbbb\""].concat();
                let expected = match value {
                    b'"' => Some(before + 1),
                    b'\\' => Some(text.len()),
                    0..0x20 => None,
                    _ => Some(text.len()),
                };
                assert_eq!(string_end(&text, 0), expected, "{value} at {before}");
            }
        }
    }

    #[test]
    fn numbers_and_literals() {
        for number in [
            "0",
            "-0",
            "7",
            "10",
            "-12",
            "0.5",
            "1.25",
            "1e5",
            "1E+5",
            "0e-05",
            "9".repeat(400).as_str(),
        ] {
            for behind in ["", ",", "]", " "] {
                let text = format!("{number}{behind}");
                assert_eq!(number_end(text.as_bytes(), 0), Some(number.len()), "{text}");
            }
        }
        for bad in ["", "-", "+1", ".5", "1.", "1.e1", "1e", "1e+", "-a", "NaN"] {
            assert_eq!(number_end(bad.as_bytes(), 0), None, "{bad}");
        }
        // What follows is for the caller to refuse.
        assert_eq!(number_end(b"01", 0), Some(1));
        for name in ["true", "false", "null"] {
            assert_eq!(literal_end(name.as_bytes(), 0), Some(name.len()));
            assert_eq!(literal_end(&name.as_bytes()[..name.len() - 1], 0), None);
        }
        assert_eq!(literal_end(b"True", 0), None);
        assert_eq!(literal_end(b"", 9), None);
    }

    #[test]
    fn what_was_opened_last_is_closed_first_at_any_depth() {
        let kind = |n: usize| {
            if n.is_multiple_of(3) {
                Open::List
            } else {
                Open::Object
            }
        };
        let mut nesting = Nesting::default();
        assert_eq!(nesting.last(), None);
        for n in 0..300 {
            nesting.open(kind(n));
            assert_eq!((nesting.depth(), nesting.last()), (n + 1, Some(kind(n))));
        }
        // Back and forth over the edge of a word.
        for _ in 0..200 {
            nesting.close();
        }
        for n in 100..300 {
            assert_eq!(nesting.last(), Some(kind(n - 1)));
            nesting.open(kind(n));
        }
        for n in (0..300).rev() {
            assert_eq!((nesting.depth(), nesting.last()), (n + 1, Some(kind(n))));
            nesting.close();
        }
        assert_eq!((nesting.last(), nesting.outer.len()), (None, 0));
        nesting.close();
        assert_eq!(nesting.depth(), 0);
    }
}
