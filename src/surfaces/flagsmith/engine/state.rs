//! A feature's state: what an answer says of it, written once.

use std::ops::Range;

use super::document::{StateText, VariantText};
use super::hash;
use super::scalar::{self, Scalar};

/// A feature's state in the environment, in a segment or for an identity.
#[derive(Debug)]
pub(super) struct State {
    /// The feature's id.
    pub id: u32,
    /// Whether the feature is on.
    pub enabled: bool,
    /// The element of an answer, with the value that holds without variants.
    text: Box<str>,
    /// Where in `text` the value begins; it ends before the last sign.
    value: u32,
    /// What variants are hashed with, before the identity: the state's id, else its UUID, else the feature's name. Empty:
    /// no variant is ever chosen.
    pub key: Box<str>,
    /// In order of their ids.
    variants: Box<[Variant]>,
}

#[derive(Debug)]
struct Variant {
    /// Percentages that get it.
    share: Range<f64>,
    /// Its value, as JSON.
    value: Box<str>,
}

impl State {
    /// The state that a document has.
    pub(super) fn new(read: &StateText<'_>) -> Self {
        let key = match (read.django_id, &read.featurestate_uuid) {
            (Some(id), _) => id.to_string().into(),
            (None, Some(uuid)) => uuid.as_str().into(),
            // A random one there: shares are the same, users stay where they are.
            (None, None) => read.feature.name.as_ref().into(),
        };
        Self {
            key,
            variants: variants(&read.multivariate_feature_state_values),
            ..Self::of_identity(read)
        }
    }

    /// The state that an identity's override has: without variants.
    pub(super) fn of_identity(read: &StateText<'_>) -> Self {
        let mut text = Vec::with_capacity(96 + read.feature.name.len());
        text.extend_from_slice(b"{\"enabled\":");
        Scalar::Bool(read.enabled).write(&mut text);
        text.extend_from_slice(b",\"feature\":{\"id\":");
        Scalar::Int(read.feature.id.into()).write(&mut text);
        text.extend_from_slice(b",\"name\":");
        scalar::write(read.feature.name.as_ref(), &mut text);
        text.extend_from_slice(b",\"type\":");
        let kind = read.feature.kind.as_deref().unwrap_or("STANDARD");
        scalar::write(kind, &mut text);
        text.extend_from_slice(b"},\"feature_state_value\":");
        let value = u32::try_from(text.len()).unwrap_or_default();
        read.feature_state_value.write(&mut text);
        text.push(b'}');
        Self {
            id: read.feature.id,
            enabled: read.enabled,
            text: owned(text),
            value,
            key: Box::default(),
            variants: Box::default(),
        }
    }

    /// The element up to its value, and the value, as JSON.
    pub(super) fn parts(&self) -> (&str, &str) {
        let at = usize::try_from(self.value).unwrap_or_default();
        let (head, rest) = self.text.split_at_checked(at).unwrap_or_default();
        (head, rest.strip_suffix('}').unwrap_or_default())
    }

    /// Whether identities get different values.
    pub(super) fn varies(&self) -> bool {
        !self.variants.is_empty() && !self.key.is_empty()
    }

    /// The value of the variant that an identity with this key gets, as JSON; `None`: the state's own.
    pub(super) fn variant(&self, api_key: &str, identifier: &str) -> Option<&str> {
        let share = hash::percentage(&[&self.key, ",", api_key, "_", identifier]);
        let variant = self
            .variants
            .iter()
            .find(|variant| variant.share.contains(&share))?;
        Some(&variant.value)
    }

    /// Writes the element of an answer, with this value in place of its own.
    pub(super) fn write(&self, value: Option<&str>, out: &mut Vec<u8>) {
        match value {
            None => out.extend_from_slice(self.text.as_bytes()),
            Some(value) => {
                out.extend_from_slice(self.parts().0.as_bytes());
                out.extend_from_slice(value.as_bytes());
                out.push(b'}');
            }
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn weight(&self) -> usize {
        let variants = self.variants.iter();
        let variants: usize = variants.map(|v| size_of_val(v) + v.value.len()).sum();
        size_of_val(self) + self.text.len() + self.key.len() + variants
    }
}

/// Variants by id, then by UUID, each with its share after those before it.
fn variants(read: &[VariantText<'_>]) -> Box<[Variant]> {
    let mut sorted: Vec<&VariantText<'_>> = read.iter().collect();
    sorted.sort_by_cached_key(|variant| {
        let uuid = variant.mv_fs_value_uuid.as_deref();
        match variant.id {
            Some(id) => (u128::from(id), String::new()),
            None => (
                uuid.map_or(u128::MAX, number),
                uuid.unwrap_or_default().to_owned(),
            ),
        }
    });
    let mut start = 0.0;
    let share = |variant: &VariantText<'_>| {
        let from = start;
        start += variant.percentage_allocation;
        let mut value = Vec::new();
        variant.multivariate_feature_option.value.write(&mut value);
        Variant {
            share: from..start,
            value: owned(value),
        }
    };
    sorted.into_iter().map(share).collect()
}

/// A UUID as a number; of another text the largest one.
fn number(uuid: &str) -> u128 {
    let digits: String = uuid.chars().filter(|sign| *sign != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap_or(u128::MAX)
}

/// JSON that was written here is text.
fn owned(json: Vec<u8>) -> Box<str> {
    String::from_utf8(json).unwrap_or_default().into()
}
