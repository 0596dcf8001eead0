//! Names for what was asked with: SipHash-2-4 with a random key and 128 bits, as of [`super::Hashes`].

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher24};

/// Names texts by a key that nobody outside of the VM knows, who so cannot find two texts with one name.
pub struct KeyedHash(SipHasher24);

impl KeyedHash {
    /// With this key, which must be random.
    pub fn new(key: [u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(&key))
    }

    /// The name of these parts, in this order.
    pub fn of<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u64; 2] {
        let mut hasher = self.0;
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        let name = hasher.finish128();
        [name.h1, name.h2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_name_is_of_all_parts_and_of_the_key() {
        let keyed = KeyedHash::new([7; 16]);
        let of =
            |keyed: &KeyedHash, parts: &[&str]| keyed.of(parts.iter().map(|part| part.as_bytes()));
        let name = of(&keyed, &["ab", "c"]);
        assert_eq!(of(&keyed, &["ab", "c"]), name);
        for other in [&["a", "bc"][..], &["abc"], &["ab", "c", ""], &["c", "ab"]] {
            assert_ne!(of(&keyed, other), name, "{other:?}");
        }
        assert_ne!(of(&KeyedHash::new([8; 16]), &["ab", "c"]), name);
    }
}
