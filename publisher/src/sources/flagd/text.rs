//! Definitions as text: JSON as it was written, YAML as the JSON that stands for the same.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;

use serde_json::Value;
use serde_saphyr::budget::Budget;

/// Longest text of a source, in bytes.
pub const MAX_TEXT_BYTES: usize = 32 << 20;

/// Most values of a text that is YAML, counted after aliases became what they stand for.
const MAX_NODES: usize = 1_000_000;

/// Deepest nesting of a text that is YAML.
const MAX_DEPTH: usize = 120;

/// Stack of the thread that reads YAML.
const STACK_BYTES: usize = 64 << 20;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// JSON (RFC 8259).
    Json,
    /// YAML 1.2, one document.
    Yaml,
}

/// A text that is none. The words follow the name of the source, and show nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextProblem {
    /// It is longer than [`MAX_TEXT_BYTES`].
    TooLong,
    /// It is not UTF-8.
    NotUtf8,
    /// It is no YAML, or more than is read, and where.
    NoYaml(String),
}

impl TextKind {
    /// What the ending of a file's name says.
    pub fn of_path(path: &Path) -> Self {
        let ending = path.extension().unwrap_or_default();
        match ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml") {
            true => Self::Yaml,
            false => Self::Json,
        }
    }

    /// What a media type says; without one, what the path of the URL does.
    pub fn of_answer(media_type: Option<&str>, path: &str) -> Self {
        let essence = media_type
            .and_then(|text| text.split(';').next())
            .map(str::trim);
        match essence {
            Some(text) if text.to_ascii_lowercase().ends_with("yaml") => Self::Yaml,
            Some(text) if text.to_ascii_lowercase().ends_with("json") => Self::Json,
            _ => Self::of_path(Path::new(path)),
        }
    }
}

/// The bytes of a file; a few more than [`MAX_TEXT_BYTES`] at most.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_TEXT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text as JSON. Whether JSON is well-formed is seen by whoever reads it.
///
/// # Errors
/// When it is too long, or none.
pub fn as_json(bytes: Vec<u8>, kind: TextKind) -> Result<String, TextProblem> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(TextProblem::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_| TextProblem::NotUtf8)?;
    if kind == TextKind::Json {
        return Ok(text);
    }
    // The library goes down with the text's nesting, for which the stack of a usual thread is too small.
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    let read = thread.spawn(move || of_yaml(&text));
    let no_thread = |problem: &str| TextProblem::NoYaml(problem.to_owned());
    let read = read.map_err(|_| no_thread("no thread can be started"))?;
    read.join()
        .unwrap_or_else(|_| Err(no_thread("the library failed")))
}

fn of_yaml(text: &str) -> Result<String, TextProblem> {
    let mut budget = Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 2 * MAX_NODES;
    budget.max_depth = MAX_DEPTH;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    // `on` and `off` are names of variants, as flagd's own reader has them.
    options.strict_booleans = true;
    options.with_snippet = false;
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|problem| TextProblem::NoYaml(problem.to_string()))?;
    Ok(value.to_string())
}

impl fmt::Display for TextProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "is longer than {MAX_TEXT_BYTES} bytes"),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::NoYaml(problem) => write!(f, "is no YAML that can be read: {problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn yaml(text: &str) -> Result<Value, String> {
        let json = as_json(text.into(), TextKind::Yaml).map_err(|problem| problem.to_string())?;
        Ok(serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn yaml_becomes_the_json_that_stands_for_the_same() {
        let text = "\
flags:
  banner:
    state: ENABLED
    variants: { on: true, off: false, 7: 1.0, none: ~ }
    defaultVariant: on
    targeting: &rule
      if: [{ in: [\"@x\", { var: email }] }, on]
  other:
    targeting: *rule
";
        let rule = json!({"if": [{"in": ["@x", {"var": "email"}]}, "on"]});
        let variants = json!({"on": true, "off": false, "7": 1.0, "none": null});
        let banner = json!({"state": "ENABLED", "variants": variants, "defaultVariant": "on", "targeting": rule});
        let expected = json!({"flags": {"banner": banner, "other": {"targeting": rule}}});
        assert_eq!(yaml(text), Ok(expected));
        assert!(
            as_json(text.into(), TextKind::Yaml)
                .unwrap()
                .contains(r#""7":1.0"#)
        );
    }

    #[test]
    fn json_stays_as_it_is_written() {
        let text = r#" {"a":1.50,"a":1e2} "#;
        assert_eq!(as_json(text.into(), TextKind::Json), Ok(text.to_owned()));
    }

    #[test]
    fn what_is_none_or_too_much_is_refused_without_its_text() {
        for (text, problem) in [
            (&b"a: [hunter2"[..], "is no YAML that can be read: "),
            (b"a: 1\na: 2\n", "is no YAML that can be read: "),
            (b"\xff", "is not UTF-8"),
        ] {
            let refused = as_json(text.into(), TextKind::Yaml)
                .unwrap_err()
                .to_string();
            assert!(
                refused.starts_with(problem) && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        let deep = format!(
            "{}1{}",
            "[".repeat(MAX_DEPTH + 1),
            "]".repeat(MAX_DEPTH + 1)
        );
        assert!(yaml(&deep).is_err());
        let long = vec![b' '; MAX_TEXT_BYTES + 1];
        assert_eq!(as_json(long, TextKind::Json), Err(TextProblem::TooLong));
    }

    #[test]
    fn aliases_that_stand_for_very_much_are_refused() {
        let mut text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..9 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(yaml(&text).is_err());
    }

    #[test]
    fn names_and_media_types_say_how_a_text_is_written() {
        for (path, kind) in [
            ("/a.json", TextKind::Json),
            ("/a.YAML", TextKind::Yaml),
            ("/a.yml", TextKind::Yaml),
            ("/a", TextKind::Json),
        ] {
            assert_eq!(TextKind::of_path(Path::new(path)), kind, "{path}");
            assert_eq!(
                TextKind::of_answer(Some("text/plain"), path),
                kind,
                "{path}"
            );
        }
        let of = |text| TextKind::of_answer(Some(text), "/a.yaml");
        assert_eq!(of("application/json; charset=utf-8"), TextKind::Json);
        assert_eq!(
            TextKind::of_answer(Some("Application/YAML"), "/a"),
            TextKind::Yaml
        );
        assert_eq!(
            TextKind::of_answer(Some("text/x-yaml"), "/a"),
            TextKind::Yaml
        );
    }
}
