//! The rules of [`decode`], on what Python writes and on what nobody should.

use super::*;
use proptest::prelude::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[path = "fixtures.rs"]
mod fixtures;

/// The default of `definitions.max_bytes`.
const MOST: usize = 8 << 20;

/// Bytes of hexadecimal digits; blanks are for the eye.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn text(text: &str) -> Result<Decoded<'static>, DecodeError> {
    Ok(Decoded::Text(Cow::Owned(text.as_bytes().to_vec())))
}

fn malformed<T>(what: Malformed) -> Result<T, DecodeError> {
    Err(DecodeError::Malformed(what))
}

/// A zstd frame of these blocks: type, size, content.
fn frame(header: &str, blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut frame = hex("28b52ffd");
    frame.extend(hex(header));
    for (index, (kind, size, content)) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        frame.extend(&(size << 3 | kind << 1 | last).to_le_bytes()[..3]);
        frame.extend(*content);
    }
    frame
}

/// One raw block per chunk.
fn raw_frame(header: &str, content: &[u8], chunk: usize) -> Vec<u8> {
    let blocks: Vec<_> = content
        .chunks(chunk)
        .map(|chunk| (0, chunk.len() as u32, chunk))
        .collect();
    frame(header, &blocks)
}

/// Window of 128 KiB, nothing declared, no checksum.
const OPEN: &str = "0038";

#[test]
fn what_python_writes_is_read() {
    for fixture in fixtures::ALL {
        let decoded = decode(&hex(fixture), MOST).map(|decoded| match decoded {
            Decoded::Text(text) => String::from_utf8(text.into_owned()).unwrap(),
            Decoded::Missing => "missing".to_owned(),
        });
        assert_eq!(decoded, Ok(fixtures::text()), "{fixture}");
    }
}

#[test]
fn what_is_not_compressed_is_borrowed() {
    let plain = br#"{"flags":[]}"#;
    let pickled = hex("8004 951000000000000000 8c0c7b22666c616773223a5b5d7d 94 2e");
    for stored in [&plain[..], &pickled] {
        assert_eq!(
            decode(stored, MOST),
            Ok(Decoded::Text(Cow::Borrowed(&plain[..])))
        );
        assert!(matches!(
            decode(stored, MOST),
            Ok(Decoded::Text(Cow::Borrowed(_)))
        ));
    }
}

#[test]
fn the_sentinel_is_a_miss_in_every_form() {
    for stored in [
        "5f5f6d697373696e675f5f",
        "8004 950f00000000000000 8c0b5f5f6d697373696e675f5f 94 2e",
        "8003 580b0000005f5f6d697373696e675f5f 7100 2e",
        "28b52ffd201ad100008004950f000000000000008c0b5f5f6d697373696e675f5f942e",
        "789c6b6099cacf00013ddcf1f1b999c5c59979e9f1f153f4004ab506f8",
    ] {
        assert_eq!(decode(&hex(stored), MOST), Ok(Decoded::Missing), "{stored}");
        // Whatever the bound is.
        assert_eq!(decode(&hex(stored), 1), Ok(Decoded::Missing), "{stored}");
    }
}

#[test]
fn a_text_that_is_no_object_is_refused() {
    for stored in [
        "",
        " ",
        "null",
        "[]",
        " []",
        "__missing__ ",
        "\u{feff}{}",
        "\u{b}{}",
        "xyz",
    ] {
        let expected = malformed(Malformed::NotJson);
        assert_eq!(decode(stored.as_bytes(), MOST), expected, "{stored:?}");
        let mut pickled = vec![0x80, 4, 0x8c, stored.len() as u8];
        pickled.extend(stored.as_bytes());
        pickled.push(b'.');
        assert_eq!(decode(&pickled, MOST), expected, "{stored:?} in a pickle");
        let mut compressed = raw_frame(OPEN, &pickled, 100);
        assert_eq!(decode(&compressed, MOST), expected, "{stored:?} compressed");
        compressed = raw_frame(OPEN, &compressed, 100);
        assert_eq!(decode(&compressed, MOST), expected, "compressed twice");
    }
}

#[test]
fn white_space_before_the_object_is_part_of_the_text() {
    let blank = " \r\n\t{}";
    let mut pickled = vec![0x80, 4, 0x8c, blank.len() as u8];
    pickled.extend(blank.as_bytes());
    pickled.push(b'.');
    for stored in [blank.as_bytes(), &pickled, &raw_frame(OPEN, &pickled, 100)] {
        assert_eq!(decode(stored, MOST), text(blank));
    }
}

#[test]
fn a_text_that_is_not_utf8_is_refused() {
    for stored in ["7b22ff227d", "8004 8c057b22ff227d 94 2e"] {
        assert_eq!(decode(&hex(stored), MOST), malformed(Malformed::NotUtf8));
    }
    assert_eq!(decode("{\"é😀\"}".as_bytes(), MOST), text("{\"é😀\"}"));
}

