//! The entity tag of a bulk answer.

use super::rules::Fractional;
use super::selector::Selector;
use crate::hash::{Hasher, Sha256Hash};
use crate::http::ETag;

/// The digest of what is selected, for whom it is evaluated, and how: of content alone, so that all replicas agree. `version` is
/// that of the selection's text. `answer` is the SHA-256 of the answer's body where a rule reads the time
/// ([`Selection::reads_time`](super::Selection::reads_time)), and nothing elsewhere. [`ETag::long`] of it is the entity tag, which
/// is compared weakly.
pub fn tag(
    fractional: Fractional,
    selector: &Selector,
    version: &ETag,
    context: &Sha256Hash,
    answer: Option<&Sha256Hash>,
) -> Sha256Hash {
    let mut hasher = Hasher::default();
    let selector = selector.text();
    let parts: [&[u8]; 5] = [
        b"ofrep1",
        fractional.name().as_bytes(),
        selector.as_bytes(),
        version.as_bytes(),
        context.as_bytes(),
    ];
    let answer = answer.map(|answer| &answer.as_bytes()[..]);
    for part in parts.into_iter().chain(answer) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.add(&length.to_be_bytes());
        hasher.add(part);
    }
    hasher.finish()
}
