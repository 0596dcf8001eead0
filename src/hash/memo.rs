//! The SHA-256 of what was asked with a moment ago.
//!
//! SDKs ask with the same token and credential every 30 seconds. Their SHA-256 was nearly half of all that this filter
//! computed for a request answered with 304, so each worker remembers the last ones, by a keyed hash of the text: SipHash-2-4
//! with a random key and 128 bits, for which nobody outside of the VM can find two texts that meet. The text itself is
//! not kept. What else its bytes tell is remembered with it.

use siphasher::sip128::SipHasher24;

use super::Sha256Hash;

/// Most hashes that are remembered, a power of two: 460 KB.
const PLACES: usize = 8_192;

/// Longest token or credential that is looked up, or remembered, in bytes; most have about 50.
pub const MAX_SECRET: usize = 200;

/// What a token or credential is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Its SHA-256.
    pub hash: Sha256Hash,
    /// Whether it may be looked up outside the snapshot: 1 to 200 characters of `A-Z a-z 0-9 _ -`. Nobody hands out
    /// others, and these cannot leave their place in a Redis key.
    pub plausible: bool,
}

impl Hashed {
    /// Takes a text.
    pub fn of(text: &[u8]) -> Self {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        Self {
            hash: Sha256Hash::of(text),
            plausible: (1..=MAX_SECRET).contains(&text.len()) && text.iter().all(harmless),
        }
    }
}

/// Remembers SHA-256 hashes. Each text has one place, and a later one takes it: they are computed again rather than
/// searched for.
pub struct Hashes {
    keyed: SipHasher24,
    /// None before the first text.
    places: Vec<([u64; 2], Hashed)>,
}

/// What stands for all zeros. It need not be right: no text can be found for it either.
const NONE: Hashed = Hashed {
    hash: Sha256Hash::from_bytes([0; 32]),
    plausible: false,
};

impl Hashes {
    /// Remembers nothing yet. The key must be random.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            keyed: SipHasher24::new_with_key(&key),
            places: Vec::new(),
        }
    }

    /// What this text is known by.
    pub fn of(&mut self, text: &[u8]) -> Hashed {
        if text.len() > MAX_SECRET {
            return Hashed::of(text);
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, ([0; 2], NONE));
        }
        let keyed = self.keyed.hash(text);
        let keyed = [keyed.h1, keyed.h2];
        let [low, _] = keyed;
        let place = usize::try_from(low % PLACES as u64).unwrap_or_default();
        let Some((known, hashed)) = self.places.get_mut(place) else {
            return Hashed::of(text);
        };
        if *known != keyed {
            (*known, *hashed) = (keyed, Hashed::of(text));
        }
        *hashed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_text_has_its_own_hash_however_many_there_are() {
        let mut hashes = Hashes::new([7; 16]);
        for _ in 0..2 {
            for number in 0..3 * PLACES {
                let text = format!("sec_{number}");
                assert_eq!(hashes.of(text.as_bytes()), Hashed::of(text.as_bytes()));
            }
        }
        for length in [0, 1, MAX_SECRET, MAX_SECRET + 1, 70_000] {
            let text = vec![b'x'; length];
            for _ in 0..2 {
                assert_eq!(hashes.of(&text), Hashed::of(&text));
            }
        }
        assert_eq!(hashes.places.len(), PLACES);
    }

    #[test]
    fn what_is_remembered_is_not_computed_again_and_is_found_by_its_key_alone() {
        let remembered = |hashes: &Hashes| {
            let keyed = |place: &&([u64; 2], Hashed)| place.0 != [0; 2];
            hashes.places.iter().find(keyed).copied()
        };
        let (mut one, mut other) = (Hashes::new([1; 16]), Hashes::new([2; 16]));
        assert_eq!(one.of(b"sec_a"), other.of(b"sec_a"));
        assert_ne!(remembered(&one).unwrap().0, remembered(&other).unwrap().0);
        // What is there is answered with, were it wrong.
        let wrong = Hashed::of(b"another");
        for place in &mut one.places {
            place.1 = wrong;
        }
        assert_eq!(one.of(b"sec_a"), wrong);
        assert_eq!(one.of(b"sec_b"), Hashed::of(b"sec_b"));
    }
}
