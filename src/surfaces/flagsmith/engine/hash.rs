//! Where an identity falls among 100 percent.

use md5::{Digest, Md5};

/// What a digest is divided by; the remainder is at most [`HIGHEST`].
const MODULUS: u64 = 9_999;
const HIGHEST: f64 = 9_998.0;

/// Rounds after which 100 % is taken for an answer. Each one more happens once in 9 999 times.
const MAX_ROUNDS: usize = 4;

/// Bytes of digest work that hashing next to nothing costs.
pub(super) const LEAST_COST: u64 = 64;

/// The percentage of texts that are hashed one after the other: MD5, as one number of 128 bits, modulo 9 999, of 9 998.
/// At least 0 and less than 100: a hash of exactly 100 is made anew of twice the texts, with a comma between, as the
/// Python and the Node SDK do.
pub(super) fn percentage(texts: &[&str]) -> f64 {
    let mut hasher = Md5::new();
    let mut share = 100.0;
    for round in 0..MAX_ROUNDS {
        if round > 0 {
            hasher.update(b",");
        }
        for text in texts {
            hasher.update(text.as_bytes());
        }
        share = remainder(&hasher.clone().finalize().into()) / HIGHEST * 100.0;
        if share < 100.0 {
            break;
        }
    }
    share
}

/// The digest modulo [`MODULUS`], byte by byte: the target has no division of 128 bits.
fn remainder(digest: &[u8; 16]) -> f64 {
    let rest = digest
        .iter()
        .fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % MODULUS);
    // At most 9 998.
    rest as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_share_is_that_of_the_sdks() {
        // Python: int(hashlib.md5(b"13,k_user-1").hexdigest(), 16) % 9999 / 9998 * 100
        for (texts, share) in [
            (
                ["13", ",", "k", "_user-1"].as_slice(),
                96.669_333_866_773_36,
            ),
            (&["707,pub.client.7Qm2_id-0"], 49.699_939_987_997_595),
            (&[], 35.407_081_416_283_26),
        ] {
            assert_eq!(percentage(texts), share, "{texts:?}");
        }
    }

    #[test]
    fn a_hash_of_all_is_made_anew_of_twice_the_texts() {
        // The first number whose digest is 9 998 modulo 9 999.
        let text = 812.to_string();
        assert_eq!(remainder(&Md5::digest(&text).into()), HIGHEST);
        let twice = format!("{text},{text}");
        assert_eq!(percentage(&[&text]), percentage(&[&twice]));
        assert!(percentage(&[&text]) < 100.0);
    }
}
