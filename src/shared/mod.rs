//! The contract of Envoy's shared data: one process-wide map of bytes with compare-and-swap.
//!
//! Entries can never be deleted and a growing map stalls every worker (docs/design.md), so the number of
//! keys is fixed: whatever is stored goes into numbered slots, and each slot carries full keys inside.

mod job;
pub mod lease;
mod machinery;
mod memory;
mod scope;
mod table;

pub use job::{BUSY, Errand, Finding, Held, IDLE, Job, NarrowJob};
pub use machinery::{Ambient, CountSink, Machinery};
pub use memory::MemoryStore;
pub use scope::Scope;
pub use table::Table;

use std::fmt;

use crate::time::Monotonic;

/// Version of everything stored under a [`Scope`]: raised when a layout changes, so that two releases of the
/// filter in one Envoy never read each other's bytes.
pub const FORMAT: u8 = 1;

/// A version of one entry; the host hands it out on reading and compares it on writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas(pub u32);

impl Cas {
    /// Matches no entry that exists: with it a write succeeds only where the entry is absent. (`0`, which the
    /// SDK makes of `None`, overwrites.) One number serves all entries of a process and wraps after 4 294 967 295 writes:
    /// an entry that was written last with that one would be taken for absent, and overwritten.
    pub const ABSENT: Self = Self(u32::MAX);
}

/// A value as it was read; an absent entry reads as empty bytes with [`Cas::ABSENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes; empty when absent.
    pub value: Vec<u8>,
    /// The version to hand back to [`Store::replace`].
    pub cas: Cas,
}

/// Shared data failed in a way that is neither "absent" nor "somebody else was first".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The host's status code.
    pub status: u32,
}

impl StoreError {
    /// Somebody else was first, each time (proxy-wasm ABI 0.2.1, `CasMismatch`).
    pub const CONTENDED: Self = Self { status: 8 };
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared data: the host answered status {}", self.status)
    }
}

impl std::error::Error for StoreError {}

/// Shared data, as the rooms see it.
pub trait Store {
    /// Reads one entry.
    ///
    /// # Errors
    /// When the host answers anything but "found" or "not found".
    fn read(&self, key: &str) -> Result<Versioned, StoreError>;

    /// Replaces an entry if it still has the version `cas`; `false` when somebody else was first.
    ///
    /// ```
    /// use flag_definitions_filter::shared::{Cas, MemoryStore, Store};
    /// let store = MemoryStore::default();
    /// let seen = store.read("entry").unwrap();
    /// assert_eq!(seen.cas, Cas::ABSENT);
    /// assert_eq!(store.replace("entry", b"mine", seen.cas), Ok(true));
    /// assert_eq!(store.replace("entry", b"too late", seen.cas), Ok(false));
    /// ```
    ///
    /// # Errors
    /// When the host answers anything but "written" or "version differs".
    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError>;
}

/// How often a read-change-replace round is tried before it is given up: under contention somebody else
/// wins each round, so eight losses in a row mean that the entry is hot, not that the change is lost work.
pub const REPLACE_TRIES: usize = 8;

/// What became of an [`update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The change is in.
    Written,
    /// There was nothing to change.
    Unchanged,
    /// Somebody else was first, [`REPLACE_TRIES`] times in a row.
    Contended,
}

/// Reads, changes and replaces one entry; `change` returns `None` to leave it alone.
///
/// ```
/// use flag_definitions_filter::shared::{MemoryStore, Store, Update, update};
/// let store = MemoryStore::default();
/// let mut add = |more: &str| update(&store, "list", |list| {
///     let is_there = list.windows(more.len()).any(|part| part == more.as_bytes());
///     (!is_there).then(|| [list, more.as_bytes()].concat())
/// });
/// assert_eq!(add("a;"), Ok(Update::Written));
/// assert_eq!(add("a;"), Ok(Update::Unchanged));
/// assert_eq!(store.read("list").unwrap().value, b"a;");
/// ```
///
/// # Errors
/// As [`Store::read`] and [`Store::replace`].
pub fn update(
    store: &impl Store,
    key: &str,
    mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Update, StoreError> {
    update_in_place(store, key, |value| {
        let next = change(value)?;
        *value = next;
        Some(())
    })
}

/// The same, where `change` changes what was read; nothing is written when it returns `None`.
///
/// # Errors
/// As [`Store::read`] and [`Store::replace`].
pub fn update_in_place(
    store: &impl Store,
    key: &str,
    mut change: impl FnMut(&mut Vec<u8>) -> Option<()>,
) -> Result<Update, StoreError> {
    for _ in 0..REPLACE_TRIES {
        let mut current = store.read(key)?;
        if change(&mut current.value).is_none() {
            return Ok(Update::Unchanged);
        }
        if store.replace(key, &current.value, current.cas)? {
            return Ok(Update::Written);
        }
    }
    Ok(Update::Contended)
}

/// Name of one of many entries: `name` and a number. A billed request needs one, and `format!` took as long as half of
/// the counting.
pub(crate) fn numbered(name: &[&str], number: u32) -> String {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number);
    let length = name.iter().map(|part| part.len()).sum::<usize>();
    let mut numbered = String::with_capacity(length + digits.len());
    name.iter().for_each(|part| numbered.push_str(part));
    numbered.push_str(digits);
    numbered
}

/// Drops the oldest of an entry's few parts until the rest fits. Sorting them instead takes 5 KB of code for each kind.
pub(crate) fn drop_oldest<T>(
    parts: &mut Vec<T>,
    at: impl Fn(&T) -> Monotonic,
    fits: impl Fn(&[T]) -> bool,
) {
    while !fits(parts) {
        let oldest = parts.iter().enumerate().min_by_key(|(_, part)| at(part));
        let Some((oldest, _)) = oldest else {
            return;
        };
        parts.swap_remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_oldest_give_way_until_the_rest_fits() {
        let at = |part: &u64| Monotonic::from_millis(*part);
        let mut parts = vec![5, 1, 4, 2, 3];
        drop_oldest(&mut parts, at, |parts| parts.len() <= 3);
        parts.sort_unstable();
        assert_eq!(parts, [3, 4, 5]);
        drop_oldest(&mut parts, at, |_| false);
        assert!(parts.is_empty());
    }

    #[test]
    fn a_name_ends_with_its_number() {
        for number in [0, 7, 10, 1_023, 4_294_967_295] {
            assert_eq!(numbered(&["a:", "b"], number), format!("a:b{number}"));
        }
    }
}
