//! Which number each environment has: made of the client-side key, as nothing else is known of an environment before its
//! document was read.

use std::collections::BTreeMap;

use flag_definitions_filter::tenant::Tenant;

use super::secret::FlagsmithKey;
use crate::sources::tenants::numbers;

/// The numbers of a set of environments, by client-side key. No two are the same. An environment for which no number is free
/// is not among them.
pub fn tenants<'a>(
    client_keys: impl IntoIterator<Item = &'a FlagsmithKey>,
) -> BTreeMap<FlagsmithKey, Tenant> {
    let client_keys: Vec<&FlagsmithKey> = client_keys.into_iter().collect();
    let numbers = numbers("flagsmith", client_keys.iter().map(|key| key.as_bytes()));
    let numbered = |key: &FlagsmithKey| Some((key.clone(), *numbers.get(key.as_bytes())?));
    client_keys.into_iter().filter_map(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::hash::Sha256Hash;

    #[test]
    fn a_number_is_made_of_the_key() {
        let key = FlagsmithKey::new("client0").unwrap();
        // printf 'flagsmith\0client0' | sha256sum
        let [a, b, c, d, ..] = *Sha256Hash::of(b"flagsmith\0client0").as_bytes();
        let expected = Tenant(u32::from_le_bytes([a, b, c, d]));
        assert_eq!(tenants([&key])[&key], expected);
    }
}
