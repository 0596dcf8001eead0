//! Where in a JSON value an error is: from the offset that the parser says to the path.

/// One list or object around an offset.
struct Around {
    /// Where the name of the member begins and ends; `None` in a list.
    name: Option<(usize, usize)>,
    index: usize,
}

/// The path of the innermost value with this byte in it, such as `traits[0].trait_key`; empty for the value itself. Names
/// stand as the text has them. Of text that is no JSON it is where the parser was, about.
pub(super) fn at_offset(json: &[u8], offset: usize) -> String {
    let mut around: Vec<Around> = Vec::new();
    let mut at = 0;
    let mut is_name = false;
    while at < offset.min(json.len()) {
        let Some(byte) = json.get(at) else { break };
        match byte {
            b'"' => {
                let end = end_of_text(json, at);
                if let (true, Some(last)) = (is_name, around.last_mut()) {
                    last.name = Some((at + 1, end.saturating_sub(1)));
                    is_name = false;
                }
                at = end;
                continue;
            }
            b'{' | b'[' if at + 1 < offset => {
                is_name = *byte == b'{';
                around.push(Around {
                    name: is_name.then_some((0, 0)),
                    index: 0,
                });
            }
            b'}' | b']' if at + 1 < offset => {
                around.pop();
            }
            // The last byte of the value that is looked for.
            b'}' | b']' => {
                around.pop();
                break;
            }
            b',' => {
                if let Some(last) = around.last_mut() {
                    last.index += 1;
                    is_name = last.name.is_some();
                }
            }
            _ => {}
        }
        at += 1;
    }
    path(json, &around)
}

/// The path of what is around.
fn path(json: &[u8], around: &[Around]) -> String {
    let mut path = String::new();
    for level in around {
        match level.name {
            // No name yet.
            Some((0, _)) => break,
            Some((from, to)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&String::from_utf8_lossy(
                    json.get(from..to).unwrap_or_default(),
                ));
            }
            None => path.push_str(&format!("[{}]", level.index)),
        }
    }
    path
}

/// The end of the text whose quote is here.
fn end_of_text(json: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = json.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    json.len()
}

/// The offset that an error of the parser says; `None` when it says none.
pub(super) fn offset(json: &[u8], error: &serde_json::Error) -> Option<usize> {
    let lines = error.line().checked_sub(1)?;
    let mut start = 0;
    for _ in 0..lines {
        let rest = json.get(start..)?;
        start += rest.iter().position(|byte| *byte == b'\n')? + 1;
    }
    Some(start + error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_byte_has_its_place() {
        let json = r#"{"a":1,"b":[{"c":"x\"]"},[2]],"d":{}}"#;
        for (value, place) in [
            ("1", "a"),
            ("[{", "b"),
            ("{\"c", "b[0]"),
            ("\"x", "b[0].c"),
            ("},[", "b[0]"),
            ("2", "b[1][0]"),
            ("],\"d", "b"),
            ("}}", "d"),
        ] {
            let offset = json.find(value).unwrap() + 1;
            assert_eq!(at_offset(json.as_bytes(), offset), place, "{value}");
        }
        assert_eq!(at_offset(json.as_bytes(), json.len()), "");
        assert_eq!(at_offset(json.as_bytes(), 1), "");
        assert_eq!(at_offset(b"", 5), "");
    }

    #[test]
    fn no_text_and_no_offset_does_harm() {
        for text in ["{", "[[[", "\"", "\"\\", "}}]", "{\"a\":[", ",,", "{\"a"] {
            for offset in 0..10 {
                let _ = at_offset(text.as_bytes(), offset);
            }
        }
    }
}
