//! Which number each tenant has in records and in Redis, where a source knows tenants by names.
//!
//! The number is made of the name. It is the same in every publisher and after every restart, so documents in Redis stay where
//! they are.
//!
//! Two of 1000 tenants have the same first number once in 8600 sets. Then the one whose name has the larger hash takes
//! its next number. That depends on the set alone, not on its order.

use std::collections::{BTreeMap, BTreeSet};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;

/// Numbers that one tenant may try. So many collide only in a set that somebody looked for.
const ATTEMPTS: u32 = 64;

/// The numbers of a set of tenants of one surface, by name. No two are the same. A tenant whose attempts are all taken is not
/// among them.
pub fn numbers<'n>(
    surface: &str,
    names: impl IntoIterator<Item = &'n [u8]>,
) -> BTreeMap<&'n [u8], Tenant> {
    numbered(names, |name, number| attempt(surface, name, number))
}

fn numbered<'n>(
    names: impl IntoIterator<Item = &'n [u8]>,
    attempt: impl Fn(&[u8], u32) -> Tenant,
) -> BTreeMap<&'n [u8], Tenant> {
    let names = names.into_iter();
    let in_order: BTreeMap<_, _> = names.map(|name| (Sha256Hash::of(name), name)).collect();
    let (mut taken, mut numbers) = (BTreeSet::new(), BTreeMap::new());
    for name in in_order.into_values() {
        let mut attempts = (0..ATTEMPTS).map(|number| attempt(name, number));
        if let Some(tenant) = attempts.find(|tenant| taken.insert(*tenant)) {
            numbers.insert(name, tenant);
        }
    }
    numbers
}

/// The first four bytes of a SHA-256, little-endian. The first attempt has no number, so it is what anybody computes of
/// the name.
fn attempt(surface: &str, name: &[u8], number: u32) -> Tenant {
    let mut text = [surface.as_bytes(), &[0], name].concat();
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

    fn names(count: u32) -> Vec<Vec<u8>> {
        let name = |number| format!("name{number}").into_bytes();
        (0..count).map(name).collect()
    }

    fn of(names: &[Vec<u8>]) -> impl Clone + DoubleEndedIterator<Item = &[u8]> {
        names.iter().map(Vec::as_slice)
    }

    #[test]
    fn a_number_is_made_of_surface_and_name() {
        let names = names(1);
        for surface in ["flagsmith", "ofrep"] {
            // printf 'ofrep\0name0' | sha256sum
            let text = format!("{surface}\0name0");
            let [a, b, c, d, ..] = *Sha256Hash::of(text.as_bytes()).as_bytes();
            let expected = Tenant(u32::from_le_bytes([a, b, c, d]));
            assert_eq!(numbers(surface, of(&names))[&b"name0"[..]], expected);
        }
    }

    #[test]
    fn numbers_do_not_depend_on_the_order() {
        let names = names(50);
        let once = numbers("ofrep", of(&names));
        assert_eq!(once.len(), 50);
        assert_eq!(once, numbers("ofrep", of(&names).rev()));
        assert_eq!(once, numbers("ofrep", of(&names).chain(of(&names))));
    }

    #[test]
    fn who_collides_takes_the_next_number() {
        let names = names(3);
        let mut by_hash: Vec<_> = of(&names).collect();
        by_hash.sort_by_key(|name| Sha256Hash::of(name));
        // All begin at 7, and go on from there.
        let numbers = numbered(of(&names), |_, number| Tenant(7 + number));
        let numbers: Vec<_> = by_hash.iter().map(|name| numbers[name].0).collect();
        assert_eq!(numbers, [7, 8, 9]);
        // Nobody shares the number of another one, whatever happens.
        let stuck = numbered(of(&names), |_, _| Tenant(7));
        assert_eq!(stuck.len(), 1);
    }

    #[test]
    fn later_attempts_differ() {
        let attempts: BTreeSet<_> = (0..ATTEMPTS)
            .map(|number| attempt("ofrep", b"name0", number))
            .collect();
        assert_eq!(attempts.len(), 64);
    }
}
