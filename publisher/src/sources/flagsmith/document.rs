//! A document of an environment: its pages put together, checked, and written in the form in which filters take it.

use std::fmt;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::surfaces::flagsmith::engine::{Compiler, Progress};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

/// Longest text of a document, in its canonical form.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Longest text of one page as it was sent, uncompressed: with spaces it is longer than the canonical form.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

/// Longest text of all pages of one document. Each page repeats all but the identity overrides.
const MAX_PAGES_BYTES: usize = 64 << 20;

/// Longest name that is shown, in characters.
const SHOWN: usize = 64;

const OVERRIDES: &str = "identity_overrides";

/// One answer of the upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    /// The body as it came.
    pub body: Vec<u8>,
    /// Whether the body is in gzip form.
    pub is_gzip: bool,
}

/// A document in canonical form.
#[derive(Clone, PartialEq, Eq)]
pub struct FlagsmithDocument {
    /// Its version.
    pub version: ETag,
    /// Its canonical text in gzip form.
    pub gzip: Arc<[u8]>,
}

/// What was read of a document.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadDocument {
    /// The document, or why it is refused.
    pub fits: Result<FlagsmithDocument, DocumentProblem>,
    /// A document that filters do not take. `None`: it fits, or is none that could be handed out.
    pub unfit: Option<FlagsmithDocument>,
    /// How many of its patterns match nothing, since they are bad or too large.
    pub patterns_left_out: usize,
    /// When it says that it was changed last, as written.
    pub updated_at: Option<String>,
    /// What it calls its environment, as a log may show it.
    pub name: String,
    /// The hash of the client-side key that it names.
    pub api_key: Option<Sha256Hash>,
}

/// Why pages are no document at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDocument {
    /// A body is not what its headers say.
    Gzip,
    /// A body is not JSON.
    Json,
    /// They are of different moments.
    Mixed,
}

/// Why a document is refused: a path and what is wrong there, without what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentProblem {
    /// The place, `project.segments`; empty: the whole document.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl DocumentProblem {
    fn new(path: &str, problem: &str) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

impl fmt::Display for DocumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "the document {}", self.problem),
            path => write!(f, "{path} {}", self.problem),
        }
    }
}

impl fmt::Display for NoDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "a body is not gzip, as its headers say",
            Self::Json => "a body is not JSON",
            Self::Mixed => "the document changed while its pages were read",
        })
    }
}

/// Puts pages together: the first one, with the identity overrides of all.
///
/// # Errors
/// When they are no document of one moment.
pub fn assemble(pages: Vec<Page>) -> Result<ReadDocument, NoDocument> {
    let mut whole: Option<Map<String, Value>> = None;
    let mut refused = None;
    let mut left = MAX_PAGES_BYTES;
    for page in pages {
        let text = page.text()?;
        left = left.saturating_sub(text.as_ref().map_or(left, Vec::len));
        let Some(text) = text.filter(|_| left > 0) else {
            let problem = DocumentProblem::new("", "is too long");
            return Ok(ReadDocument::refused(whole.as_ref(), problem));
        };
        let value: Value = match serde_json::from_slice(&text) {
            Ok(value) => value,
            Err(_) if is_too_deep(&text) => {
                let problem = DocumentProblem::new("", "is nested too deeply");
                return Ok(ReadDocument::refused(whole.as_ref(), problem));
            }
            Err(_) => return Err(NoDocument::Json),
        };
        let Value::Object(mut page) = value else {
            let problem = DocumentProblem::new("", "is not an object");
            return Ok(ReadDocument::refused(whole.as_ref(), problem));
        };
        let Some(first) = &mut whole else {
            whole = Some(page);
            continue;
        };
        if first.get("updated_at") != page.get("updated_at") {
            return Err(NoDocument::Mixed);
        }
        refused = refused.or(append(first, page.remove(OVERRIDES)));
    }
    let whole = whole.unwrap_or_default();
    match refused {
        Some(problem) => Ok(ReadDocument::refused(Some(&whole), problem)),
        None => Ok(ReadDocument::of(&whole)),
    }
}

