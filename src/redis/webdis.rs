//! webdis: `POST /` with `COMMAND/argument/…` as body, percent-encoded.
//!
//! webdis takes the last `.ext` of the text as the output format, so `.raw` (RESP, binary safe) is always
//! there; and it reads `+` as a blank, so everything but unreserved characters is encoded.

use super::{Command, HttpRequest};

/// Puts a command into webdis' words.
pub fn encode(command: &Command) -> HttpRequest {
    // A third of a script is blanks and signs. Growing would copy all that is there already.
    let length: usize = command.0.iter().map(|part| part.len() * 2 + 1).sum();
    let mut body = Vec::with_capacity(length + RAW.len());
    for (index, part) in command.0.iter().enumerate() {
        if index > 0 {
            body.push(b'/');
        }
        percent_encode(part, &mut body);
    }
    body.extend_from_slice(RAW);
    HttpRequest {
        method: "POST",
        path: "/",
        headers: &[("content-type", "text/plain")],
        body,
    }
}

const RAW: &[u8] = b".raw";

/// Encodes all but the unreserved characters of RFC 3986 §2.3.
fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let stays =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut rest = bytes;
    // Words are copied whole.
    while let Some(length) = rest.iter().position(|byte| !stays(byte)) {
        let (word, more) = rest.split_at(length);
        out.extend_from_slice(word);
        let Some((byte, more)) = more.split_first() else {
            return;
        };
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or_default();
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        rest = more;
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn body(command: &Command) -> String {
        String::from_utf8(encode(command).body).unwrap()
    }

    #[test]
    fn separators_blanks_and_dots_stay_part_of_their_argument() {
        assert_eq!(
            body(&Command::get("posthog:1:cache/teams/1/x y+.json")),
            "GET/posthog%3A1%3Acache%2Fteams%2F1%2Fx%20y%2B.json.raw"
        );
    }

    #[test]
    fn scripts_carry_keys_and_arguments() {
        assert_eq!(
            body(&Command::eval_ro("return 1", &["a", "b"], &[b"\xff"])),
            "EVAL_RO/return%201/2/a/b/%FF.raw"
        );
    }
}
