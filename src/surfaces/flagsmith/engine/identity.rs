//! The body of a POST for an identity.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;

use super::place;
use super::scalar::{self, TraitValue};

const NOT_JSON: &str = "Failed to parse the request body as JSON: ";
const OTHER_SHAPE: &str = "Failed to deserialize the JSON body into the target type: ";

/// Whom a request asks for. Other members than these are ignored; a list of the two, in this order, is taken as well.
#[derive(Clone, Deserialize, PartialEq)]
pub struct IdentityRequest<'a> {
    /// The identity, which may be empty.
    #[serde(borrow)]
    pub identifier: Cow<'a, str>,
    /// What is known of it, in the order of the request. May be missing, not null. Of a repeated key the last counts.
    #[serde(borrow, default)]
    pub traits: Vec<IdentityTrait<'a>>,
}

/// One trait of an identity.
#[derive(Clone, Deserialize, PartialEq)]
pub struct IdentityTrait<'a> {
    /// Its name.
    #[serde(borrow, rename = "trait_key")]
    pub key: Cow<'a, str>,
    /// Its value, which must be present.
    #[serde(borrow, rename = "trait_value")]
    pub value: TraitValue<'a>,
}

impl IdentityRequest<'_> {
    /// The same, kept beyond the body that it was read from.
    pub fn into_owned(self) -> IdentityRequest<'static> {
        let owned = |given: IdentityTrait<'_>| IdentityTrait {
            key: Cow::Owned(given.key.into_owned()),
            value: given.value.into_owned(),
        };
        IdentityRequest {
            identifier: Cow::Owned(self.identifier.into_owned()),
            traits: self.traits.into_iter().map(owned).collect(),
        }
    }
}

impl IdentityTrait<'_> {
    /// Writes `{"trait_key":…,"trait_value":…}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"trait_key\":");
        scalar::write(self.key.as_ref(), out);
        out.extend_from_slice(b",\"trait_value\":");
        self.value.write(out);
        out.push(b'}');
    }
}

/// Shows nothing of an identity.
impl fmt::Debug for IdentityRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an identity with {} traits", self.traits.len())
    }
}

/// Shows nothing of a trait.
impl fmt::Debug for IdentityTrait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a trait")
    }
}

/// Why a body was refused. It says where, and holds nothing that the body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyProblem {
    status: u16,
    text: String,
}

impl BodyProblem {
    /// The status of the answer: 400 for what is no JSON, 422 for JSON of another shape.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The body of the answer, plain text: the prefix is axum's, path and words are like its own.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Reads a body: all of it one JSON value, nested less than 128 deep.
///
/// # Errors
/// What axum's `Json` refuses, with its status.
///
/// ```
/// use flag_definitions_filter::surfaces::flagsmith::engine::parse_identity;
/// let request = parse_identity(br#"{"identifier":"i","traits":[{"trait_key":"age","trait_value":7}]}"#);
/// assert_eq!(request.map(|request| request.traits.len()), Ok(1));
/// assert_eq!(parse_identity(b"{").map_err(|problem| problem.status()), Err(400));
/// assert_eq!(parse_identity(b"{}").map_err(|problem| problem.status()), Err(422));
/// ```
pub fn parse_identity(body: &[u8]) -> Result<IdentityRequest<'_>, BodyProblem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let request = IdentityRequest::deserialize(&mut deserializer);
    let read = request.and_then(|request| deserializer.end().map(|()| request));
    read.map_err(|error| problem(body, &error))
}

#[cold]
fn problem(body: &[u8], error: &serde_json::Error) -> BodyProblem {
    let offset = place::offset(body, error).unwrap_or_default();
    let path = Some(place::at_offset(body, offset)).filter(|path| is_of_ours(path));
    let (status, prefix) = match error.classify() {
        Category::Data => (422, OTHER_SHAPE),
        Category::Syntax | Category::Eof | Category::Io => (400, NOT_JSON),
    };
    let place = path.map(|path| format!("{path}: ")).unwrap_or_default();
    let words = if status == 422 {
        super::unfit::words(error)
    } else {
        // Words of the parser: they quote nothing.
        error.to_string()
    };
    let at = match status {
        422 => format!(" at line {} column {}", error.line(), error.column()),
        _ => String::new(),
    };
    BodyProblem {
        status,
        text: format!("{prefix}{place}{words}{at}"),
    }
}

/// Whether a path has our own names alone: members of others are the client's words.
fn is_of_ours(path: &str) -> bool {
    path.split(['.', '[']).all(|name| {
        matches!(name, "identifier" | "traits" | "trait_key" | "trait_value")
            || name
                .strip_suffix(']')
                .is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
    })
}
