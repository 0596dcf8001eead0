//! Sends answers.

use std::ops::Range;

use super::abi;
use super::wire;
use crate::http::{Body, CorsProfile, ETag, Response, whole};
use crate::worker::health::HealthAnswer;
use crate::worker::host::HostStatus;

/// What an entity tag's opaque part follows.
const WEAK: &[u8] = b"W/\"";

/// Frequent answers: 304, 200, and 200 in gzip form.
const FREQUENT: usize = 3;

/// Sends answers. Of each frequent one it keeps the header map in the host's form: from one such answer to the next only
/// the entity tag and one further value differ, and to put a map together took a sixth of the filter's own work for a 304.
#[derive(Default)]
pub struct Responder {
    kept: [Option<Kept>; FREQUENT],
}

/// A header map, all of which is known but for its entity tag and the value of the further field.
struct Kept {
    map: Vec<u8>,
    /// Where the tag's opaque part is. The map tells its length, so another length needs another map.
    tag: Range<usize>,
    /// Name of the further field, and where its value is.
    extra: Option<(&'static str, Range<usize>)>,
    varies: bool,
    profile: &'static CorsProfile,
}

impl Responder {
    /// Sends an answer in the effective context.
    pub fn respond(&mut self, response: &Response<'_>) -> Result<(), HostStatus> {
        let map;
        let map = match self.kept_for(response) {
            Some(kept) => kept,
            None => {
                map = wire::encode(&response.headers());
                &map
            }
        };
        abi::send_local_response(response.status, response.reason, map, response.body.bytes())
    }

    /// The header map of a frequent answer; `None` for any other.
    fn kept_for(&mut self, response: &Response<'_>) -> Option<&[u8]> {
        let etag = response.frequent()?;
        let slot = self.kept.get_mut(match &response.body {
            Body::Fixed(_) => 0,
            Body::Text(_) => 1,
            Body::Gzip(_) => 2,
        })?;
        if !slot.as_ref().is_some_and(|kept| kept.fits(response, etag)) {
            *slot = Kept::new(response, etag);
        }
        let Kept {
            map, tag, extra, ..
        } = slot.as_mut()?;
        map.get_mut(tag.clone())?.copy_from_slice(etag.as_bytes());
        if let Some((_, place)) = extra {
            let (_, value) = response.extra.first()?;
            map.get_mut(place.clone())?.copy_from_slice(value);
        }
        Some(map)
    }
}

impl Kept {
    fn new(response: &Response<'_>, etag: &ETag) -> Option<Self> {
        let map = wire::encode(&response.headers());
        // All else is fixed text, and lengths of which each has a zero byte.
        let weak = map.windows(WEAK.len()).position(|bytes| bytes == WEAK)?;
        let from = weak + WEAK.len();
        // The last field's value ends before the last zero byte.
        let end = map.len().saturating_sub(1);
        let extra = response.extra.first();
        Some(Self {
            tag: from..from + etag.as_bytes().len(),
            extra: extra.map(|(name, value)| (*name, end.saturating_sub(value.len())..end)),
            map,
            varies: response.varies_by_encoding,
            profile: response.profile,
        })
    }

    fn fits(&self, response: &Response<'_>, etag: &ETag) -> bool {
        let is_known = match (&self.extra, response.extra.first()) {
            (None, None) => true,
            (Some((name, place)), Some((other, value))) => {
                name == other && place.len() == value.len()
            }
            _ => false,
        };
        is_known
            && self.tag.len() == etag.as_bytes().len()
            && self.varies == response.varies_by_encoding
            && std::ptr::eq(self.profile, response.profile)
    }
}

/// Answers with something that is not about flag definitions.
pub fn respond_plainly(answer: &HealthAnswer) -> Result<(), HostStatus> {
    let content_type = answer.content_type.map(|value| ("content-type", value));
    let fields = content_type
        .into_iter()
        .chain(answer.fields.iter().copied());
    let fields: Vec<_> = fields
        .map(|(name, value)| Some((name, whole(value.as_bytes()))))
        .collect();
    let map = wire::encode(&fields);
    abi::send_local_response(answer.status, "flag_definitions_health", &map, &answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Cors;
    use crate::surfaces::posthog::answers::{Answer, ETagTold, limited, not_modified, payload};
    use crate::surfaces::posthog::definitions::Payload;
    use std::rc::Rc;

    /// What is sent is what would be put together anew, whatever was sent before.
    #[test]
    fn a_kept_map_differs_in_nothing_from_a_new_one() {
        let (none, browser) = (
            Cors::default(),
            Cors {
                origin: Some(b"https://app\"".into()),
                request_headers: None,
                request_method: None,
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
            let version = Payload {
                etag: etag.clone(),
                etag_stored: true,
                text: Rc::new(b"{}".to_vec()),
                billable: true,
            };
            for cors in [&none, &browser, &none] {
                let gzip = Rc::new(b"\x1f\x8b".to_vec());
                let of = |gzip| payload(&version, gzip, ETagTold::Yes, cors).0;
                let dated = |response, date: &dyn AsRef<[u8]>| Response {
                    extra: vec![("x-date", date.as_ref().to_vec().into())],
                    ..response
                };
                let varying = |response| Response {
                    varies_by_encoding: true,
                    ..response
                };
                for response in [
                    not_modified(etag.clone(), cors),
                    of(None),
                    of(Some(gzip.clone())),
                    varying(not_modified(etag.clone(), cors)),
                    varying(of(None)),
                    varying(of(Some(gzip.clone()))),
                    dated(varying(of(Some(gzip.clone()))), &tag),
                    dated(varying(of(Some(gzip))), &long),
                    Answer::Preflight.response(cors),
                    limited(Answer::RateLimited, 7, cors),
                ] {
                    replies += 1;
                    if let Some(map) = responder.kept_for(&response) {
                        assert_eq!(map, wire::encode(&response.headers()), "{response:?}");
                        kept += 1;
                    }
                }
            }
        }
        assert_eq!((kept, replies), (5 * 2 * 8, 5 * 3 * 10));
    }
}
