//! Header maps as the proxy-wasm ABI carries them: `u32` count; for each field `u32` name length and `u32`
//! value length; then each name and value, followed by a zero byte. Little-endian.

use crate::http::{Field, Value};

/// Fields of a header map, read in place, in order.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    sizes: &'a [u8],
    content: &'a [u8],
}

/// The fields of a header map; `None` when these bytes are none.
pub fn fields(bytes: &[u8]) -> Option<Fields<'_>> {
    let mut rest = bytes;
    let count = usize::try_from(number(&mut rest)?).ok()?;
    let (sizes, content) = rest.split_at_checked(count.checked_mul(8)?)?;
    let (mut length, mut lengths) = (0_usize, sizes);
    while let Some(next) = number(&mut lengths) {
        length = length.checked_add(usize::try_from(next).ok()?)?;
    }
    // A zero byte follows each name and each value.
    (content.len() >= length.checked_add(count.checked_mul(2)?)?)
        .then_some(Fields { sizes, content })
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = usize::try_from(number(&mut self.sizes)?).ok()?;
        let value = usize::try_from(number(&mut self.sizes)?).ok()?;
        Some((
            text(&mut self.content, name)?,
            text(&mut self.content, value)?,
        ))
    }
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

fn text<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest.get(1..)?;
    Some(text)
}

/// A header map for the host, of the fields that are there.
pub fn encode(fields: &[Option<Field<'_>>]) -> Vec<u8> {
    let fields = || fields.iter().flatten();
    let (mut count, mut content) = (0_u32, 0);
    for (name, value) in fields() {
        count += 1;
        content += name.len() + length(value) + 10;
    }
    let mut bytes = Vec::with_capacity(4 + content);
    // Lossless: header maps are far below 4 GiB.
    bytes.extend_from_slice(&count.to_le_bytes());
    for (name, value) in fields() {
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(length(value) as u32).to_le_bytes());
    }
    for (name, value) in fields() {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        for piece in value {
            bytes.extend_from_slice(piece);
        }
        bytes.push(0);
    }
    bytes
}

fn length(value: &Value<'_>) -> usize {
    value.iter().map(|piece| piece.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_map_survives_its_encoding(
            map in prop::collection::vec(("[a-z:-]{0,8}", prop::collection::vec(any::<u8>(), 0..9)), 0..6)
        ) {
            let expected: Vec<(&[u8], &[u8])> = map.iter().map(|(n, v)| (n.as_bytes(), v.as_slice())).collect();
            let pieces = map.iter().flat_map(|(name, value)| {
                let (a, rest) = value.split_at(value.len() / 3);
                let (b, c) = rest.split_at(rest.len() / 2);
                [None, Some((name.as_str(), [a, b, c]))]
            });
            let bytes = encode(&pieces.collect::<Vec<_>>());
            prop_assert_eq!(fields(&bytes).unwrap().collect::<Vec<_>>(), expected);
            let cut = bytes.len() - 1;
            prop_assert!(fields(&bytes[..cut]).is_none());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(fields) = fields(&bytes) {
                let count = u32::from_le_bytes(bytes[..4].try_into().unwrap());
                prop_assert_eq!(fields.count(), count as usize);
            }
        }
    }

    #[test]
    fn a_count_that_lies_is_refused() {
        assert!(fields(&u32::MAX.to_le_bytes()).is_none());
        assert!(fields(&[]).is_none());
        assert_eq!(fields(&encode(&[None])).unwrap().count(), 0);
    }
}
