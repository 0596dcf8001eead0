//! Where flagd's definitions are, as flagd's own `--uri` says it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

/// What a source of definitions is called begins with this in a URI of a file.
const FILE: &str = "file:";

/// Where the definitions of one source are.
#[derive(Clone, PartialEq, Eq)]
pub enum FlagdUri {
    /// In a file: JSON, or YAML where the name ends in `.yaml` or `.yml`.
    File(PathBuf),
    /// At `http://…` or `https://…`. It may hold a user, a password and a query, which `Debug` and `Display` leave out.
    Http(Url),
}

impl FromStr for FlagdUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected file:PATH, http://… or https://…";
        if let Some(path) = text.strip_prefix(FILE) {
            // Some write it with the authority that a URL has, and nothing in it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(EXPECTED.to_owned()),
                false => Ok(Self::File(path.into())),
            };
        }
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        let url = is_http.then(|| Url::parse(text).ok()).flatten();
        url.map(Self::Http).ok_or_else(|| EXPECTED.to_owned())
    }
}

impl FlagdUri {
    /// What the source is called in selectors and metadata, which clients see: the path of a file as it was written, or a URL
    /// without user, password and query.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Http(url) => {
                let mut url = url.clone();
                // They fail for addresses without a host, which these never are.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.set_query(None);
                url.set_fragment(None);
                url.into()
            }
        }
    }
}

impl fmt::Display for FlagdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{FILE}{}", path.display()),
            Self::Http(_) => f.write_str(&self.name()),
        }
    }
}

impl fmt::Debug for FlagdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlagdUri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_file_or_http_and_its_name_has_no_secret() {
        for (text, shown, name) in [
            ("file:/etc/a.json", "file:/etc/a.json", "/etc/a.json"),
            ("file:///etc/a.json", "file:/etc/a.json", "/etc/a.json"),
            ("file:flags/a.yaml", "file:flags/a.yaml", "flags/a.yaml"),
            (
                "http://h:81/a.json",
                "http://h:81/a.json",
                "http://h:81/a.json",
            ),
            (
                "https://u:hunter2@h/a?key=hunter2#x",
                "https://h/a",
                "https://h/a",
            ),
        ] {
            let uri: FlagdUri = text.parse().unwrap();
            assert_eq!(
                (uri.to_string().as_str(), uri.name().as_str()),
                (shown, name)
            );
            assert!(!format!("{uri:?}").contains("hunter2"));
        }
        for text in [
            "",
            "file:",
            "file://",
            "/etc/a.json",
            "grpc://h:1",
            "http://",
            "http:a",
        ] {
            let refused = text.parse::<FlagdUri>().unwrap_err();
            assert_eq!(
                refused, "expected file:PATH, http://… or https://…",
                "{text}"
            );
        }
    }
}
