//! Whom this worker admitted a moment ago. A client that asks again, as all SDKs do, is admitted by one comparison,
//! without a look into the snapshot, for as long as no record changed.
//!
//! Only admissions out of the snapshot are remembered, and they end with it ([`super::authentication`]); a refusal
//! is looked up each time. A change is seen within [`LOOK_INTERVAL`] here.

use std::time::Duration;

use crate::directory::{Revision, Sha256Hash, TeamId};
use crate::metrics::AuthMethod;
use crate::shared::{Keys, Store};
use crate::time::Monotonic;

/// How often shared data is asked whether a record changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long an admission may be remembered. The counter of changes alone would do, but a VM that traps between a
/// change and the counter's rise leaves that to its successor.
const TTL: Duration = Duration::from_secs(10);

/// Places in the table: 600 KB. Each pair of token and credential has one; those that meet push each other out.
const PLACES: usize = 4_096;

/// Who asks, once that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// The team.
    pub team: TeamId,
    /// Of the team's public token, where it is known.
    pub token: Option<Sha256Hash>,
    /// How that was proven.
    pub method: AuthMethod,
}

#[derive(Clone, Copy)]
struct Admission {
    token: Option<Sha256Hash>,
    bearer: Sha256Hash,
    reader: Reader,
    /// As of which change of credentials.
    revision: u64,
    at: Monotonic,
}

/// The memory of one worker. A VM that serves no request has none.
#[derive(Default)]
pub struct Memory {
    /// The last look into shared data, and what it showed.
    revision: Option<(Revision, Monotonic)>,
    admissions: Vec<Option<Admission>>,
}

impl Memory {
    /// Looks whether a record changed, unless it did so just now. Where shared data fails nothing is remembered.
    pub(super) fn refresh(&mut self, store: &impl Store, keys: &Keys, now: Monotonic) {
        let recent = |(_, at): &(Revision, Monotonic)| now.since(*at) < LOOK_INTERVAL;
        if !self.revision.as_ref().is_some_and(recent) {
            let revision = Revision::read(store, keys);
            self.revision = revision.ok().map(|revision| (revision, now));
        }
    }

    /// Who was admitted with this token and credential.
    pub(super) fn recall(
        &self,
        token: Option<&Sha256Hash>,
        bearer: &Sha256Hash,
        now: Monotonic,
    ) -> Option<Reader> {
        let (revision, _) = self.revision?;
        let admission = self.admissions.get(place(token, bearer))?.as_ref()?;
        let same = admission.bearer == *bearer && admission.token.as_ref() == token;
        let valid = admission.revision == revision.credentials && now.since(admission.at) < TTL;
        (same && valid).then_some(admission.reader)
    }

    /// Remembers who was admitted out of the snapshot, which was read after the last [`Memory::refresh`].
    pub(super) fn keep(
        &mut self,
        token: Option<Sha256Hash>,
        bearer: Sha256Hash,
        reader: Reader,
        now: Monotonic,
    ) {
        if self.admissions.is_empty() {
            self.admissions.resize(PLACES, None);
        }
        let slot = self.admissions.get_mut(place(token.as_ref(), &bearer));
        if let (Some((revision, _)), Some(slot)) = (self.revision, slot) {
            *slot = Some(Admission {
                token,
                bearer,
                reader,
                revision: revision.credentials,
                at: now,
            });
        }
    }
}

/// Hashes are even already.
fn place(token: Option<&Sha256Hash>, bearer: &Sha256Hash) -> usize {
    let low = |hash: &Sha256Hash| {
        let [.., a, b] = *hash.as_bytes();
        usize::from(u16::from_le_bytes([a, b]))
    };
    (low(bearer) ^ token.map_or(0, low)) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::directory::Touched;
    use crate::shared::{MemoryStore, StoreError, Versioned};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn hash(text: &str) -> Sha256Hash {
        Sha256Hash::of(text.as_bytes())
    }

    fn reader(team: u32) -> Reader {
        Reader {
            team: TeamId(team),
            token: None,
            method: AuthMethod::SecretApiKey,
        }
    }

    struct Broken;

    impl Store for Broken {
        fn read(&self, _: &str) -> Result<Versioned, StoreError> {
            Err(StoreError { status: 10 })
        }

        fn replace(&self, _: &str, _: &[u8], _: crate::shared::Cas) -> Result<bool, StoreError> {
            Err(StoreError { status: 10 })
        }
    }

    #[test]
    fn an_admission_holds_until_a_record_changes() {
        let (store, keys) = (MemoryStore::default(), Keys::new(&Settings::default()));
        let mut memory = Memory::default();
        let (token, bearer) = (hash("phc"), hash("phs"));
        memory.keep(Some(token), bearer, reader(7), at(0));
        assert_eq!(
            memory.recall(Some(&token), &bearer, at(0)),
            None,
            "before any look"
        );
        memory.refresh(&store, &keys, at(0));
        memory.keep(Some(token), bearer, reader(7), at(0));
        assert_eq!(memory.recall(Some(&token), &bearer, at(5)), Some(reader(7)));
        for (token, bearer) in [
            (None, bearer),
            (Some(bearer), token),
            (Some(token), hash("x")),
        ] {
            assert_eq!(memory.recall(token.as_ref(), &bearer, at(5)), None);
        }
        Revision::raise(&store, &keys, Touched::ALL).unwrap();
        memory.refresh(&store, &keys, at(9));
        assert!(
            memory.recall(Some(&token), &bearer, at(9)).is_some(),
            "not looked yet"
        );
        memory.refresh(&store, &keys, at(10));
        assert_eq!(memory.recall(Some(&token), &bearer, at(10)), None);
    }

    #[test]
    fn an_admission_is_looked_up_again_after_a_while() {
        let (store, keys) = (MemoryStore::default(), Keys::new(&Settings::default()));
        let mut memory = Memory::default();
        memory.refresh(&store, &keys, at(0));
        memory.keep(None, hash("phs"), reader(7), at(0));
        assert!(memory.recall(None, &hash("phs"), at(9_999)).is_some());
        assert_eq!(memory.recall(None, &hash("phs"), at(10_000)), None);
    }

    #[test]
    fn nothing_is_remembered_while_shared_data_fails() {
        let (store, keys) = (MemoryStore::default(), Keys::new(&Settings::default()));
        let mut memory = Memory::default();
        memory.refresh(&store, &keys, at(0));
        memory.keep(None, hash("phs"), reader(7), at(0));
        memory.refresh(&Broken, &keys, at(10));
        assert_eq!(memory.recall(None, &hash("phs"), at(10)), None);
    }

    #[test]
    fn those_that_meet_push_each_other_out_and_never_mix() {
        let (store, keys) = (MemoryStore::default(), Keys::new(&Settings::default()));
        let mut memory = Memory::default();
        memory.refresh(&store, &keys, at(0));
        for number in 0..3 * PLACES as u32 {
            let bearer = hash(&number.to_string());
            memory.keep(None, bearer, reader(number), at(0));
            assert_eq!(memory.recall(None, &bearer, at(0)), Some(reader(number)));
        }
        for number in 0..3 * PLACES as u32 {
            let found = memory.recall(None, &hash(&number.to_string()), at(0));
            assert!(found.is_none_or(|found| found == reader(number)));
        }
    }
}
