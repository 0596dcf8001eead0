//! What `watch` is told of flagd's definitions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::follower::{FlagdSource, OpenSource, Reached};
use super::http::PolledUrl;
use super::uri::FlagdUri;
use crate::sources::authorities::authorities;
use crate::sources::documents::DocumentSource;
use crate::sources::followed_file::FollowedFile;
use crate::sources::options::{OptionError, interval};

/// Options of flagd's definitions as sources that are followed.
#[derive(Clone, Debug, Args)]
pub struct FlagdOptions {
    /// Flags as flagd defines them, for OFREP: file:PATH, http://… or https://…, followed as they change. May be given several
    /// times, a later one wins; in the environment they are separated by spaces
    #[arg(long, value_name = "URI", env = "FLAGD_URI", hide_env_values = true)]
    pub flagd_uri: Vec<String>,
    /// Time between two reads of an http:// or https:// URI: 100ms to 24h
    #[arg(
        long,
        value_name = "DURATION",
        env = "FLAGD_POLL_INTERVAL",
        default_value = "5s",
        value_parser = interval
    )]
    pub flagd_poll_interval: Duration,
    /// CA of the certificates of https:// URIs (PEM) [default: those that browsers accept]
    #[arg(
        long,
        value_name = "FILE",
        env = "FLAGD_CA_FILE",
        requires = "flagd_uri"
    )]
    pub flagd_ca_file: Option<PathBuf>,
}

impl FlagdOptions {
    /// Takes the URIs apart; `None`: none is followed. Reads none yet.
    ///
    /// # Errors
    /// When one or the CA file is refused, or two sources have one name.
    pub fn open(&self) -> Result<Option<Box<dyn DocumentSource>>, OptionError> {
        let (mut sources, mut names) = (Vec::new(), BTreeSet::new());
        for (place, text) in separated(&self.flagd_uri).iter().enumerate() {
            // It may hold a password: a text that is none is not repeated.
            let place = place + 1;
            let refused = |problem: String| OptionError {
                option: "--flagd-uri",
                problem,
            };
            let uri: FlagdUri = text
                .parse()
                .map_err(|problem| refused(format!("number {place}: {problem}")))?;
            if !names.insert(uri.name()) {
                let name = uri.name();
                let problem = format!("number {place}: an earlier one is called {name}, too");
                return Err(refused(problem));
            }
            let reached = match &uri {
                FlagdUri::File(path) => Reached::File(FollowedFile::new(path)),
                FlagdUri::Http { url, .. } => {
                    let ca_file = self.flagd_ca_file.as_deref();
                    let roots = authorities(ca_file).map_err(|problem| OptionError {
                        option: "--flagd-ca-file",
                        problem: match ca_file {
                            Some(file) => format!("the CA file {} {problem}", file.display()),
                            None => problem,
                        },
                    })?;
                    let url = PolledUrl::new(url.clone(), roots)
                        .ok_or_else(|| refused("TLS cannot be set up".to_owned()))?;
                    Reached::Url(Box::new(url))
                }
            };
            sources.push(OpenSource { uri, reached });
        }
        Ok(match sources.is_empty() {
            true => None,
            false => Some(Box::new(FlagdSource::new(
                sources,
                self.flagd_poll_interval,
            ))),
        })
    }
}

/// The URIs of texts that may hold several, separated by white space. A word without a scheme belongs to the one before it: a
/// file's name may have spaces.
fn separated(texts: &[String]) -> Vec<String> {
    let has_scheme = |word: &str| {
        let scheme = word.split_once(':').map_or("", |(scheme, _)| scheme);
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let mut uris: Vec<String> = Vec::new();
    for text in texts {
        let mut last: Option<String> = None;
        for word in text.split(char::is_whitespace) {
            match &mut last {
                Some(uri) if !has_scheme(word) => {
                    uri.push(' ');
                    uri.push_str(word);
                }
                _ => uris.extend(last.replace(word.to_owned())),
            }
        }
        uris.extend(last);
    }
    let uris = uris.into_iter().map(|uri| uri.trim().to_owned());
    uris.filter(|uri| !uri.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    fn open(uris: &[&str], ca_file: Option<PathBuf>) -> Result<Option<&'static str>, String> {
        let options = FlagdOptions {
            flagd_uri: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            flagd_poll_interval: Duration::from_secs(5),
            flagd_ca_file: ca_file,
        };
        let source = options.open().map_err(|error| error.to_string());
        source.map(|source| source.map(|source| source.surface()))
    }

    #[test]
    fn uris_are_separated_by_spaces_and_a_name_may_have_some() {
        for (texts, uris) in [
            (&[""][..], &[][..]),
            (&["  file:/a   http://h/b "], &["file:/a", "http://h/b"]),
            (&["file:/a b.json file:/c"], &["file:/a b.json", "file:/c"]),
            (&["file:/a", "file:/b"], &["file:/a", "file:/b"]),
            (&["/a"], &["/a"]),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(separated(&texts), uris, "{texts:?}");
        }
    }

    #[test]
    fn a_uri_is_taken_or_refused_by_its_number() {
        assert_eq!(open(&[], None), Ok(None));
        let good = ["file:/a.json http://h/b", "https://u:hunter2@h/b"];
        assert_eq!(open(&good, None), Ok(Some("ofrep")));
        for (uris, problem) in [
            (
                &["file:/a", "grpc://hunter2:1"][..],
                "number 2: expected file:PATH, http://… or https://…",
            ),
            (
                &["file:/a file:///a"],
                "number 2: an earlier one is called /a, too",
            ),
            (
                &["http://h/a?key=hunter2", "http://u:hunter2@h/a"],
                "number 2: an earlier one is called http://h/a, too",
            ),
        ] {
            let expected = Err(format!("--flagd-uri: {problem}"));
            assert_eq!(open(uris, None), expected, "{uris:?}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let empty = NamedTempFile::new().unwrap();
        let refused = open(&["https://h/a"], Some(empty.path().to_owned())).unwrap_err();
        let expected = format!(
            "--flagd-ca-file: the CA file {} has no certificate",
            empty.path().display()
        );
        assert_eq!(refused, expected);
    }
}
