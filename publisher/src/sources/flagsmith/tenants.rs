//! Which number each environment has in records and in Redis.
//!
//! The number is made of the client-side key, as nothing else is known of an environment before its document was read.
//! It is the same in every publisher and after every restart, so documents in Redis stay where they are.
//!
//! Two of 1000 environments have the same first number once in 8600 sets. Then the one whose key has the larger hash takes
//! its next number. That depends on the set alone, not on its order.

use std::collections::{BTreeMap, BTreeSet};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;

use super::secret::FlagsmithKey;

/// Numbers that one environment may try. So many collide only in a set that somebody looked for.
const ATTEMPTS: u32 = 64;

/// The numbers of a set of environments, by client-side key. No two are the same. An environment whose attempts are all
/// taken is not among them.
pub fn tenants<'a>(
    client_keys: impl IntoIterator<Item = &'a FlagsmithKey>,
) -> BTreeMap<FlagsmithKey, Tenant> {
    let mut in_order: Vec<_> = client_keys.into_iter().collect();
    in_order.sort_unstable_by_key(|key| key.hash());
    numbered(&in_order, attempt)
}

fn numbered(
    in_order: &[&FlagsmithKey],
    attempt: impl Fn(&FlagsmithKey, u32) -> Tenant,
) -> BTreeMap<FlagsmithKey, Tenant> {
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    for key in in_order {
        if numbers.contains_key(*key) {
            continue;
        }
        let mut attempts = (0..ATTEMPTS).map(|number| attempt(key, number));
        if let Some(tenant) = attempts.find(|tenant| taken.insert(*tenant)) {
            numbers.insert((*key).clone(), tenant);
        }
    }
    numbers
}

/// The first four bytes of a SHA-256, little-endian. The first attempt has no number, so it is what anybody computes of
/// the key.
fn attempt(key: &FlagsmithKey, number: u32) -> Tenant {
    let mut text = [b"flagsmith\0", key.as_bytes()].concat();
    if number > 0 {
        text.push(0);
        text.extend_from_slice(number.to_string().as_bytes());
    }
    let [a, b, c, d, ..] = *Sha256Hash::of(&text).as_bytes();
    Tenant(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u32) -> Vec<FlagsmithKey> {
        let key = |number| FlagsmithKey::new(&format!("client{number}")).unwrap();
        (0..count).map(key).collect()
    }

    #[test]
    fn a_number_is_made_of_the_key() {
        let keys = keys(1);
        // printf 'flagsmith\0client0' | sha256sum
        let [a, b, c, d, ..] = *Sha256Hash::of(b"flagsmith\0client0").as_bytes();
        let expected = Tenant(u32::from_le_bytes([a, b, c, d]));
        assert_eq!(tenants(&keys)[&keys[0]], expected);
    }

    #[test]
    fn numbers_do_not_depend_on_the_order() {
        let keys = keys(50);
        assert_eq!(tenants(&keys), tenants(keys.iter().rev()));
        assert_eq!(tenants(&keys), tenants(keys.iter().chain(&keys)));
    }

    #[test]
    fn who_collides_takes_the_next_number() {
        let keys = keys(3);
        let in_order: Vec<_> = keys.iter().collect();
        // All begin at 7, and go on from there.
        let numbers = numbered(&in_order, |_, number| Tenant(7 + number));
        let numbers: Vec<_> = keys.iter().map(|key| numbers[key].0).collect();
        assert_eq!(numbers, [7, 8, 9]);
        // Nobody shares the number of another one, whatever happens.
        let stuck = numbered(&in_order, |_, _| Tenant(7));
        assert_eq!(stuck.len(), 1);
    }

    #[test]
    fn later_attempts_differ() {
        let key = &keys(1)[0];
        let attempts: BTreeSet<_> = (0..ATTEMPTS).map(|number| attempt(key, number)).collect();
        assert_eq!(attempts.len(), 64);
    }
}
