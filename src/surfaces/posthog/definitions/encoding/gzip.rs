//! gzip (RFC 1952), decompressed within bounds: the content coding of objects.

use flate2::Crc;

use super::inflate::{Inflater, Wrapper};
use super::{DecodeError, Malformed};

/// Flags of a member's header (§2.3.1) that say what else is in it. Those that are not here are reserved.
const TEXT: u8 = 1;
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

/// Decompresses a file of one member or more, to at most `max_bytes` bytes. The checksums are verified.
///
/// # Errors
/// When the content is longer, or a member is cut short or damaged, or what follows one is no member.
pub fn gunzip(file: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    const DAMAGED: Malformed = Malformed::Gzip;
    let mut inflater = Inflater::new(max_bytes);
    let mut rest = file;
    // Each member takes of the file, and of the blocks that the inflater allows.
    loop {
        let stream = after_header(rest).ok_or(DAMAGED)?;
        let (content, after) = inflater.inflate(stream, Wrapper::None, DAMAGED)?;
        let mut crc = Crc::new();
        crc.update(content);
        let (sum, after) = after.split_first_chunk().ok_or(DAMAGED)?;
        let (length, after) = after.split_first_chunk().ok_or(DAMAGED)?;
        if u32::from_le_bytes(*sum) != crc.sum() || u32::from_le_bytes(*length) != crc.amount() {
            return Err(DAMAGED.into());
        }
        if after.is_empty() {
            return Ok(inflater.finish());
        }
        rest = after;
    }
}

/// What follows the header of a member.
fn after_header(member: &[u8]) -> Option<&[u8]> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, rest @ ..] = member else {
        return None;
    };
    if flags & !(TEXT | HEADER_CRC | EXTRA | NAME | COMMENT) != 0 {
        return None;
    }
    let mut rest = rest;
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_first_chunk()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tests::hex;
    use super::*;
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// From Python's `gzip.compress(b'{"flags":[]}', mtime=0)`.
    const PYTHON: &str = "1f8b0800000000000203ab564acb494c2f56b28a8ead05004df56a2c0c000000";

    const DAMAGED: Result<Vec<u8>, DecodeError> = Err(DecodeError::Malformed(Malformed::Gzip));

    fn gzip(text: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzBuilder::new()
            .filename("a name")
            .comment("a comment")
            .extra(vec![0, 1, 2])
            .write(Vec::new(), Compression::new(level));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_are_read_one_after_the_other() {
        let text = br#"{"flags":[]}"#.to_vec();
        let one = hex(PYTHON);
        assert_eq!(gunzip(&one, 12), Ok(text.clone()));
        let more = [&one[..], &gzip(b"  ", 6), &gzip(b"", 6), &one].concat();
        assert_eq!(gunzip(&more, 100), Ok([&text[..], b"  ", &text].concat()));
        // With a checksum of its header, which is not verified.
        let mut checked = one.clone();
        checked[3] = HEADER_CRC;
        checked.splice(10..10, [0xab, 0xcd]);
        assert_eq!(gunzip(&checked, 12), Ok(text));
    }

    #[test]
    fn the_bound_is_the_length_of_the_content() {
        for max_bytes in [0, 1, 11] {
            assert_eq!(gunzip(&hex(PYTHON), max_bytes), Err(DecodeError::TooBig));
        }
        let twice = hex(PYTHON).repeat(2);
        assert_eq!(gunzip(&twice, 23), Err(DecodeError::TooBig));
        let bomb = gzip(&vec![b' '; 4 << 20], 9);
        assert_eq!(gunzip(&bomb, 1 << 20), Err(DecodeError::TooBig));
    }

    #[test]
    fn what_is_cut_short_or_followed_by_something_else_is_refused() {
        for whole in [hex(PYTHON), gzip(b"{}", 6)] {
            for end in 0..whole.len() {
                assert_eq!(gunzip(&whole[..end], 100), DAMAGED, "{end}");
            }
            for more in [&b"x"[..], b"\0", b"\x1f\x8b"] {
                assert_eq!(gunzip(&[&whole[..], more].concat(), 100), DAMAGED);
            }
        }
    }

    #[test]
    fn checksum_length_method_and_reserved_flags_count() {
        let good = hex(PYTHON);
        for (place, bits) in [
            (2, 1),
            (3, 0x20),
            (3, 0x80),
            (24, 1),
            (27, 0x80),
            (28, 1),
            (31, 1),
        ] {
            let mut bad = good.clone();
            bad[place] ^= bits;
            assert_eq!(gunzip(&bad, 100), DAMAGED, "{place}");
        }
    }

    #[test]
    fn very_many_blocks_are_refused_in_one_member_and_in_many() {
        // Empty stored blocks, then one with the text.
        let blocks = |empty: usize| {
            let mut crc = Crc::new();
            crc.update(b"{}");
            let mut member = hex(PYTHON)[..10].to_vec();
            member.extend(hex("000000ffff").repeat(empty));
            member.extend(hex("010200fdff 7b7d"));
            member.extend(crc.sum().to_le_bytes());
            member.extend(2_u32.to_le_bytes());
            member
        };
        assert_eq!(gunzip(&blocks(64), 1_000), Ok(b"{}".to_vec()));
        assert_eq!(gunzip(&blocks(67), 1_000), DAMAGED);
        let empty = gzip(b"", 6);
        assert!(gunzip(&empty.repeat(60), 1_000).is_ok());
        assert_eq!(gunzip(&empty.repeat(70), 1_000), DAMAGED);
    }

    proptest! {
        #[test]
        fn a_text_comes_back(text in prop::collection::vec(any::<u8>(), 0..2_000), level in 0u32..=9) {
            prop_assert_eq!(gunzip(&gzip(&text, level), text.len()), Ok(text));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), begun in any::<bool>()) {
            let mut file = if begun { vec![0x1f, 0x8b, 8] } else { Vec::new() };
            file.extend(bytes);
            if let Ok(content) = gunzip(&file, 500) {
                prop_assert!(content.len() <= 500);
            }
        }
    }
}
