//! Sends answers.

use std::ops::Range;

use super::abi;
use super::wire;
use crate::http::ETag;
use crate::surfaces::posthog::reply::{Body, Reply, whole};

/// What an entity tag's opaque part follows.
const WEAK: &[u8] = b"W/\"";

/// Frequent answers: 304, 200, and 200 in gzip form.
const FREQUENT: usize = 3;

/// Sends answers. Of each frequent one it keeps the header map in the host's form: from one such answer to the next only
/// the entity tag differs, and to put a map together took a sixth of the filter's own work for a 304.
#[derive(Default)]
pub struct Responder {
    kept: [Option<Kept>; FREQUENT],
}

/// A header map, all of which is known but for its entity tag.
struct Kept {
    map: Vec<u8>,
    /// Where the tag's opaque part is. The map tells its length, so another length needs another map.
    tag: Range<usize>,
    varies: bool,
}

impl Responder {
    /// Sends an answer in the effective context.
    pub fn respond(&mut self, reply: &Reply<'_>) -> Result<(), abi::Status> {
        let map;
        let map = match self.kept_for(reply) {
            Some(kept) => kept,
            None => {
                map = wire::encode(&reply.headers());
                &map
            }
        };
        // The label is shown in access logs as RESPONSE_CODE_DETAILS.
        let label = reply.answer.label();
        abi::send_local_response(reply.answer.status(), label, map, reply.body.bytes())
    }

    /// The header map of a frequent answer; `None` for any other.
    fn kept_for(&mut self, reply: &Reply<'_>) -> Option<&[u8]> {
        let etag = reply.frequent()?;
        let slot = self.kept.get_mut(match &reply.body {
            Body::Fixed(_) => 0,
            Body::Text(_) => 1,
            Body::Gzip(_) => 2,
        })?;
        if !slot.as_ref().is_some_and(|kept| kept.fits(reply, etag)) {
            *slot = Kept::new(reply, etag);
        }
        let kept = slot.as_mut()?;
        let tag = kept.map.get_mut(kept.tag.clone())?;
        tag.copy_from_slice(etag.as_bytes());
        Some(&kept.map)
    }
}

impl Kept {
    fn new(reply: &Reply<'_>, etag: &ETag) -> Option<Self> {
        let map = wire::encode(&reply.headers());
        // All else is fixed text, and lengths of which each has a zero byte.
        let weak = map.windows(WEAK.len()).position(|bytes| bytes == WEAK)?;
        let from = weak + WEAK.len();
        Some(Self {
            map,
            tag: from..from + etag.as_bytes().len(),
            varies: reply.varies_by_encoding(),
        })
    }

    fn fits(&self, reply: &Reply<'_>, etag: &ETag) -> bool {
        self.tag.len() == etag.as_bytes().len() && self.varies == reply.varies_by_encoding()
    }
}

/// Answers with something that is not about flag definitions.
pub fn respond_plainly(status: u16, content_type: &str, body: &[u8]) -> Result<(), abi::Status> {
    let headers = [
        Some(("content-type", whole(content_type.as_bytes()))),
        Some(("cache-control", whole(b"no-store"))),
    ];
    let map = wire::encode(&headers);
    abi::send_local_response(status, "flag_definitions_health", &map, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Cors;
    use crate::surfaces::posthog::definitions::Full;
    use crate::surfaces::posthog::reply::Answer;
    use std::rc::Rc;

    /// What is sent is what would be put together anew, whatever was sent before.
    #[test]
    fn a_kept_map_differs_in_nothing_from_a_new_one() {
        let (none, browser) = (
            Cors::default(),
            Cors {
                origin: Some(b"https://app\"".into()),
                request_headers: None,
            },
        );
        let mut responder = Responder::default();
        let (mut kept, mut replies) = (0, 0);
        // A length of 34 with quotes and prefix is a quote, in bytes.
        let long = "x".repeat(30);
        for tag in [
            "0123456789abcdef",
            &long,
            "fedcba9876543210",
            "short",
            "0123456789abcdef-1",
        ] {
            let etag = ETag::new(tag.as_bytes()).unwrap();
            let full = Rc::new(Full {
                etag: etag.clone(),
                etag_stored: true,
                text: b"{}".to_vec(),
                billable: true,
            });
            for cors in [&none, &browser, &none] {
                let gzip = Rc::new(b"\x1f\x8b".to_vec());
                for reply in [
                    Reply::not_modified(etag.clone(), cors),
                    Reply::definitions(&full, None, cors),
                    Reply::definitions(&full, Some(gzip.clone()), cors),
                    Reply::not_modified(etag.clone(), cors).varying_by_encoding(),
                    Reply::definitions(&full, None, cors).varying_by_encoding(),
                    Reply::definitions(&full, Some(gzip), cors).varying_by_encoding(),
                    Reply::fixed(Answer::Preflight, cors),
                    Reply::limited(Answer::RateLimited, 7, cors),
                ] {
                    replies += 1;
                    if let Some(map) = responder.kept_for(&reply) {
                        assert_eq!(map, wire::encode(&reply.headers()), "{reply:?}");
                        kept += 1;
                    }
                }
            }
        }
        assert_eq!((kept, replies), (5 * 2 * 6, 5 * 3 * 8));
    }
}