#[test]
fn a_pickle_that_is_damaged_is_refused_compressed_or_not() {
    let pickled = hex("8004 8c027b7d 94");
    let expected = malformed(Malformed::Pickle);
    assert_eq!(decode(&pickled, MOST), expected);
    assert_eq!(decode(&raw_frame(OPEN, &pickled, 100), MOST), expected);
}

#[test]
fn the_bound_is_the_length_of_the_text_in_every_form() {
    let length = fixtures::text().len();
    let mut forms: Vec<Vec<u8>> = fixtures::ALL.iter().map(|fixture| hex(fixture)).collect();
    forms.push(fixtures::text().into_bytes());
    let mut pickled = hex("8005 58");
    pickled.extend((length as u32).to_le_bytes());
    pickled.extend(fixtures::text().bytes());
    pickled.extend(b"\x94.");
    forms.push(pickled);
    for stored in forms {
        assert_eq!(decode(&stored, length), text(&fixtures::text()));
        for max_bytes in [length - 1, length / 2, 100, 1, 0] {
            assert_eq!(
                decode(&stored, max_bytes),
                Err(DecodeError::TooBig),
                "{max_bytes}"
            );
        }
    }
}

#[test]
fn a_zstd_frame_that_declares_too_much_is_refused() {
    let too_big = Err(DecodeError::TooBig);
    for header in [
        "a0 ffffffff",
        "e0 ffffffffffffffff",
        "e0 0000000001000000",
        "a0 1b008000", // One byte more than 8 MiB and what a pickle adds.
        "80 38 1b008000",
    ] {
        assert_eq!(
            decode(&raw_frame(header, b"{}", 9), MOST),
            too_big,
            "{header}"
        );
    }
    // Content longer or shorter than declared
    for header in ["20 01", "20 03", "60 0000", "00 38 ffff"] {
        let frame = raw_frame(header, b"{}", 9);
        assert_eq!(decode(&frame, MOST), malformed(Malformed::Zstd), "{header}");
    }
    for header in ["20 02", "80 38 02000000", "e0 0200000000000000"] {
        assert_eq!(
            decode(&raw_frame(header, b"{}", 9), MOST),
            text("{}"),
            "{header}"
        );
    }
}

#[test]
fn a_zstd_frame_that_needs_more_than_a_text_does_is_refused() {
    for header in [
        "00 ff",          // The largest window
        "00 69",          // The smallest above 8 MiB
        "21 01 02",       // Dictionary 1
        "22 ffff 02",     // Dictionary 65535
        "23 00000001 02", // Dictionary 0x01000000
        "e3 01020304 02000000 00000000",
    ] {
        let frame = raw_frame(header, b"{}", 9);
        assert_eq!(
            decode(&frame, MOST),
            malformed(Malformed::ZstdNeeds),
            "{header}"
        );
    }
    // 8 MiB, and dictionary zero, which is none.
    for header in ["00 68", "21 00 02", "23 00000000 02"] {
        assert_eq!(
            decode(&raw_frame(header, b"{}", 9), MOST),
            text("{}"),
            "{header}"
        );
    }
    // A reserved bit
    let frame = raw_frame("28 02", b"{}", 9);
    assert_eq!(decode(&frame, MOST), malformed(Malformed::Zstd));
}

#[test]
fn a_zstd_bomb_is_too_big_and_ends_early() {
    // 128 KiB of blanks from 4 bytes, as often as a frame may have blocks: 1 GiB.
    let fill: (u32, u32, &[u8]) = (1, 128 << 10, b" ");
    let bomb = frame(OPEN, &vec![fill; 8_192]);
    assert_eq!(decode(&bomb, MOST), Err(DecodeError::TooBig));
    // With the size declared that fits, it lies.
    let bomb = frame("80 38 00008000", &vec![fill; 8_192]);
    assert_eq!(decode(&bomb, MOST), malformed(Malformed::Zstd));
}

#[test]
fn a_zstd_frame_of_very_many_blocks_is_refused() {
    let content = [&b"{"[..], &b" ".repeat(9_998), b"}"].concat();
    let tiny = raw_frame(OPEN, &content, 1);
    // Without a declared size the bound counts: 64 blocks and one for each 512 bytes.
    assert_eq!(decode(&tiny, 40_000), malformed(Malformed::Zstd));
    assert!(decode(&tiny, MOST).is_ok());
    let declared = raw_frame("60 1026", &content, 1);
    assert_eq!(decode(&declared, MOST), malformed(Malformed::Zstd));
    let declared = raw_frame("60 1026", &content, 200);
    assert!(decode(&declared, MOST).is_ok());
}

#[test]
fn a_zstd_value_is_one_frame() {
    let one = hex(fixtures::ZSTD_PLAIN);
    let skippable = hex("502a4d18 01000000 00");
    for more in [&one[..], &skippable, b"\0"] {
        let value = [&one[..], more].concat();
        assert_eq!(decode(&value, MOST), malformed(Malformed::Trailing));
    }
    let value = [&skippable[..], &one].concat();
    assert_eq!(decode(&value, MOST), malformed(Malformed::NotJson));
}

