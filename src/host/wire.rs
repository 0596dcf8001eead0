//! Header maps as the proxy-wasm ABI carries them: `u32` count; for each field `u32` name length and `u32`
//! value length; then each name and value, followed by a zero byte. Little-endian.

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

/// A header map for the host.
pub fn encode<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Vec<u8> {
    let content: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().len() + 10)
        .sum();
    let mut bytes = Vec::with_capacity(4 + content);
    // Lossless: header maps are far below 4 GiB.
    bytes.extend_from_slice(&(fields.len() as u32).to_le_bytes());
    for (name, value) in fields {
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.as_ref().len() as u32).to_le_bytes());
    }
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value.as_ref());
        bytes.push(0);
    }
    bytes
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
            let map: Vec<(&str, &[u8])> = map.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            let expected: Vec<(&[u8], &[u8])> = map.iter().map(|(n, v)| (n.as_bytes(), *v)).collect();
            let bytes = encode(&map);
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
        assert_eq!(fields(&encode::<&[u8]>(&[])).unwrap().count(), 0);
    }
}
