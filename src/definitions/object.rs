//! PostHog's second tier: payloads as plain JSON in an S3 bucket, under the name of their cache key.

use std::rc::Rc;

use super::latch::Suffix;
use super::outcome::{Absent, Full, Outcome};
use crate::config::ObjectStore;
use crate::directory::TeamId;
use crate::redis::Failure;

/// A team's object, asked for when Redis has no payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Whose definitions.
    pub team: TeamId,
    /// What the ETag ends with after a quota period ([`super::latch`]).
    pub suffix: Option<Suffix>,
}

impl Object {
    /// Its path in the bucket's URL, percent-encoded: `/<bucket>/<prefix>cache/teams/…`.
    pub fn path(&self, store: &ObjectStore) -> String {
        let name = format!(
            "/{}/{}cache/teams/{}/feature_flags/flags_with_cohorts.json",
            store.bucket, store.prefix, self.team
        );
        let mut path = String::with_capacity(name.len());
        for byte in name.bytes() {
            // S3 signs paths with all but these encoded.
            if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        path
    }

    /// What the store's answer says. An object has no ETag of its own that PostHog's clients know, so it is
    /// computed. A store that refuses or fails says nothing about whether the object is there.
    pub fn outcome(&self, answer: Result<(Option<&[u8]>, &[u8]), Failure>, most: usize) -> Outcome {
        match answer {
            Ok((Some(b"200"), body)) => Full::read(None, self.suffix.as_ref(), body, most)
                .map_or_else(Outcome::Absent, |full| Outcome::Full(Rc::new(full))),
            Ok((Some(b"404"), _)) => Outcome::Absent(Absent::Missing),
            Err(Failure::TooBig) => Outcome::Absent(Absent::TooBig),
            Ok(_) | Err(_) => Outcome::Absent(Absent::ObjectStore),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::ETag;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn object() -> Object {
        Object {
            team: TeamId(7),
            suffix: None,
        }
    }

    #[test]
    fn the_path_names_bucket_prefix_and_posthogs_object() {
        let store = ObjectStore {
            cluster: "s3".to_owned(),
            bucket: "flags".to_owned(),
            prefix: "a b/".to_owned(),
            ..ObjectStore::default()
        };
        assert_eq!(
            object().path(&store),
            "/flags/a%20b/cache/teams/7/feature_flags/flags_with_cohorts.json"
        );
    }

    #[test]
    fn only_a_404_says_that_there_is_no_payload() {
        let answer = |status: &'static str, body: &'static str| {
            let status = (!status.is_empty()).then_some(status.as_bytes());
            object().outcome(Ok((status, body.as_bytes())), 100)
        };
        let Outcome::Full(full) = answer("200", r#"{"flags":[]}"#) else {
            panic!("not a payload");
        };
        assert_eq!(full.etag, ETag::of_text(br#"{"flags":[]}"#));
        assert!(!full.etag_stored);
        assert_eq!(answer("404", "x"), Outcome::Absent(Absent::Missing));
        for status in ["403", "500", "503", "301", ""] {
            let outcome = answer(status, "{}");
            assert_eq!(outcome, Outcome::Absent(Absent::ObjectStore), "{status}");
        }
        let timeout = object().outcome(Err(Failure::Timeout), 100);
        assert_eq!(timeout, Outcome::Absent(Absent::ObjectStore));
    }
}
