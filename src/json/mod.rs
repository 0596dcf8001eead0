//! JSON documents whose errors say where they are, and what the sections of a plugin configuration share ([`check`]).

pub(crate) mod check;
mod object;

pub use check::{ConfigError, parse_duration};
pub(crate) use object::{Object, object, optional_object};

use serde::de::DeserializeOwned;

/// Reads a whole document. On failure: the path of the value, or `root` for the document itself, and the
/// error.
pub(crate) fn read<T: DeserializeOwned>(
    text: &[u8],
    root: &str,
) -> Result<T, (String, serde_json::Error)> {
    // serde would take a list for an object whose fields all have defaults.
    if text.trim_ascii_start().starts_with(b"[") {
        let error = serde::de::Error::custom("must be a JSON object, found a list");
        return Err((root.to_owned(), error));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // "." is the document itself, "?" a place that the parser did not come to know.
        let known = !matches!(path.as_str(), "." | "?");
        let path = if known { path } else { root.to_owned() };
        (path, error.into_inner())
    })?;
    match deserializer.end() {
        Ok(()) => Ok(value),
        Err(error) => Err((root.to_owned(), error)),
    }
}
