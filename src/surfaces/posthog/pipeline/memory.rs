//! What this worker found in shared data a moment ago. A client that asks again, as all SDKs do, is answered without
//! a look into shared data for as long as no record changed.
//!
//! Only admissions out of the snapshot are remembered, and they end with it ([`super::authentication`]); a refusal is
//! looked up each time. A change is seen within [`LOOK_INTERVAL`] here.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::recent::Recent;
use crate::records::{Revision, StreamId};
use crate::shared::{Scope, Store};
use crate::surfaces::posthog::directory::access::AuthMethod;
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// How often shared data is asked whether a record changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long anything is remembered. The counters of changes alone would do, but a VM that traps between a change and
/// the counters' rise leaves that to its successor.
const TTL: Duration = Duration::from_secs(10);

/// Most of each kind that are remembered: together about 1.3 MB.
const PLACES: usize = 4_096;

/// Who asks, once that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// The team.
    pub team: Tenant,
    /// Of the team's public token, where it is known.
    pub token: Option<Sha256Hash>,
    /// How that was proven.
    pub method: AuthMethod,
}

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Hash of the project token, if it names one.
    pub token: Option<Sha256Hash>,
    /// Hash of the credential.
    pub bearer: Sha256Hash,
}

impl Hash for Shown {
    /// A few bytes are enough: they are those of a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let low = |hash: &Sha256Hash| {
            let [a, b, c, d, ..] = *hash.as_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        state.write_u32(low(&self.bearer) ^ self.token.as_ref().map_or(0, low));
    }
}

/// What the directory says of a team's ETag, and as of when; `None`: nothing.
pub(super) type Published = Option<(ETag, StreamId)>;

/// The memory of one worker. A VM that serves no request has none.
pub struct Memory {
    /// The last look at the counters, and what it showed.
    revision: Option<(Revision, Monotonic)>,
    admissions: Recent<Shown, (Reader, u64)>,
    published: Recent<Tenant, (Published, Revision)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            revision: None,
            admissions: Recent::new(PLACES, TTL),
            published: Recent::new(PLACES, TTL),
        }
    }
}

impl Memory {
    /// Looks whether a record changed, unless it did so just now. Where shared data fails nothing is remembered.
    pub(super) fn refresh(&mut self, store: &impl Store, scope: &Scope, now: Monotonic) {
        if self.current(now).is_none() {
            let revision = Revision::read(store, scope);
            self.revision = revision.ok().map(|revision| (revision, now));
        }
    }

    fn current(&self, now: Monotonic) -> Option<Revision> {
        let (revision, at) = self.revision?;
        (now.since(at) < LOOK_INTERVAL).then_some(revision)
    }

    /// Who was admitted for this.
    pub(super) fn admission(&self, shown: &Shown, now: Monotonic) -> Option<Reader> {
        let current = self.current(now)?;
        let (reader, revision) = self.admissions.get(shown, now)?;
        (*revision == current.credentials).then_some(*reader)
    }

    /// Remembers who was admitted out of the snapshot, which was read after the last [`Memory::refresh`].
    pub(super) fn admitted(&mut self, shown: Shown, reader: Reader, now: Monotonic) {
        if let Some((revision, _)) = self.revision {
            let remembered = (reader, revision.credentials);
            self.admissions.note(shown, remembered, now);
        }
    }

    /// What the directory said of a team's ETag; `None` when it has to be asked.
    pub(super) fn published(&self, team: Tenant, now: Monotonic) -> Option<&Published> {
        let current = self.current(now)?;
        let (published, revision) = self.published.get(&team, now)?;
        (*revision == current).then_some(published)
    }

