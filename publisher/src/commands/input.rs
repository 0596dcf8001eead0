//! Tokens on standard input, where other users cannot see them as they see arguments.

use std::io::{self, Read};

use crate::error::TokenInputError;

/// Longest input taken for one token, in bytes.
pub(super) const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Reads standard input to its end.
///
/// # Errors
/// When it cannot be read, or is longer than `max_bytes`.
pub(super) fn read(max_bytes: u64) -> Result<Vec<u8>, TokenInputError> {
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .take(max_bytes + 1)
        .read_to_end(&mut input)
        .map_err(TokenInputError::Unreadable)?;
    if input.len() as u64 > max_bytes {
        return Err(TokenInputError::TooLong);
    }
    Ok(input)
}
