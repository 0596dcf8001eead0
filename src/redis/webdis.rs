//! webdis: `POST /` with `COMMAND/argument/…` as body, percent-encoded.
//!
//! webdis takes the last `.ext` of the text as the output format, so `.raw` (RESP, binary safe) is always
//! there; and it reads `+` as a blank, so everything but unreserved characters is encoded.

use super::{Command, HttpRequest, Script, Tag};

/// Puts a command into webdis' words; a script gets this tag.
pub fn encode(command: &Command, tag: &Tag) -> HttpRequest {
    let script = command.script.map(Script::for_webdis);
    let arguments: usize = command
        .arguments
        .iter()
        .map(|word| word.len() * 2 + 1)
        .sum();
    // Growing would copy all that is there already.
    let length = command.name.len() + script.map_or(0, <[u8]>::len) + arguments;
    let mut body = Vec::with_capacity(length + tag.as_bytes().len() + RAW.len() + 2);
    body.extend_from_slice(command.name.as_bytes());
    if let Some(script) = script {
        body.push(b'/');
        body.extend_from_slice(script);
    }
    for word in &command.arguments {
        body.push(b'/');
        percent_encode(word, &mut body);
    }
    if command.has_tag() {
        body.push(b'/');
        percent_encode(tag.as_bytes(), &mut body);
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

/// A word, percent-encoded.
pub(super) fn percent_encoded(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len() * 2);
    percent_encode(word, &mut out);
    out
}

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
        String::from_utf8(encode(command, &Tag::new(0xab)).body).unwrap()
    }

    #[test]
    fn separators_blanks_and_dots_stay_part_of_their_argument() {
        assert_eq!(
            body(&Command::get("a:1:cache/b/1/x y+.json")),
            "GET/a%3A1%3Acache%2Fb%2F1%2Fx%20y%2B.json.raw"
        );
    }

    #[test]
    fn scripts_carry_keys_arguments_and_tag() {
        static SCRIPT: Script = Script::new("return {'+'}");
        let command = Command::eval_ro(&SCRIPT, ["a", "b"], [b"\xff"]);
        for _ in 0..2 {
            let body = body(&command);
            let words: Vec<&str> = body.split('/').collect();
            assert_eq!(words[0], "EVAL_RO");
            assert!(
                words[1].contains("return%20%7B%27%2B%27%7D%0Aend"),
                "{body}"
            );
            assert!(!words[1].contains([' ', '+', '{']), "{body}");
            assert_eq!(words[2..], ["2", "a", "b", "%FF", "00000000000000ab.raw"]);
        }
    }
}
