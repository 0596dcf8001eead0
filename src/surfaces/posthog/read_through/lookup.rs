//! What to look up, and the one command that does it.

use crate::hash::Sha256Hash;
use crate::redis::{Command, Script};
use crate::surfaces::posthog::request::{Bearer, ProjectToken};

/// Two strings, because webdis leaves out what is not one; an absent key is empty. The arguments say which
/// of the two each key is, so that a request without a token or credential names no key for it.
static SCRIPT: Script = Script::new(
    "local r={'',''} \
     for i,k in ipairs(KEYS) do r[tonumber(ARGV[i])]=redis.call('GET',k) or '' end return r",
);

/// PostHog's key of a checked credential; unlike Django's keys it has neither prefix nor version.
const CREDENTIAL: &str = "posthog:auth_token:sha256$";

/// What to look up. Requests with equal look-ups share one callout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    token: Option<ProjectToken<'static>>,
    bearer: Option<Sha256Hash>,
}

/// What a request asked with: the key under which it is remembered that a look-up brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Hash of its project token, if that can be looked up.
    pub token: Option<Sha256Hash>,
    /// Hash of its credential, if that can be looked up.
    pub bearer: Option<Sha256Hash>,
}

impl Lookup {
    /// The look-up for a request: of its token and its credential, as far as they are plausible
    /// ([`crate::hash::Hashed`]). `None` when neither is: then both are unknown without a look-up.
    ///
    /// It is made from the request alone, whatever is known of one half already; so equal requests have
    /// equal look-ups, and one that brought nothing is found again ([`super::Misses`]).
    pub fn new(token: Option<&ProjectToken<'_>>, bearer: Option<&Bearer>) -> Option<Self> {
        let token = token.filter(|token| token.text().is_some());
        let token = token.map(|token| token.clone().into_owned());
        let bearer = bearer
            .filter(|bearer| bearer.plausible)
            .map(|bearer| bearer.hash);
        (token.is_some() || bearer.is_some()).then_some(Self { token, bearer })
    }

    /// Hash of the project token that is looked up.
    pub fn token(&self) -> Option<&Sha256Hash> {
        self.token.as_ref().map(ProjectToken::hash)
    }

    /// Hash of the credential that is looked up.
    pub fn bearer(&self) -> Option<&Sha256Hash> {
        self.bearer.as_ref()
    }

    /// What a fruitless look-up is remembered by.
    pub fn asked(&self) -> Asked {
        Asked {
            token: self.token().copied(),
            bearer: self.bearer,
        }
    }

    /// Bytes that keeping it costs, beyond its own size.
    pub fn weight(&self) -> usize {
        let text = self.token.as_ref().and_then(ProjectToken::text);
        text.map_or(0, str::len)
    }

    /// The command that looks it up; [`super::read`] reads the reply. Prefix and version are Django's
    /// (`KEY_PREFIX:VERSION:key`).
    pub fn command(&self, key_prefix: &str, cache_version: &str) -> Command {
        let metadata = self.token.as_ref().and_then(ProjectToken::text).map(|token| {
            format!(
                "{key_prefix}{cache_version}:cache/team_tokens/{token}/team_metadata/full_metadata.json"
            )
        });
        let credential = self
            .bearer
            .map(|hash| format!("{CREDENTIAL}{}", hash.to_hex()));
        let wanted = [(metadata, "1"), (credential, "2")].into_iter();
        let (keys, places): (Vec<_>, Vec<_>) = wanted
            .filter_map(|(key, place)| Some((key?, place)))
            .unzip();
        Command::eval_ro(&SCRIPT, keys, places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surfaces::posthog::request::{Request, Token};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn lookup(token: &str, bearer: &str) -> Option<Lookup> {
        let path = format!("/flags/definitions?token={token}");
        let authorization = format!("Bearer {bearer}");
        let request = Request::parse([
            (&b":path"[..], path.as_bytes()),
            (b"authorization", authorization.as_bytes()),
        ]);
        let Token::Named(token) = &request.token else {
            panic!("no token in {path}");
        };
        Lookup::new(Some(token), request.bearer.as_ref())
    }

    fn parts(lookup: &Lookup) -> Vec<String> {
        let command = lookup.command("posthog:", "1");
        let words = command.words().into_iter();
        words
            .map(|word| String::from_utf8(word.to_vec()).unwrap())
            .collect()
    }

    const METADATA: &str = "posthog:1:cache/team_tokens/phc_a/team_metadata/full_metadata.json";
    const CHECKED: &str = "posthog:auth_token:sha256$45af89b510a3279a817f851de5d3f95b73485d58ec2672a39e52d8aeeb014059";

    #[test]
    fn one_read_only_script_asks_for_both() {
        let parts = parts(&lookup("phc_a", "test_key_12345").unwrap());
        assert_eq!(parts[0], "EVAL_RO");
        assert_eq!(parts[2..], ["2", METADATA, CHECKED, "1", "2"]);
    }

    #[test]
    fn only_djangos_key_takes_prefix_and_version() {
        let command = lookup("phc_a", "test_key_12345")
            .unwrap()
            .command("ph:", "7");
        let parts = command.words();
        assert_eq!(parts[3], METADATA.replace("posthog:1", "ph:7").as_bytes());
        assert_eq!(parts[4], CHECKED.as_bytes());
    }

    #[test]
    fn what_is_not_plausible_is_not_looked_up() {
        let token_only = lookup("phc_a", "a/b").unwrap();
        assert_eq!(parts(&token_only)[2..], ["1", METADATA, "1"]);
        let bearer_only = lookup("phc_a%2F..%2Fx", "test_key_12345").unwrap();
        assert_eq!(parts(&bearer_only)[2..], ["1", CHECKED, "2"]);
        assert_eq!(lookup("", "a b"), None);
        assert_eq!(Lookup::new(None, None), None);
    }

    #[test]
    fn requests_with_the_same_token_and_credential_need_the_same() {
        let one = lookup("phc_a", "phs_a").unwrap();
        assert_eq!(Some(one.clone()), lookup("phc_%61", "phs_a"));
        for other in [lookup("phc_b", "phs_a"), lookup("phc_a", "phs_b")] {
            let other = other.unwrap();
            assert_ne!(one, other);
            assert_ne!(one.asked(), other.asked());
        }
    }

    #[test]
    fn a_lookup_shows_neither_token_nor_credential() {
        let shown = format!("{:?}", lookup("phc_text", "phs_text"));
        assert!(!shown.contains("_text"), "{shown}");
    }
}
