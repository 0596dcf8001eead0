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
    Http {
        /// Where it is asked.
        url: Url,
        /// The same as it was written, without them.
        name: String,
    },
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
        let url = url.ok_or_else(|| EXPECTED.to_owned())?;
        let name = name_of(text, &url);
        Ok(Self::Http { url, name })
    }
}

/// A URL as it was written, without user, password, query and fragment. Where that is not the same place it is in normal form.
fn name_of(text: &str, url: &Url) -> String {
    let mut normal = url.clone();
    // They fail for addresses without a host, which these never are.
    let _ = normal.set_username("");
    let _ = normal.set_password(None);
    normal.set_query(None);
    normal.set_fragment(None);
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let written = text.split_once("://").map(|(scheme, rest)| {
        let end = rest.find(['/', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    });
    let is_same = |written: &String| Url::parse(written).as_ref() == Ok(&normal);
    written.filter(is_same).unwrap_or_else(|| normal.into())
}

impl FlagdUri {
    /// What the source is called in selectors and metadata, which clients see: the path of a file or the URL, as it was written,
    /// without user, password, query and fragment.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Http { name, .. } => name.clone(),
        }
    }
}

impl fmt::Display for FlagdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{FILE}{}", path.display()),
            Self::Http { name, .. } => f.write_str(name),
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
            // As they were written.
            (
                "http://H:80/a/../b",
                "http://H:80/a/../b",
                "http://H:80/a/../b",
            ),
            ("http://u@h", "http://h", "http://h"),
            ("http://u:hunter2@h?key=hunter2", "http://h", "http://h"),
            // What is read in another way than it looks.
            ("http:////u:hunter2@h/a", "http://h/a", "http://h/a"),
            ("http://h\\@x/a", "http://h\\@x/a", "http://h\\@x/a"),
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
