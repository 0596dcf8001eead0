//! The grammar of JSON (RFC 8259), as far as one pass over a text needs it.
//!
//! Each function takes the text and a place in it, and returns the place behind what it has read, or `None` where the
//! grammar allows no such thing. A place behind the end reads as the byte zero, which stands nowhere in JSON, so a text
//! that is cut short needs no case of its own. Whether strings are UTF-8 is not asked here.

/// One bit in each of eight bytes: the lowest, the highest.
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The byte at a place; zero behind the end.
#[inline(always)]
pub fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// Skips white space (§2): space, tab, line feed, carriage return.
#[inline(always)]
pub fn skip_white_space(text: &[u8], mut at: usize) -> usize {
    while matches!(byte(text, at), b' ' | b'\n' | b'\t' | b'\r') {
        at += 1;
    }
    at
}

/// Where a string (§7) ends that begins with the quotation mark before `at`.
#[inline(always)]
pub fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        // Eight bytes at once: most strings are that short.
        if let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let eight = u64::from_le_bytes(*eight);
            let below = |bytes: u64, bound: u64| bytes.wrapping_sub(bound) & !bytes & HIGH;
            let equal = |byte: u8| below(eight ^ (LOW * u64::from(byte)), LOW);
            // Exact up to the first byte that is marked, and no other counts.
            let marked = below(eight, LOW * 0x20) | equal(b'"') | equal(b'\\');
            if marked == 0 {
                at += 8;
                continue;
            }
            at += (marked.trailing_zeros() / 8) as usize;
        }
        match byte(text, at) {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at + 1)?,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match byte(text, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = text.get(at + 1..at + 5)?;
            let hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
            hexadecimal.then_some(at + 5)
        }
        _ => None,
    }
}

/// Where a number (§6) ends.
pub fn number_end(text: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(byte(text, at) == b'-');
    at = match byte(text, at) {
        b'0' => at + 1,
        _ => digits_end(text, at)?,
    };
    if byte(text, at) == b'.' {
        at = digits_end(text, at + 1)?;
    }
    if matches!(byte(text, at), b'e' | b'E') {
        at += 1;
        at += usize::from(matches!(byte(text, at), b'+' | b'-'));
        at = digits_end(text, at)?;
    }
    Some(at)
}

/// At least one digit.
fn digits_end(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while byte(text, end).is_ascii_digit() {
        end += 1;
    }
    (end > at).then_some(end)
}

/// Where one of the three literal names (§3) ends.
pub fn literal_end(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let names: [&[u8]; 3] = [b"true", b"false", b"null"];
    let name = names.iter().find(|name| rest.starts_with(name))?;
    Some(at + name.len())
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
