//! Shared data in memory.

use std::collections::HashMap;

use super::{Cas, Store, StoreError, Versioned};

/// Shared data in memory: for tests of the rooms, natively and under Node.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: std::cell::RefCell<HashMap<String, (Vec<u8>, u32)>>,
}

impl MemoryStore {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        let entries = self.entries.borrow();
        entries.values().map(|(value, _)| value.len()).sum()
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &str) -> Result<Versioned, StoreError> {
        Ok(match self.entries.borrow().get(key) {
            Some((value, cas)) => Versioned {
                value: value.clone(),
                cas: Cas(*cas),
            },
            None => Versioned {
                value: Vec::new(),
                cas: Cas::ABSENT,
            },
        })
    }

    fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
        let mut entries = self.entries.borrow_mut();
        let current = entries.get(key).map(|(_, cas)| *cas);
        if current.is_some_and(|current| current != cas.0) {
            return Ok(false);
        }
        entries.insert(key.to_owned(), (value.to_vec(), current.unwrap_or(0) + 1));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn put_if_absent_loses_against_an_existing_entry() {
        let store = MemoryStore::default();
        assert!(store.replace("k", b"one", Cas::ABSENT).unwrap());
        assert!(!store.replace("k", b"two", Cas::ABSENT).unwrap());
        assert_eq!(store.read("k").unwrap().value, b"one");
    }
}
