//! Reads JSON, piece by piece.
//!
//! serde_json reads numbers of more than 15 digits inexactly without a feature that costs 43 KB, and refuses unpaired
//! surrogates. Both decide here which variant a user gets.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::number;
use super::partial::PartialValue;
use super::value::JsonValue;

/// Deepest nesting of a body, and of a rule.
pub const MAX_DEPTH: u32 = 100;

/// Levels of definitions that rules may nest in, and then some: a rule that is too deep hurts its flag alone.
const AROUND_RULES: u32 = 28;

/// What is no JSON, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Where, in bytes from the beginning.
    pub at: usize,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is no JSON, or nests too deep, at byte {}", self.at)
    }
}

impl std::error::Error for NotJson {}

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    /// How much deeper it may go.
    depth_left: u32,
}

impl<'t> Reader<'t> {
    /// Reads from this place on.
    pub(super) const fn new(text: &'t [u8], at: usize) -> Self {
        Self {
            text,
            at,
            depth_left: MAX_DEPTH,
        }
    }

    /// Reads rules that nest as deep as they may, and what is around them.
    pub(super) const fn of_definitions(text: &'t [u8], at: usize) -> Self {
        Self {
            text,
            at,
            depth_left: MAX_DEPTH + AROUND_RULES,
        }
    }

    /// Where it is, in bytes from the beginning.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// That something does not fit here.
    pub(super) const fn not_json(&self) -> NotJson {
        NotJson { at: self.at }
    }

