//! MurmurHash3, x86, 32 bits, with seed 0.

/// The hash of these bytes.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    let mix = |block: u32| {
        let block = block.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        block.wrapping_mul(0x1b87_3593)
    };
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        let hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13);
        hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let last = tail
        .iter()
        .rev()
        .fold(0, |block, byte| block << 8 | u32::from(*byte));
    hash ^= mix(last);
    #[allow(clippy::cast_possible_truncation)] // the length counts modulo 2^32
    let length = bytes.len() as u32;
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn hashes_are_those_of_flagd_testbed() {
        for (text, expected) in [
            ("", 0),
            ("ejOoVL", 0),
            ("bY9fO-", 1),
            ("SI7p-", 2_147_483_647),
            ("6LvT0", 2_147_483_648),
            ("ceQdGm", u32::MAX),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }
}
