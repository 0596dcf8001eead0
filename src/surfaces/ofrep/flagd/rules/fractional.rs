//! `fractional`: which part of all users gets which variant.

use serde::Deserialize;

use super::{cbor, murmur};
use crate::surfaces::ofrep::flagd::context::{FLAG_KEY, FLAGD, TARGETING_KEY};
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// Which generation of `fractional` holds. Each puts everybody into other buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fractional {
    /// That of flagd 0.15.0 and later: the bytes of texts are hashed.
    #[default]
    V2,
    /// That of flagd's newer libraries: the CBOR of any value is hashed.
    V3,
}

impl Fractional {
    /// Its name in settings and in entity tags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// The variant for these arguments; `None` where they say nothing. Returns how many bytes it hashed, too.
    pub(super) fn evaluate(
        self,
        arguments: &[JsonValue],
        data: &JsonValue,
    ) -> (Option<JsonValue>, usize) {
        let Some((bytes, buckets)) = self.bucketed(arguments, data) else {
            return (None, 0);
        };
        let Some((weights, sum)) = weights(buckets) else {
            return (None, 0);
        };
        let place = (u64::from(murmur::hash(&bytes)) * sum) >> 32;
        let mut end = 0;
        let hit = weights.into_iter().find(|(weight, _)| {
            end += weight;
            place < end
        });
        (hit.map(|(_, variant)| variant.clone()), bytes.len())
    }

    /// What is hashed, and the buckets.
    fn bucketed<'v>(
        self,
        arguments: &'v [JsonValue],
        data: &JsonValue,
    ) -> Option<(Vec<u8>, &'v [JsonValue])> {
        let (first, rest) = arguments.split_first()?;
        let mut bytes = Vec::new();
        let buckets = match (self, first) {
            // Of an element that is no object, there is nobody to put into a bucket.
            (Self::V2, _) if !matches!(data, JsonValue::Object(_)) => return None,
            (Self::V2, JsonValue::Text(text)) => return Some((text.as_bytes().to_vec(), rest)),
            (Self::V2, JsonValue::Null) => rest,
            (_, JsonValue::List(_)) => arguments,
            (Self::V2, _) | (Self::V3, JsonValue::Null) => return None,
            (Self::V3, value) => {
                cbor::write(value, &mut bytes);
                return Some((bytes, rest));
            }
        };
        let flag = data.member(FLAGD).and_then(|own| own.member(FLAG_KEY));
        let flag = flag.and_then(JsonValue::as_text).map_or("", |key| key);
        let user = data.member(TARGETING_KEY)?.as_text()?;
        if user.is_empty() {
            return None;
        }
        match self {
            Self::V2 => {
                bytes.extend_from_slice(flag.as_bytes());
                bytes.extend_from_slice(user.as_bytes());
            }
            Self::V3 => {
                bytes.push(cbor::PAIR);
                cbor::write_text(flag, &mut bytes);
                cbor::write_text(user, &mut bytes);
            }
        }
        Some((bytes, buckets))
    }
}

/// The weight and the variant of each bucket, and the sum of weights, which is above 0.
fn weights(buckets: &[JsonValue]) -> Option<(Vec<(u64, &JsonValue)>, u64)> {
    let weights: Option<Vec<_>> = buckets.iter().map(weight).collect();
    let weights = weights?;
    let mut sum: u64 = 0;
    for (weight, _) in &weights {
        sum = sum.saturating_add(*weight);
    }
    let most = i32::MAX.unsigned_abs().into();
    (1..=most).contains(&sum).then_some((weights, sum))
}

fn weight(bucket: &JsonValue) -> Option<(u64, &JsonValue)> {
    let JsonValue::List(bucket) = bucket else {
        return None;
    };
    let variant = bucket.first()?;
    if matches!(variant, JsonValue::List(_) | JsonValue::Object(_)) {
        return None;
    }
    let weight = match bucket.get(1) {
        None | Some(JsonValue::Null) => 1,
        // Go reads no integer from what is beyond 64 bits.
        Some(JsonValue::Number(weight)) if weight.fract() == 0.0 && weight.abs() < 9.3e18 => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // negative ones are 0
            let weight = *weight as u64;
            weight
        }
        Some(_) => return None,
    };
    Some((weight, variant))
}