#[test]
fn a_zstd_block_of_the_reserved_type_or_size_is_refused() {
    for block in [(3, 2, &b"{}"[..]), (1, (128 << 10) + 1, b" ")] {
        let frame = frame(OPEN, &[block]);
        assert_eq!(decode(&frame, MOST), malformed(Malformed::Zstd));
    }
}

#[test]
fn a_zstd_checksum_is_verified() {
    let good = hex(fixtures::ZSTD_CHECKSUM);
    for from_end in 1..=4 {
        let mut bad = good.clone();
        let index = bad.len() - from_end;
        bad[index] ^= 1;
        assert_eq!(decode(&bad, MOST), malformed(Malformed::Zstd));
    }
}

#[test]
fn a_zlib_bomb_is_too_big() {
    // 1 MiB of zeros, from Python's zlib.compress(bytes(1 << 20), 9).
    let mut bomb = hex("78daedc13101000000c2a0f54f6d085fa0");
    bomb.extend([0; 1016]);
    bomb.extend(hex("3e0300f00001"));
    assert_eq!(decode(&bomb, 1 << 19), Err(DecodeError::TooBig));
    assert_eq!(decode(&bomb, 1_500), Err(DecodeError::TooBig));
}

#[test]
fn a_zlib_stream_of_very_many_blocks_is_refused() {
    // Empty stored blocks, and a last one with the text; the checksum is that of "{}".
    let stream = |empty: usize| {
        let mut stream = hex("7801");
        stream.extend(hex("000000ffff").repeat(empty));
        stream.extend(hex("010200fdff 7b7d 017500f9"));
        stream
    };
    assert_eq!(decode(&stream(64), 1_000), text("{}"));
    assert_eq!(decode(&stream(67), 1_000), malformed(Malformed::Zlib));
}

#[test]
fn a_zlib_value_is_one_stream_with_its_checksum() {
    let good = hex(fixtures::ZLIB_6);
    let more = [&good[..], b"x"].concat();
    assert_eq!(decode(&more, MOST), malformed(Malformed::Trailing));
    let twice = [&good[..], &good].concat();
    assert_eq!(decode(&twice, MOST), malformed(Malformed::Trailing));
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&bad, MOST), malformed(Malformed::Zlib));
    // A preset dictionary (FDICT)
    let dictionary = hex("78bb 00000001 0300 00000001");
    assert_ne!(decode(&dictionary, MOST), text(""));
}

#[test]
fn a_value_that_is_cut_short_is_refused() {
    for fixture in fixtures::ALL {
        let whole = hex(fixture);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end], MOST).is_err(), "{fixture} at {end}");
        }
    }
}

#[test]
fn a_value_much_longer_than_its_text_may_be_is_not_looked_at() {
    let long = [&hex(fixtures::ZLIB_6)[..], &[0; 5_000]].concat();
    assert_eq!(
        decode(&long, fixtures::text().len()),
        Err(DecodeError::TooBig)
    );
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(
        DecodeError::TooBig.to_string(),
        "the text is longer than definitions.max_bytes"
    );
    assert_eq!(
        DecodeError::from(Malformed::Pickle).to_string(),
        "the stored value is malformed: the pickle is cut short, damaged, or not of one string"
    );
}

/// What `decode` gives is within its contract, whatever it was given.
fn keeps_its_contract(stored: &[u8], max_bytes: usize) -> Result<(), TestCaseError> {
    if let Ok(Decoded::Text(text)) = decode(stored, max_bytes) {
        prop_assert_eq!(text.trim_ascii_start().first(), Some(&b'{'));
        prop_assert!(text.len() <= max_bytes);
        prop_assert!(std::str::from_utf8(&text).is_ok());
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        mut stored in prop::collection::vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec!["", "28b52ffd", "28b52ffd0038", "789c", "8004", "7b"]),
        max_bytes in 0usize..10_000,
    ) {
        stored.splice(0..0, hex(start));
        keeps_its_contract(&stored, max_bytes)?;
    }

    #[test]
    fn damaged_values_never_panic(
        fixture in prop::sample::select(&fixtures::ALL[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        max_bytes in prop::sample::select(vec![10, 1_000, 3_946, MOST]),
    ) {
        let mut stored = hex(fixture);
        for (index, byte) in damage {
            let index = index.index(stored.len());
            stored[index] = byte;
        }
        keeps_its_contract(&stored, max_bytes)?;
    }

    #[test]
    fn raw_zstd_blocks_come_back(inside in "[ -~é]{0,400}", chunk in 50usize..500) {
        let inside = format!("{{{inside}");
        let frame = raw_frame(OPEN, inside.as_bytes(), chunk);
        prop_assert_eq!(decode(&frame, MOST), text(&inside));
    }
}