    /// The next byte that is not blank.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Takes this byte, if it is next.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes this byte.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        match self.takes(byte) {
            true => Ok(()),
            false => Err(self.not_json()),
        }
    }

    /// Demands that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), NotJson> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.not_json()),
        }
    }

    /// Reads an object, and each of its members by `member`, in the order of the text.
    pub(super) fn object<E: From<NotJson>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'t, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.nested(b'{', b'}', |reader| {
            let name = reader.string()?;
            reader.expect(b':')?;
            member(reader, name)
        })
    }

    /// Reads a list, and each of its elements by `element`.
    pub(super) fn list<E: From<NotJson>>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.nested(b'[', b']', element)
    }

    fn nested<E: From<NotJson>>(
        &mut self,
        open: u8,
        close: u8,
        mut part: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(open)?;
        let Some(left) = self.depth_left.checked_sub(1) else {
            return Err(self.not_json().into());
        };
        self.depth_left = left;
        if !self.takes(close) {
            loop {
                part(self)?;
                if !self.takes(b',') {
                    self.expect(close)?;
                    break;
                }
            }
        }
        self.depth_left = left + 1;
        Ok(())
    }

    /// Takes this bracket, inside of so many others.
    pub(super) fn opens(&mut self, bracket: u8, inside_of: usize) -> Result<(), NotJson> {
        self.expect(bracket)?;
        let left = usize::try_from(self.depth_left).unwrap_or_default();
        match inside_of < left {
            true => Ok(()),
            false => Err(self.not_json()),
        }
    }

    /// Reads a member's name, and what follows it.
    pub(super) fn name(&mut self) -> Result<Rc<str>, NotJson> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name.into())
    }

    /// Reads any value. Of members with the same name the last counts.
    pub(super) fn value(&mut self) -> Result<JsonValue, NotJson> {
        let value = PartialValue::default().read(self, usize::MAX)?;
        value.ok_or(self.not_json())
    }

    /// Reads a value that is neither an object nor a list.
    pub(super) fn scalar(&mut self) -> Result<JsonValue, NotJson> {
        match self.peek() {
            Some(b'"') => Ok(JsonValue::Text(self.string()?.into())),
            Some(b't') => self.word("true", JsonValue::Bool(true)),
            Some(b'f') => self.word("false", JsonValue::Bool(false)),
            Some(b'n') => self.word("null", JsonValue::Null),
            // -0 becomes 0: both have one canonical form, and so one tag.
            _ => Ok(JsonValue::Number(self.number()?.0 + 0.0)),
        }
    }

    /// Reads any value, and returns its text.
    pub(super) fn skipped(&mut self) -> Result<&'t [u8], NotJson> {
        self.peek();
        let from = self.at;
        self.value()?;
        Ok(self.text.get(from..self.at).unwrap_or_default())
    }

    fn word(&mut self, word: &str, value: JsonValue) -> Result<JsonValue, NotJson> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.not_json());
        }
        self.at += word.len();
        Ok(value)
    }

    /// Reads a number, and returns it with its text.
    pub(super) fn number(&mut self) -> Result<(f64, &'t str), NotJson> {
        self.peek();
        let start = self.at;
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _ = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let text = std::str::from_utf8(text).unwrap_or_default();
        let number = number::parse(text).filter(|number| number.is_finite());
        Ok((number.ok_or(NotJson { at: start })?, text))
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Digits, one or more.
    fn digits(&mut self) -> Result<(), NotJson> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        match self.at > from {
            true => Ok(()),
            false => Err(self.not_json()),
        }
    }

    /// Reads text. What is no UTF-8, and an unpaired surrogate, becomes U+FFFD.
    pub(super) fn string(&mut self) -> Result<Cow<'t, str>, NotJson> {
        self.expect(b'"')?;
        let piece = self.piece();
        if self.skip(b'"') {
            return Ok(String::from_utf8_lossy(piece));
        }
        let mut text = String::from_utf8_lossy(piece).into_owned();
        while !self.skip(b'"') {
            if self.skip(b'\\') {
                let character = self.escaped()?;
                text.push(character);
            } else {
                match self.piece() {
                    [] => return Err(self.not_json()),
                    piece => text.push_str(&String::from_utf8_lossy(piece)),
                }
            }
        }
        Ok(Cow::Owned(text))
    }

    /// The bytes that stand for themselves.
    fn piece(&mut self) -> &'t [u8] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
        let length = rest.iter().take_while(plain).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn escaped(&mut self) -> Result<char, NotJson> {
        let escape = self.text.get(self.at).copied();
        self.at += 1;
        Ok(match escape {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'u') => {
                let first = self.unit()?;
                let mut ahead = self.clone();
                let pair =
                    (0xd800..0xdc00).contains(&first) && ahead.skip(b'\\') && ahead.skip(b'u');
                let second = if pair { ahead.unit()? } else { 0 };
                if (0xdc00..0xe000).contains(&second) {
                    self.at = ahead.at;
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    char::from_u32(code)
                } else {
                    char::from_u32(first)
                }
                .unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.not_json()),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, NotJson> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.text.get(self.at).copied().map(char::from);
            let digit = digit.and_then(|digit| digit.to_digit(16));
            unit = unit * 16 + digit.ok_or(self.not_json())?;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn canonical(text: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        JsonValue::read(text).ok()?.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_json_has_one_canonical_form() {
        for (text, expected) in [
            (
                r#" { "b" : 1.0 , "a" : [ true , null ] } "#,
                r#"{"a":[true,null],"b":1}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"a":1,"a":{"x":1},"a":2}"#, r#"{"a":2}"#),
            (r#""\u0041\n\/\u00e9\ud83d\ude00""#, "\"A\\n/é😀\""),
            (r#""\ud800""#, "\"\u{fffd}\""),
            (
                r#""\ud800x\ude00\ud800\ud83d\ude00""#,
                "\"\u{fffd}x\u{fffd}\u{fffd}😀\"",
            ),
            ("-0.0", "0"),
            ("1e2", "100"),
            ("9007199254740993", "9007199254740992"),
            ("0.30000000000000004", "0.30000000000000004"),
        ] {
            assert_eq!(
                canonical(text.as_bytes()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(canonical(b"\"a\xffb\"").as_deref(), Some("\"a\u{fffd}b\""));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "tru",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "1e999",
            "NaN",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "1 2",
            "\"\\ud800\\u12\"",
            "'a'",
        ] {
            assert_eq!(canonical(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let most = usize::try_from(MAX_DEPTH).unwrap();
        assert!(canonical(nested(most).as_bytes()).is_some());
        assert_eq!(canonical(nested(most + 1).as_bytes()), None);
        assert_eq!(canonical("[".repeat(1 << 20).as_bytes()), None);
        // Depth counts what is open, not what was.
        let row = format!("[{}[]]", "[],".repeat(1_000));
        assert!(canonical(row.as_bytes()).is_some());
    }
}
