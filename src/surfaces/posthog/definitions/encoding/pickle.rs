//! A pickle of exactly one `str`, as Python writes it with protocols 3, 4 and 5.
//!
//! A pickle is a program. This reads the one program that builds a string and stops; any other opcode is an
//! error, so nothing is executed. The opcodes are those of Python's `pickletools`.

use std::ops::Range;

use super::Malformed;

/// Most bytes around the text: `PROTO`, `FRAME`, the longest string header, `LONG_BINPUT`, `STOP`.
pub(super) const OVERHEAD: usize = 2 + 9 + 9 + 5 + 1;

const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const BINUNICODE8: u8 = 0x8d;
const MEMOIZE: u8 = 0x94;
const BINPUT: u8 = b'q';
const LONG_BINPUT: u8 = b'r';
const STOP: u8 = b'.';

/// Whether bytes start like a pickle: no UTF-8 text does.
pub(super) fn recognises(bytes: &[u8]) -> bool {
    bytes.starts_with(&[PROTO])
}

/// Where the string lies in its pickle.
///
/// # Errors
/// When it is cut short, followed by anything, or anything but one string; and when a length in it is not the
/// length of what is there.
pub(super) fn text_range(pickle: &[u8]) -> Result<Range<usize>, Malformed> {
    let range = program(pickle).ok_or(Malformed::Pickle)?;
    // A program that claims more than there is was cut short.
    match pickle.get(range.end..) {
        Some(end) if is_end(end) => Ok(range),
        _ => Err(Malformed::Pickle),
    }
}

/// Where the string lies according to what stands before it.
fn program(pickle: &[u8]) -> Option<Range<usize>> {
    let [PROTO, 3..=5, framed @ ..] = pickle else {
        return None;
    };
    let body = match framed {
        [FRAME, rest @ ..] => {
            let (length, body) = rest.split_first_chunk()?;
            // Python puts a short program into one frame, and one with a long string into none.
            if u64::from_le_bytes(*length) != u64::try_from(body.len()).ok()? {
                return None;
            }
            body
        }
        unframed => unframed,
    };
    let (length, rest) = match body {
        [SHORT_BINUNICODE, length, rest @ ..] => (usize::from(*length), rest),
        [BINUNICODE, rest @ ..] => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        [BINUNICODE8, rest @ ..] => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let start = pickle.len() - rest.len();
    Some(start..start.checked_add(length)?)
}

/// Whether the string is remembered at most once, for nobody, and the program stops.
fn is_end(end: &[u8]) -> bool {
    matches!(
        end,
        [STOP] | [MEMOIZE, STOP] | [BINPUT, _, STOP] | [LONG_BINPUT, _, _, _, _, STOP]
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn text(pickle: &[u8]) -> Option<&[u8]> {
        text_range(pickle).ok().map(|range| &pickle[range])
    }

    #[test]
    fn what_python_writes_for_protocols_3_to_5() {
        for pickle in [
            // pickle.dumps
            "80035803000000616263 7100 2e",
            "8004 950700000000000000 8c03616263 94 2e",
            "8005 950700000000000000 8c03616263 94 2e",
            // pickletools.optimize
            "80035803000000616263 2e",
            "8004 950600000000000000 8c03616263 2e",
            // Longer strings: without a frame, with longer headers and memo indexes
            "8004 5803000000616263 94 2e",
            "8005 8d0300000000000000616263 94 2e",
            "8003 5803000000616263 72ffffffff 2e",
        ] {
            assert_eq!(text(&hex(pickle)), Some(&b"abc"[..]), "{pickle}");
        }
    }

    #[test]
    fn anything_but_one_string_is_refused() {
        for pickle in [
            "",
            "80",
            "8004",
            "8002 5803000000616263 2e",
            "8006 8c03616263 2e",
            // bytes, an integer, a list, None
            "8004 4303616263 2e",
            "8004 4b01 2e",
            "8004 5d 94 2e",
            "8004 4e 2e",
            // os.system("a"): GLOBAL, and STACK_GLOBAL, TUPLE1, REDUCE after a string
            "8003 636f730a73797374656d0a 5801000000618552 2e",
            "8004 8c026f73 8c0673797374656d 93 8c0161 85 52 2e",
            // two strings, one remembered twice, a frame in a frame
            "8004 8c0161 8c0162 2e",
            "8004 8c0161 94 94 2e",
            "8004 950e00000000000000 950500000000000000 8c016194 2e",
            // does not stop, or goes on
            "8004 8c03616263 94",
            "8004 8c03616263",
            "8004 8c03616263 94 2e 2e",
            "8004 8c03616263 7100",
        ] {
            assert_eq!(text_range(&hex(pickle)), Err(Malformed::Pickle), "{pickle}");
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for pickle in [
            "8004 8c02616263 94 2e",
            "8004 8c05616263 94 2e",
            "8004 8cff616263 94 2e",
            "8004 58ffffffff616263 94 2e",
            "8004 8dffffffffffffffff616263 94 2e",
            "8004 8dffffffffffffff7f616263 94 2e",
            "8004 8d0300000001000000616263 94 2e",
            "8004 950600000000000000 8c03616263 94 2e",
            "8004 950800000000000000 8c03616263 94 2e",
            "8004 95ffffffffffffffff 8c03616263 94 2e",
        ] {
            assert_eq!(text_range(&hex(pickle)), Err(Malformed::Pickle), "{pickle}");
        }
    }

    #[test]
    fn a_text_may_look_like_opcodes() {
        assert_eq!(text(&hex("8004 8c022e2e 2e")), Some(&b".."[..]));
        assert_eq!(text(&hex("8004 8c00 2e")), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn a_string_comes_back_from_every_form(
            string in prop::collection::vec(any::<u8>(), 0..600),
            protocol in 3u8..=5, framed in any::<bool>(), form in 0..3, memo in 0usize..4,
        ) {
            let mut body = Vec::new();
            match form {
                0 if string.len() < 256 => body.extend([SHORT_BINUNICODE, string.len() as u8]),
                1 => {
                    body.push(BINUNICODE8);
                    body.extend((string.len() as u64).to_le_bytes());
                }
                _ => {
                    body.push(BINUNICODE);
                    body.extend((string.len() as u32).to_le_bytes());
                }
            }
            body.extend(&string);
            let memos: [&[u8]; 4] = [&[], &[MEMOIZE], &[BINPUT, 7], &[LONG_BINPUT, 1, 2, 3, 4]];
            body.extend(memos[memo]);
            body.push(STOP);
            let mut pickle = vec![PROTO, protocol];
            if framed {
                pickle.push(FRAME);
                pickle.extend((body.len() as u64).to_le_bytes());
            }
            pickle.extend(&body);
            prop_assert!(pickle.len() <= string.len() + OVERHEAD);
            prop_assert_eq!(text(&pickle), Some(&string[..]));
            for end in 0..pickle.len() {
                prop_assert_eq!(text(&pickle[..end]), None);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..60), pickled in any::<bool>()) {
            if pickled {
                bytes.splice(0..0, [PROTO, 4]);
            }
            if let Ok(range) = text_range(&bytes) {
                prop_assert!(range.end <= bytes.len());
            }
        }
    }
}
