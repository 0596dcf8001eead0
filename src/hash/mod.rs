//! SHA-256 of a token, credential or page, and the memory of those that were hashed last ([`Hashes`]).

mod keyed;
mod memo;

pub use keyed::KeyedHash;
pub use memo::{Hashed, Hashes, MAX_SECRET};

use std::fmt;

use sha2::{Digest, Sha256};

/// Bytes hashed by one call. V8 runs a fresh VM's code unoptimized and swaps it only between calls: one call for
/// 1.5 MB took 70 ms the first time, calls of this length 10 ms.
const HASHED_AT_ONCE: usize = 4 << 10;

/// The SHA-256 of bytes that come one after the other.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        // In pieces: V8 replaces slow code by fast one between calls, never inside of one.
        for piece in bytes.chunks(HASHED_AT_ONCE) {
            self.0.update(piece);
        }
    }

    /// The hash of all that was added.
    pub fn finish(self) -> Sha256Hash {
        Sha256Hash(self.0.finalize().into())
    }
}

/// A SHA-256 digest. `Debug` shows the first bytes only, which suffices to tell two apart in a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hash([u8; 32]);

impl Sha256Hash {
    /// Hashes bytes.
    ///
    /// ```
    /// use flag_definitions_filter::hash::Sha256Hash;
    /// assert_eq!(
    ///     Sha256Hash::of(b"test_key_12345").to_hex(),
    ///     "45af89b510a3279a817f851de5d3f95b73485d58ec2672a39e52d8aeeb014059",
    /// );
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.add(bytes);
        hasher.finish()
    }

    /// A digest made elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits, with or without Django's `sha256$` in front; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256$").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.digits().map(char::from).collect()
    }

    /// The same digits, one after the other.
    pub fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        let halves = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        halves.map(|half| match half {
            0..=9 => b'0' + half,
            _ => b'a' - 10 + half,
        })
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "sha256:{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn hex_is_read_in_both_notations_and_nothing_else() {
        let hash = Sha256Hash::of(b"x");
        let hex = hash.to_hex();
        assert_eq!(Sha256Hash::from_hex(&hex), Some(hash));
        assert_eq!(Sha256Hash::from_hex(&hex.to_uppercase()), Some(hash));
        assert_eq!(Sha256Hash::from_hex(&format!("sha256${hex}")), Some(hash));
        for bad in [
            "",
            "sha256$",
            &hex[1..],
            &format!("{hex}0"),
            &"é".repeat(32),
            &"g".repeat(64),
        ] {
            assert_eq!(Sha256Hash::from_hex(bad), None, "{bad}");
        }
    }
}
