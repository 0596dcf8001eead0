//! Fields of JSON, taken out one by one by their names. Errors name a field by its path, and nothing that stands in it.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::secret::FlagsmithKey;

/// Why a field is refused. Says nothing of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, `environment_key_pairs[1].server_side_key`; empty: the whole text.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldProblem {
    pub(super) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.problem),
            path => write!(f, "{path}: {}", self.problem),
        }
    }
}

impl std::error::Error for FieldProblem {}

/// Longest name of an unknown field that is shown.
const SHOWN: usize = 64;

/// The fields of an object that were not taken yet.
pub(super) struct Fields {
    path: String,
    left: Map<String, Value>,
}

impl Fields {
    /// The first of these fields that is there, with its path. The others of the names count as known.
    pub fn take(&mut self, names: &[&'static str]) -> Option<(String, Value)> {
        let mut found = names
            .iter()
            .map(|name| (*name, self.left.remove(*name)))
            .collect::<Vec<_>>()
            .into_iter();
        found.find_map(|(name, value)| Some((self.path_of(name), value?)))
    }

    /// A field that must be there, with its path.
    pub fn required(&mut self, name: &'static str) -> Result<(String, Value), FieldProblem> {
        let missing = FieldProblem::new(self.path_of(name), "is missing");
        self.take(&[name]).ok_or(missing)
    }

    /// What nobody took. A name of another form than fields have may be anything, also a key in the wrong place.
    pub fn unknown(self) -> Vec<String> {
        let is_name = |name: &&str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            name.len() <= SHOWN && name.bytes().all(plain)
        };
        let shown = |name: &str| self.path_of(Some(name).filter(is_name).unwrap_or("…"));
        self.left.keys().map(|name| shown(name)).collect()
    }

    fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }
}

/// Reads JSON.
pub(super) fn json(text: &[u8]) -> Result<Value, FieldProblem> {
    serde_json::from_slice(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        FieldProblem::new("", format!("is not JSON ({place})"))
    })
}

/// A key. Whitespace around it is dropped, as the Python proxy does.
pub(super) fn key(path: &str, value: Value) -> Result<FlagsmithKey, FieldProblem> {
    let text = text(path, value)?;
    FlagsmithKey::new(text.trim()).map_err(|_| {
        let problem = "must be 1 to 1024 characters of ASCII without spaces";
        FieldProblem::new(path, problem)
    })
}

/// A key of one of the two sides.
pub(super) fn key_of(
    path: &str,
    value: Value,
    is_server_side: bool,
) -> Result<FlagsmithKey, FieldProblem> {
    let key = key(path, value)?;
    match (is_server_side, key.is_server_side()) {
        (true, false) => Err(FieldProblem::new(path, "must begin with ser.")),
        (false, true) => {
            let problem = "begins with ser., so it is a server-side key";
            Err(FieldProblem::new(path, problem))
        }
        _ => Ok(key),
    }
}

pub(super) fn object(path: &str, value: Value) -> Result<Fields, FieldProblem> {
    match value {
        Value::Object(left) => Ok(Fields {
            path: path.to_owned(),
            left,
        }),
        _ => Err(FieldProblem::new(path, "must be an object")),
    }
}

pub(super) fn list(path: &str, value: Value) -> Result<Vec<Value>, FieldProblem> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(FieldProblem::new(path, "must be a list")),
    }
}

pub(super) fn text(path: &str, value: Value) -> Result<String, FieldProblem> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(FieldProblem::new(path, "must be a text")),
    }
}

pub(super) fn number(
    path: &str,
    value: &Value,
    range: RangeInclusive<u64>,
) -> Result<u64, FieldProblem> {
    let number = value.as_u64().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        FieldProblem::new(
            path,
            format!("must be a whole number from {first} to {last}"),
        )
    })
}
