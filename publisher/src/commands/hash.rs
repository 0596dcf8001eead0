//! `hash`: the SHA-256 of a token, as source documents hold it. The token is never written anywhere.

use std::io::{self, IsTerminal};

use console::Term;
use flag_definitions_filter::hash::Sha256Hash;

use super::input;
use crate::error::{Error, TokenInputError};
use crate::progress::say;

/// Reads a token from standard input and returns its hash as 64 hexadecimal digits.
///
/// # Errors
/// When there is no token, or it cannot be read.
pub fn run() -> Result<String, Error> {
    let input = read()?;
    let token = without_newline(&input);
    if token.is_empty() {
        return Err(TokenInputError::NoToken.into());
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        say("warning: the token has spaces or other unusual characters; all of them were hashed");
    }
    Ok(Sha256Hash::of(token).to_hex())
}

fn read() -> Result<Vec<u8>, TokenInputError> {
    let terminal = Term::stderr();
    if io::stdin().is_terminal() {
        if terminal.is_term() {
            say("Paste the token and press Enter. It is not shown.");
            let token = terminal
                .read_secure_line()
                .map_err(TokenInputError::Unreadable)?;
            return Ok(token.into_bytes());
        }
        say("Paste the token, then press Enter and Ctrl-D.");
    }
    input::read(input::MAX_TOKEN_BYTES)
}

/// Without the newline that editors and `echo` put at the end.
fn without_newline(input: &[u8]) -> &[u8] {
    let line = input.strip_suffix(b"\n").unwrap_or(input);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_token() {
        for (input, token) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
            ("\n", ""),
        ] {
            assert_eq!(
                without_newline(input.as_bytes()),
                token.as_bytes(),
                "{input:?}"
            );
        }
    }
}