    /// Remembers what the directory said after the last [`Memory::refresh`].
    pub(super) fn found_published(&mut self, team: Tenant, published: Published, now: Monotonic) {
        if let Some((revision, _)) = self.revision {
            self.published.note(team, (published, revision), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Touched;
    use crate::shared::{Cas, MemoryStore, StoreError, Versioned};
    use std::cell::Cell;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn shown(token: Option<&str>, bearer: &str) -> Shown {
        let hash = |text: &str| Sha256Hash::of(text.as_bytes());
        Shown {
            token: token.map(hash),
            bearer: hash(bearer),
        }
    }

    fn reader(team: u32) -> Reader {
        Reader {
            team: Tenant(team),
            token: None,
            method: AuthMethod::SecretApiKey,
        }
    }

    fn etag(text: &str) -> Published {
        Some((ETag::new(text.as_bytes()).unwrap(), StreamId::default()))
    }

    /// Shared data that can fail.
    #[derive(Default)]
    struct Moody(MemoryStore, Cell<bool>);

    impl Store for Moody {
        fn read(&self, key: &str) -> Result<Versioned, StoreError> {
            match self.1.get() {
                true => Err(StoreError { status: 10 }),
                false => self.0.read(key),
            }
        }

        fn replace(&self, key: &str, value: &[u8], cas: Cas) -> Result<bool, StoreError> {
            self.0.replace(key, value, cas)
        }
    }

    fn setup() -> (Moody, Scope, Memory) {
        let (store, scope) = (Moody::default(), Scope::new("", &[]));
        let mut memory = Memory::default();
        memory.refresh(&store, &scope, at(0));
        memory.admitted(shown(Some("phc"), "phs"), reader(7), at(0));
        memory.found_published(Tenant(7), etag("e1"), at(0));
        (store, scope, memory)
    }

    /// Whether admission and published ETag are remembered.
    fn remembers(memory: &Memory, now: u64) -> (bool, bool) {
        let admission = memory.admission(&shown(Some("phc"), "phs"), at(now));
        let published = memory.published(Tenant(7), at(now));
        assert!(admission.is_none_or(|found| found == reader(7)));
        assert!(published.is_none_or(|found| *found == etag("e1")));
        (admission.is_some(), published.is_some())
    }

    #[test]
    fn what_was_found_holds_until_a_record_of_its_kind_changes() {
        let credentials = Touched {
            credentials: true,
            etags: false,
        };
        let etags = Touched {
            credentials: false,
            etags: true,
        };
        // What was removed is no longer of any kind: it counts as a credential, and ends what is known of ETags, too.
        for (touched, expected) in [(etags, (true, false)), (credentials, (false, false))] {
            let (store, scope, mut memory) = setup();
            assert_eq!(remembers(&memory, 9), (true, true));
            Revision::raise(&store, &scope, touched).unwrap();
            memory.refresh(&store, &scope, at(9));
            assert_eq!(remembers(&memory, 9), (true, true), "not looked yet");
            assert_eq!(remembers(&memory, 10), (false, false), "a look is due");
            memory.refresh(&store, &scope, at(10));
            assert_eq!(remembers(&memory, 10), expected);
        }
    }

    #[test]
    fn nobody_is_taken_for_somebody_else() {
        let (_, _, memory) = setup();
        for (token, bearer) in [(None, "phs"), (Some("phs"), "phc"), (Some("phc"), "x")] {
            assert_eq!(memory.admission(&shown(token, bearer), at(0)), None);
        }
        let (store, scope, mut memory) = setup();
        memory.refresh(&store, &scope, at(0));
        for number in 0..2 * PLACES as u32 {
            let shown = shown(None, &number.to_string());
            memory.admitted(shown, reader(number), at(0));
            assert_eq!(memory.admission(&shown, at(0)), Some(reader(number)));
        }
        for number in 0..2 * PLACES as u32 {
            let found = memory.admission(&shown(None, &number.to_string()), at(0));
            assert!(found.is_none_or(|found| found == reader(number)));
        }
    }

    #[test]
    fn all_is_looked_up_again_after_a_while() {
        let (store, scope, mut memory) = setup();
        memory.refresh(&store, &scope, at(9_999));
        assert_eq!(remembers(&memory, 9_999), (true, true));
        memory.refresh(&store, &scope, at(10_000));
        assert_eq!(remembers(&memory, 10_000), (false, false));
    }

    #[test]
    fn nothing_is_remembered_while_shared_data_fails() {
        let (store, scope, mut memory) = setup();
        store.1.set(true);
        memory.refresh(&store, &scope, at(10));
        assert_eq!(remembers(&memory, 10), (false, false));
        memory.admitted(shown(Some("phc"), "phs"), reader(7), at(10));
        store.1.set(false);
        memory.refresh(&store, &scope, at(20));
        assert_eq!(remembers(&memory, 20), (true, true), "of before");
    }
}
