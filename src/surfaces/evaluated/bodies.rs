//! What the body of a request costs once it is read.

/// Most values of a body, counted by what stands before each: a comma or an opening bracket. With more it is too long.
const MAX_VALUES: usize = 50_000;

/// What a value of a body takes at most.
const VALUE_BYTES: usize = 400;

/// Most bytes that a body of JSON takes once it is read; `None`: it has more values than a body may have, and is too long.
pub fn cost(body: &[u8]) -> Option<usize> {
    // Each of these becomes some hundred bytes, whatever it stands for.
    let is_structural = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
    let values = body.iter().filter(is_structural).count();
    let bytes = || {
        body.len()
            .saturating_add(values.saturating_mul(VALUE_BYTES))
    };
    (values <= MAX_VALUES).then(bytes)
}