/// Adds the overrides of a later page.
fn append(whole: &mut Map<String, Value>, more: Option<Value>) -> Option<DocumentProblem> {
    let refused = Some(DocumentProblem::new(OVERRIDES, "must be a list"));
    let more = match more {
        None | Some(Value::Null) => return None,
        Some(Value::Array(more)) => more,
        Some(_) => return refused,
    };
    match whole.entry(OVERRIDES).or_insert(Value::Null) {
        Value::Array(overrides) => overrides.extend(more),
        none @ Value::Null => *none = Value::Array(more),
        _ => return refused,
    }
    None
}

impl Page {
    /// The body uncompressed; `None` when it is too long.
    pub(super) fn text(self) -> Result<Option<Vec<u8>>, NoDocument> {
        let text = if self.is_gzip {
            let mut text = Vec::new();
            // A few kilobytes of zeros are gigabytes: it ends at the bound.
            let bound = MAX_PAGE_BYTES as u64 + 1;
            let read = MultiGzDecoder::new(self.body.as_slice())
                .take(bound)
                .read_to_end(&mut text);
            read.map_err(|_| NoDocument::Gzip)?;
            text
        } else {
            self.body
        };
        Ok(Some(text).filter(|text| text.len() <= MAX_PAGE_BYTES))
    }
}

impl ReadDocument {
    fn of(document: &Map<String, Value>) -> Self {
        let refused = |problem| Self::refused(Some(document), DocumentProblem::new("", problem));
        let Ok(text) = serde_json::to_vec(document) else {
            return refused("has no canonical form");
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            return refused("is too long");
        }
        let canonical = FlagsmithDocument::of(&text);
        match check(text) {
            Ok(patterns_left_out) => Self {
                patterns_left_out,
                ..Self::new(Some(document), canonical)
            },
            Err(problem) => Self {
                unfit: canonical.ok(),
                ..Self::refused(Some(document), problem)
            },
        }
    }

    fn refused(document: Option<&Map<String, Value>>, problem: DocumentProblem) -> Self {
        Self::new(document, Err(problem))
    }

    fn new(
        document: Option<&Map<String, Value>>,
        fits: Result<FlagsmithDocument, DocumentProblem>,
    ) -> Self {
        let text_of = |name: &str| document?.get(name)?.as_str();
        let name = text_of("name").unwrap_or_default().chars().take(SHOWN);
        Self {
            fits,
            unfit: None,
            patterns_left_out: 0,
            updated_at: text_of("updated_at").map(str::to_owned),
            name: name.flat_map(char::escape_debug).collect(),
            api_key: text_of("api_key").map(|key| Sha256Hash::of(key.as_bytes())),
        }
    }
}

impl FlagsmithDocument {
    fn of(text: &[u8]) -> Result<Self, DocumentProblem> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let written = encoder.write_all(text).and_then(|()| encoder.finish());
        let gzip = written.map_err(|_| DocumentProblem::new("", "cannot be compressed"))?;
        Ok(Self {
            version: ETag::of_text(text),
            gzip: gzip.into(),
        })
    }
}

/// Whether a text begins as JSON does and is nested deeper than the parser goes.
fn is_too_deep(text: &[u8]) -> bool {
    /// What `serde_json` takes.
    const MAX_DEPTH: usize = 127;
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => (),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => (),
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// Whether filters take a document, in its canonical form: compiles it as they do. Says how many patterns match nothing.
///
/// # Errors
/// When they do not, with the first place that is wrong.
fn check(text: Vec<u8>) -> Result<usize, DocumentProblem> {
    let length = text.len();
    let mut compiler = Compiler::new(Rc::new(text));
    loop {
        match compiler.step(length.max(1)) {
            Progress::More => {}
            Progress::Done(environment) => return Ok(environment.patterns_left_out()),
            Progress::Unfit(unfit) => {
                return Err(DocumentProblem::new(unfit.path(), unfit.problem()));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
