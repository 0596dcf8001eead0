//! The variants of a flag, with numbers as the document writes them.

use std::collections::BTreeMap;

use super::UnfitDefinitions;
use crate::surfaces::ofrep::flagd::reader::{NotJson, Reader};
use crate::surfaces::ofrep::flagd::value::write_object;

/// Values by name, as JSON.
///
/// Clients of typed languages take a number's form for its type: `42` is no float to them. So numbers stay as they are written,
/// and where a variant has a fraction or an exponent, whole ones get `.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variants(BTreeMap<String, String>);

impl Variants {
    /// Reads variants: an object, or null.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, UnfitDefinitions> {
        let mut variants = BTreeMap::new();
        match reader.peek() {
            Some(b'{') => reader.object(|reader, name| {
                let mut value = Vec::new();
                write_kept(reader, &mut value)?;
                let value = String::from_utf8(value).unwrap_or_default();
                variants.insert(name.into_owned(), value);
                Ok::<_, UnfitDefinitions>(())
            })?,
            Some(b'n') => drop(reader.value()?),
            _ => return Err(UnfitDefinitions::new("variants", "is no object")),
        }
        if variants
            .values()
            .any(|value| is_number(value) && !is_whole(value))
        {
            for value in variants.values_mut() {
                if is_number(value) && is_whole(value) {
                    value.push_str(".0");
                }
            }
        }
        Ok(Self(variants))
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Each name with its value, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn is_whole(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

/// Writes a value in canonical form, but numbers as they are written. Recurses as deep as the reader lets it.
fn write_kept(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), NotJson> {
    match reader.peek() {
        Some(b'{') => {
            let mut members = BTreeMap::new();
            reader.object(|reader, name| {
                let mut value = Vec::new();
                write_kept(reader, &mut value)?;
                members.insert(name.into_owned(), value);
                Ok::<_, NotJson>(())
            })?;
            let members = members.iter().map(|(name, value)| (&**name, value));
            write_object(members, out, |value: &Vec<u8>, out| {
                out.extend_from_slice(value)
            });
        }
        Some(b'[') => {
            let mut separator = b'[';
            reader.list(|reader| {
                out.push(separator);
                separator = b',';
                write_kept(reader, out)
            })?;
            out.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
        }
        Some(b'-' | b'0'..=b'9') => out.extend_from_slice(reader.number()?.1.as_bytes()),
        _ => reader.value()?.write(out),
    }
    Ok(())
}
