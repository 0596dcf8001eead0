//! Texts that this worker has checked, so that one which it reads again and again is checked once.
//!
//! Where the documents of all tenants are more than are kept, most answers are read by a callout, and most of these bring a
//! text that was read before. To hash it takes a third of the time that its check takes ([`super::flags::is_billable`]).

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Texts that are remembered, eight bytes each. Whoever comes later takes the place of another.
const PLACES: usize = 16 << 10;

/// The lowest bit of a place says whether the text is billed; the others are of its hash, with a key that nobody knows.
const BILLABLE: u64 = 1;

/// What checks of texts came to. A text that is none is not remembered.
pub struct CheckedTexts {
    hasher: SipHasher13,
    /// Allocated with the first text.
    places: Vec<u64>,
}

impl CheckedTexts {
    /// Nothing yet. The key is random, so that no text can be made that passes for another.
    pub fn new(key: &[u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(key),
            places: Vec::new(),
        }
    }

    /// What `check` says of a text, now or when the same text was here before.
    pub fn check(
        &mut self,
        text: &[u8],
        check: impl FnOnce(&[u8]) -> Option<bool>,
    ) -> Option<bool> {
        let mut hasher = self.hasher;
        hasher.write(text);
        let hash = hasher.finish();
        if self.places.is_empty() {
            self.places.resize(PLACES, 0);
        }
        // The upper bits choose the place.
        let place = usize::try_from(hash >> 50).unwrap_or(0) % PLACES;
        let place = self.places.get_mut(place)?;
        if *place | BILLABLE == hash | BILLABLE {
            return Some(*place & BILLABLE != 0);
        }
        let billable = check(text)?;
        *place = hash & !BILLABLE | u64::from(billable);
        Some(billable)
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::is_billable;
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_text_is_checked_once_and_another_one_anew() {
        let mut checked = CheckedTexts::new(&[7; 16]);
        let (own, free) = (
            &br#"{"flags": [{"key": "new"}]}"#[..],
            &br#"{"flags": []}"#[..],
        );
        let mut times = 0;
        for text in [own, own, free, own, free] {
            let billable = checked.check(text, |text| {
                times += 1;
                is_billable(text)
            });
            assert_eq!(billable, Some(text == own));
        }
        assert_eq!(times, 2);
    }

    #[test]
    fn what_is_no_payload_is_told_each_time() {
        let mut checked = CheckedTexts::new(&[7; 16]);
        for text in [&b""[..], br#"{"flags": [{"key": "ne"#, b"", b"{} x"] {
            assert_eq!(checked.check(text, is_billable), None, "{text:?}");
            // Not even where a text hashes to zero, as an empty place does.
            assert!(checked.places.iter().all(|place| *place == 0));
        }
    }

    #[test]
    fn texts_that_share_a_place_take_turns() {
        let mut checked = CheckedTexts::new(&[7; 16]);
        let text = |number: usize| format!(r#"{{"flags": [{{"key": "{number}"}}]}}"#);
        let billable = |checked: &mut CheckedTexts, number| {
            checked.check(text(number).as_bytes(), is_billable)
        };
        for number in (0..3 * PLACES).chain(0..PLACES) {
            assert_eq!(billable(&mut checked, number), Some(true));
        }
        assert_eq!(checked.places.len(), PLACES);
    }
}
