//! Whether any record changed since: a counter for all of them, so that what a worker remembers of them costs no
//! look-up.
//!
//! Versions have one of their own: documents change all the time, credentials now and then.

use super::VERSION;
use crate::shared::{Scope, Store, StoreError, Update, update};

/// Which records changed, or may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Any but versions.
    pub credentials: bool,
    /// Versions.
    pub etags: bool,
}

impl Touched {
    /// Any.
    pub const ALL: Self = Self {
        credentials: true,
        etags: true,
    };

    /// Notes a record by its encoding.
    pub fn note(&mut self, record: &[u8]) {
        if record.first() == Some(&VERSION) {
            self.etags = true;
        } else {
            self.credentials = true;
        }
    }
}

/// How often records changed, by wrapping counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Of records that are no versions.
    pub credentials: u64,
    /// Versions.
    pub etags: u64,
}

impl Revision {
    fn parse(bytes: &[u8]) -> Self {
        let (counters, _) = bytes.as_chunks();
        match counters {
            [credentials, etags] => Self {
                credentials: u64::from_le_bytes(*credentials),
                etags: u64::from_le_bytes(*etags),
            },
            _ => Self::default(),
        }
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn read(store: &impl Store, scope: &Scope) -> Result<Self, StoreError> {
        Ok(Self::parse(&store.read(&name(scope))?.value))
    }

    /// Raises the counters of what was touched; to be called after records were written, because what is read
    /// meanwhile is remembered under the counters as they were before.
    ///
    /// # Errors
    /// When shared data fails, or others are first each time.
    pub fn raise(store: &impl Store, scope: &Scope, touched: Touched) -> Result<(), StoreError> {
        let name = name(scope);
        let written = update(store, &name, |current| {
            let current = Self::parse(current);
            let credentials = current
                .credentials
                .wrapping_add(u64::from(touched.credentials));
            let etags = current.etags.wrapping_add(u64::from(touched.etags));
            Some([credentials.to_le_bytes(), etags.to_le_bytes()].concat())
        })?;
        match written {
            Update::Written | Update::Unchanged => Ok(()),
            Update::Contended => Err(StoreError::CONTENDED),
        }
    }
}

/// How often records changed.
fn name(scope: &Scope) -> String {
    scope.name("revision")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::TOMBSTONE;
    use crate::shared::MemoryStore;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_rise_is_seen_and_etags_are_counted_apart() {
        let store = MemoryStore::default();
        let scope = Scope::new("", &[]);
        let etag = &[VERSION, b'e', b'1'][..];
        let secret = &[2, 1, 0, 0, 0][..];
        let mut expected = Revision::default();
        assert_eq!(Revision::read(&store, &scope), Ok(expected));
        for (records, credentials, etags) in [
            (&[etag][..], 0, 1),
            (&[secret], 1, 0),
            (&[&[TOMBSTONE]], 1, 0),
            (&[secret, etag], 1, 1),
        ] {
            let mut touched = Touched::default();
            for record in records {
                touched.note(record);
            }
            Revision::raise(&store, &scope, touched).unwrap();
            expected.credentials += credentials;
            expected.etags += etags;
            assert_eq!(Revision::read(&store, &scope), Ok(expected));
        }
    }
}
