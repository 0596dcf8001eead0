//! Values: of a feature, and of a trait.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value that is neither list nor object.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// null.
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above `i64::MAX`.
    Big(u64),
    /// Any other number; JSON has no infinite ones.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
}

/// The value of a trait: any JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum TraitValue<'a> {
    /// Neither list nor object.
    Scalar(Scalar<'a>),
    /// A list or an object, nested less than 128 deep. Of a repeated member the last counts.
    Nested(serde_json::Value),
}

impl Scalar<'_> {
    /// Writes it as JSON. Numbers keep their kind: `10.0` stays a float, `1e21` is written `1e+21`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes())
            }
            Self::Big(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes())
            }
            Self::Float(number) => write(number, out),
            Self::Text(text) => write(text, out),
        }
    }

    /// The same, kept beyond the text that it was read from.
    pub fn into_owned(self) -> Scalar<'static> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(flag) => Scalar::Bool(flag),
            Self::Int(number) => Scalar::Int(number),
            Self::Big(number) => Scalar::Big(number),
            Self::Float(number) => Scalar::Float(number),
            Self::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }
}

impl TraitValue<'_> {
    /// Writes it as JSON; members of objects are sorted.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(scalar) => scalar.write(out),
            Self::Nested(value) => write(value, out),
        }
    }

    /// The same, kept beyond the text that it was read from.
    pub fn into_owned(self) -> TraitValue<'static> {
        match self {
            Self::Scalar(scalar) => TraitValue::Scalar(scalar.into_owned()),
            Self::Nested(value) => TraitValue::Nested(value),
        }
    }
}

/// Writes a value as JSON.
pub(super) fn write<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // A buffer takes everything, and the values written here can all be JSON.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Scalar::Big(number), Scalar::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct TraitVisitor;

impl<'de> Visitor<'de> for TraitVisitor {
    type Value = TraitValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        ScalarVisitor.visit_unit().map(TraitValue::Scalar)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        ScalarVisitor.visit_bool(flag).map(TraitValue::Scalar)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        ScalarVisitor.visit_i64(number).map(TraitValue::Scalar)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        ScalarVisitor.visit_u64(number).map(TraitValue::Scalar)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        ScalarVisitor.visit_f64(number).map(TraitValue::Scalar)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        ScalarVisitor
            .visit_borrowed_str(text)
            .map(TraitValue::Scalar)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        ScalarVisitor.visit_str(text).map(TraitValue::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        serde_json::Value::deserialize(SeqAccessDeserializer::new(elements)).map(TraitValue::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        serde_json::Value::deserialize(MapAccessDeserializer::new(members)).map(TraitValue::Nested)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TraitValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TraitVisitor)
    }
}
