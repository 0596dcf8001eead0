//! Header maps as the proxy-wasm ABI carries them: `u32` count; for each field `u32` name length and `u32`
//! value length; then each name and value, followed by a zero byte. Little-endian.

/// Fields of a header map, read in place.
pub fn fields(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut sizes = bytes;
    let count = usize::try_from(number(&mut sizes)?).ok()?;
    let mut content = sizes.get(count.checked_mul(8)?..)?;
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let name = usize::try_from(number(&mut sizes)?).ok()?;
        let value = usize::try_from(number(&mut sizes)?).ok()?;
        fields.push((text(&mut content, name)?, text(&mut content, value)?));
    }
    Some(fields)
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
            prop_assert_eq!(fields(&bytes), Some(expected));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fields(&bytes);
        }
    }

    #[test]
    fn a_count_that_lies_is_refused() {
        assert_eq!(fields(&u32::MAX.to_le_bytes()), None);
        assert_eq!(fields(&[]), None);
        assert_eq!(fields(&encode::<&[u8]>(&[])), Some(vec![]));
    }
}
