//! The entity tag of a bulk answer.

use super::rules::Fractional;
use super::selector::Selector;
use crate::hash::{Hasher, Sha256Hash};
use crate::http::ETag;

/// Hexadecimal digits of a tag.
const DIGITS: usize = 32;

/// The tag of what is selected, for whom it is evaluated, and how: of content alone, so that all replicas agree. `selection` is
/// the SHA-256 of the selection's text. `answer` is the body of the answer where a rule reads the time
/// ([`Selection::reads_time`](super::Selection::reads_time)), and nothing elsewhere. It is compared weakly.
pub fn tag(
    fractional: Fractional,
    selector: &Selector,
    selection: &Sha256Hash,
    context: &Sha256Hash,
    answer: Option<&[u8]>,
) -> Option<ETag> {
    let mut hasher = Hasher::default();
    let selector = selector.text();
    let parts: [&[u8]; 5] = [
        b"ofrep1",
        fractional.name().as_bytes(),
        selector.as_bytes(),
        selection.as_bytes(),
        context.as_bytes(),
    ];
    for part in parts.into_iter().chain(answer) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.add(&length.to_be_bytes());
        hasher.add(part);
    }
    let digits = hasher.finish().to_hex();
    ETag::new(digits.as_bytes().get(..DIGITS)?)
}
