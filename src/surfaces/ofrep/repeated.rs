//! Requests that were made before: clients poll with the same body, so the digest of their answer is remembered by the body's
//! bytes, and nothing of it is parsed again.

use std::time::Duration;

use super::flagd::Selector;
use super::request::OfrepRequest;
use crate::hash::{KeyedHash, Sha256Hash};
use crate::http::ETag;
use crate::recent::Recent;
use crate::time::Monotonic;

/// Most bodies that are remembered: 330 KB.
const PLACES: usize = 4_096;

/// Longest body that is, and that is read at once: a longer one is read in slices.
pub const LONGEST: usize = 16 << 10;

/// What a body is remembered by, together with all else that its context and its answer depend on.
pub type RepeatedName = [u64; 2];

/// Requests of one worker for all flags of a selection, none of whose rules reads the time.
pub struct RepeatedRequests {
    keyed: KeyedHash,
    /// With the version that was current.
    digests: Recent<RepeatedName, (ETag, Sha256Hash)>,
}

impl RepeatedRequests {
    /// None was made yet. The key must be random.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            keyed: KeyedHash::new(key),
            digests: Recent::new(PLACES, Duration::MAX),
        }
    }

    /// The name of a request; `None` where it is not remembered.
    pub fn name(
        &self,
        request: &OfrepRequest<'_>,
        selector: &Selector,
        body: &[u8],
    ) -> Option<RepeatedName> {
        if body.len() > LONGEST || request.evaluand.key().is_some() {
            return None;
        }
        let text = selector.text();
        let mapped = request.mapped.iter();
        let places: Vec<_> = mapped.map(|(place, _)| place.to_le_bytes()).collect();
        let mapped = places.iter().zip(&request.mapped);
        let mapped = mapped.flat_map(|(place, (_, value))| [&place[..], value.as_ref()]);
        let parts = [text.as_bytes(), body].into_iter().chain(mapped);
        Some(self.keyed.of(parts))
    }

    /// The digest of the answer, where the request was answered out of this version.
    pub fn digest(&self, name: &RepeatedName, version: &ETag) -> Option<Sha256Hash> {
        // It is true of its version for ever.
        let (of, digest) = self.digests.get(name, Monotonic::default())?;
        (of == version).then_some(*digest)
    }

    /// Remembers the digest of an answer.
    pub fn note(&mut self, name: RepeatedName, version: ETag, digest: Sha256Hash) {
        let now = Monotonic::default();
        self.digests.note(name, (version, digest), now);
    }
}
