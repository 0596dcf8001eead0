//! JSON as rules see it.

use std::rc::Rc;

use super::number;
use super::partial::PartialText;
use super::reader::{NotJson, Reader};

/// The members of an object: sorted by name, each name once.
pub type Members = Vec<(Rc<str>, JsonValue)>;

/// A JSON value. A copy of it is cheap.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue {
    /// null.
    Null,
    /// true or false.
    Bool(bool),
    /// A number: an IEEE double, finite unless a rule computed it.
    Number(f64),
    /// Text.
    Text(Rc<str>),
    /// A list.
    List(Rc<Vec<JsonValue>>),
    /// An object.
    Object(Rc<Members>),
}

impl JsonValue {
    /// Reads a whole JSON document, nested at most [`MAX_DEPTH`](super::MAX_DEPTH) deep.
    ///
    /// # Errors
    /// It is no JSON, nests deeper, or has a number that no double is near to.
    pub fn read(text: &[u8]) -> Result<Self, NotJson> {
        let mut reader = Reader::new(text, 0);
        let value = reader.value()?;
        reader.end()?;
        Ok(value)
    }

    /// An object of these members; of those with the same name the last counts.
    pub fn object(mut members: Members) -> Self {
        if !members.is_sorted_by(|(a, _), (b, _)| a < b) {
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            // Of neighbours with one name the later one moves to the place of the first.
            members.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    std::mem::swap(next, kept);
                }
                same
            });
        }
        Self::Object(Rc::new(members))
    }

    /// Text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A list.
    pub(super) fn list(values: Vec<Self>) -> Self {
        Self::List(Rc::new(values))
    }

    /// A member of an object; `None` also where this is no object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                let place = members.binary_search_by(|(own, _)| (**own).cmp(name));
                members.get(place.ok()?).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&Rc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it counts as true: what is neither null, false, 0, nor empty. What is not a number (NaN) does, as in Go.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(truth) => *truth,
            Self::Number(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Object(members) => !members.is_empty(),
        }
    }

    /// Whether it nests at most so deep; 0 is neither list nor object. Looks no deeper than that.
    pub(super) fn nests_within(&self, levels: u32) -> bool {
        let below = |value: &Self| match levels.checked_sub(1) {
            Some(levels) => value.nests_within(levels),
            None => false,
        };
        match self {
            Self::List(list) => levels > 0 && list.iter().all(below),
            Self::Object(members) => levels > 0 && members.iter().all(|(_, value)| below(value)),
            _ => true,
        }
    }

    /// Whether all of its numbers are finite, so that it is JSON.
    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Number(number) => number.is_finite(),
            Self::List(list) => list.iter().all(Self::is_json),
            Self::Object(members) => members.iter().all(|(_, value)| value.is_json()),
            _ => true,
        }
    }

    /// Writes it in canonical form: members sorted by the bytes of their names, no white space, numbers as in RFC 8785.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(number) => number::write(*number, out),
            Self::Text(text) => write_text(text, out),
            Self::List(_) | Self::Object(_) => {
                PartialText::new(self.clone()).write(out, usize::MAX);
            }
        }
    }
}

/// Writes an object of these members.
pub(super) fn write_object<'v, V: 'v>(
    members: impl Iterator<Item = (&'v str, V)>,
    out: &mut Vec<u8>,
    write: impl Fn(V, &mut Vec<u8>),
) {
    out.push(b'{');
    for (place, (name, value)) in members.enumerate() {
        comma(place, out);
        write_text(name, out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

fn comma(place: usize, out: &mut Vec<u8>) {
    if place > 0 {
        out.push(b',');
    }
}

/// Writes text as JSON.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    // A buffer takes everything, and every text can be JSON.
    let _ = serde_json::to_writer(out, text);
}
