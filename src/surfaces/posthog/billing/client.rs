//! Which SDK sent a request, as PostHog's usage report knows it.
//!
//! The rules are those of PostHog's flags service (`Library::from_headers`): the report adds up what this
//! filter and that service wrote, so both must use the same names.

use crate::labels::labels;

/// An SDK by its name in PostHog's usage hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are PostHog's, see `label`")]
pub enum Client {
    Python,
    Ruby,
    Php,
    Java,
    Go,
    Node,
    Dotnet,
    Elixir,
    /// Also every browser.
    Js,
    Android,
    Ios,
    ReactNative,
    Flutter,
    /// Everything else, `posthog-rs` and unknown PostHog SDKs included.
    Other,
}

/// What makes a user agent a browser's.
const BROWSERS: [&[u8]; 5] = [b"Mozilla/", b"Chrome/", b"Safari/", b"Firefox/", b"Edge/"];

labels! {
    Client {
        Python: "posthog-python",
        Ruby: "posthog-ruby",
        Php: "posthog-php",
        Java: "posthog-java",
        Go: "posthog-go",
        Node: "posthog-node",
        Dotnet: "posthog-dotnet",
        Elixir: "posthog-elixir",
        Js: "posthog-js",
        Android: "posthog-android",
        Ios: "posthog-ios",
        ReactNative: "posthog-react-native",
        Flutter: "posthog-flutter",
        Other: "other",
    }
}

impl Client {
    /// Its byte in a slot of shared data.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The client of a byte in a slot; an unknown one is [`Client::Other`], so that its count is not lost.
    pub fn from_code(code: u8) -> Self {
        Self::ALL
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Other)
    }

    /// Reads the headers: the `User-Agent`, and whether `sec-fetch-mode` or `sec-fetch-site` is there.
    /// Upper and lower case differ. A user agent with other than printable ASCII is none, as for PostHog.
    ///
    /// ```
    /// use flag_definitions_filter::surfaces::posthog::billing::Client;
    /// assert_eq!(Client::of(Some(b"posthog-python/7.91.1"), false), Client::Python);
    /// assert_eq!(Client::of(Some(b"posthog-python"), false), Client::Other, "no version");
    /// assert_eq!(Client::of(None, true), Client::Js, "browsers alone send `sec-fetch-*`");
    /// ```
    pub fn of(user_agent: Option<&[u8]>, has_sec_fetch: bool) -> Self {
        let agent = user_agent.unwrap_or_default();
        // All bytes are looked at, which is faster than to ask after each whether it was the last.
        let is_text = agent.iter().fold(true, |all, byte| all & is_text(*byte));
        let agent = if is_text { agent } else { b"" };
        if let Some(sdk) = agent.strip_prefix(b"posthog-") {
            return Self::of_sdk(sdk);
        }
        let is_browser = BROWSERS
            .iter()
            .any(|name| agent.windows(name.len()).any(|part| part == *name));
        if is_browser || has_sec_fetch {
            Self::Js
        } else {
            Self::Other
        }
    }

    /// `<name>/<version>`, where the version is not empty.
    fn of_sdk(text: &[u8]) -> Self {
        let mut parts = text.splitn(2, |byte| *byte == b'/');
        let (Some(name), Some([_, ..])) = (parts.next(), parts.next()) else {
            return Self::Other;
        };
        Self::ALL
            .into_iter()
            .find(|client| client.label().as_bytes().strip_prefix(b"posthog-") == Some(name))
            .unwrap_or(Self::Other)
    }
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_user_agent_names_the_client() {
        for (agent, client) in [
            ("posthog-python/7.91.1", Client::Python),
            ("posthog-ruby/3.23.0", Client::Ruby),
            ("posthog-php/4.13", Client::Php),
            ("posthog-java/1", Client::Java),
            ("posthog-go/1.23", Client::Go),
            ("posthog-node/5.70.0", Client::Node),
            ("posthog-dotnet/2.13.3 (a; b; c)", Client::Dotnet),
            ("posthog-elixir/0.2.0", Client::Elixir),
            ("posthog-js/1.88.0", Client::Js),
            ("posthog-android/3.0.0", Client::Android),
            ("posthog-ios/3.1.0", Client::Ios),
            ("posthog-react-native/2.0.0", Client::ReactNative),
            ("posthog-flutter/2.0.0", Client::Flutter),
            ("posthog-go/ ", Client::Go),
            ("posthog-rs/0.30.0", Client::Other),
            ("posthog-other/1", Client::Other),
            ("posthog-custom/1.0 Chrome/91.0", Client::Other),
            ("posthog-python", Client::Other),
            ("posthog-python/", Client::Other),
            ("posthog-/1.0.0", Client::Other),
            ("posthog-Python/1", Client::Other),
            ("Posthog-python/1", Client::Other),
            (" posthog-python/1", Client::Other),
            ("posthog-python 1/1", Client::Other),
            ("Mozilla/5.0 (X11) Firefox/89.0", Client::Js),
            ("a Chrome/120.0", Client::Js),
            ("a Safari/537.36", Client::Js),
            ("a Firefox/89.0", Client::Js),
            ("Edge/1", Client::Js),
            ("mozilla/5.0", Client::Other),
            ("Mozilla", Client::Other),
            ("curl/7.68.0", Client::Other),
            ("", Client::Other),
        ] {
            assert_eq!(Client::of(Some(agent.as_bytes()), false), client, "{agent}");
        }
    }

    #[test]
    fn fetch_metadata_means_a_browser_unless_an_sdk_says_otherwise() {
        assert_eq!(Client::of(None, true), Client::Js);
        assert_eq!(Client::of(Some(b"curl/7"), true), Client::Js);
        assert_eq!(Client::of(Some(b"posthog-go/1"), true), Client::Go);
        assert_eq!(Client::of(Some(b"posthog-new/1"), true), Client::Other);
        assert_eq!(Client::of(None, false), Client::Other);
    }

    #[test]
    fn an_unprintable_user_agent_is_none() {
        assert_eq!(Client::of(Some(b"posthog-go/1 \xff"), false), Client::Other);
        assert_eq!(Client::of(Some(b"posthog-go/1 \xff"), true), Client::Js);
        assert_eq!(Client::of(Some(b"posthog-go/1\tx"), false), Client::Go);
    }

    #[test]
    fn codes_are_read_back() {
        for client in Client::ALL {
            assert_eq!(Client::from_code(client.code()), client);
        }
        assert_eq!(Client::from_code(14), Client::Other);
        assert_eq!(Client::from_code(255), Client::Other);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(agent in prop::collection::vec(any::<u8>(), 0..60), fetch in any::<bool>()) {
            let _ = Client::of(Some(&agent), fetch);
            let _ = Client::of(Some(&[b"posthog-".as_slice(), &agent].concat()), fetch);
        }
    }
}
