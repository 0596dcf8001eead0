//! The manifest: which pages make up the snapshot, and as of when it is true.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::counts::KindCounts;
use super::page::Page;
use crate::hash::Sha256Hash;
use crate::records::StreamId;

/// Version of manifest, pages and records. A filter refuses every other one and keeps what it has.
pub const FORMAT: u32 = 1;

/// Most pages of a snapshot: 8 GiB, far beyond what shared data should hold.
const MAX_PAGES: usize = 65_536;

/// The value of `<prefix>snapshot`: JSON, written after all of its pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Number of the snapshot, higher with each one.
    pub generation: u64,
    /// As of when it is true: every record that it lacks did not exist then.
    pub stream_id: StreamId,
    /// Its pages, in order.
    pub pages: Vec<PageDigest>,
    /// Whether a publisher watches the ETags of others and writes watermarks. Without them such an ETag is confirmed by
    /// callout.
    pub etags_watched: bool,
    /// Which unbroken chain of changes it belongs to: whoever holds a snapshot of this lineage and applied all
    /// changes up to [`Manifest::stream_id`] has the same records. 0: no changes follow it.
    #[serde(default)]
    pub lineage: u64,
    /// What it holds, for `/health`.
    pub records: KindCounts,
    /// The surfaces that have a source, and lists of theirs that have one, by name. Empty, as of publishers that do not tell:
    /// each surface knows what that means for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub surfaces: Vec<String>,
}

/// What the manifest says of one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageDigest {
    /// SHA-256 of the page, in base64.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: usize,
}

/// A manifest that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// It is not JSON of this shape.
    Malformed(String),
    /// It has another format than this release reads.
    Format(u32),
    /// It names no page, or more than a snapshot may have.
    Pages(usize),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(problem) => write!(f, "manifest: {problem}"),
            Self::Format(found) => write!(
                f,
                "manifest: format {found}, this release reads {FORMAT}: use a publisher of the same release"
            ),
            Self::Pages(count) => write!(f, "manifest: {count} pages, use 1 to {MAX_PAGES}"),
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Reads the value of the manifest's key.
    ///
    /// # Errors
    /// When it is not a manifest of this format.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(ManifestError::Format(manifest.format));
        }
        if manifest.pages.is_empty() || manifest.pages.len() > MAX_PAGES {
            return Err(ManifestError::Pages(manifest.pages.len()));
        }
        Ok(manifest)
    }
}

impl PageDigest {
    /// Describes a page.
    pub fn of(page: &Page) -> Self {
        Self {
            sha256: digest(&page.bytes),
            bytes: page.bytes.len(),
        }
    }

    /// Whether these bytes are that page.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.bytes && digest(bytes) == self.sha256
    }
}

fn digest(bytes: &[u8]) -> String {
    STANDARD.encode(Sha256Hash::of(bytes).as_bytes())
}

/// The manifest's key.
pub fn key(prefix: &str) -> String {
    format!("{prefix}snapshot")
}

/// The key of the stream of changes.
pub fn changes_key(prefix: &str) -> String {
    format!("{prefix}changes")
}

/// A page's key.
pub fn page_key(prefix: &str, generation: u64, page: usize) -> String {
    format!("{prefix}snapshot:{generation}:{page}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::page;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            generation: 3,
            stream_id: StreamId {
                millis: 1_700_000_000_000,
                sequence: 0,
            },
            pages: page::split([]).iter().map(PageDigest::of).collect(),
            etags_watched: false,
            lineage: 0,
            records: KindCounts::default(),
            surfaces: Vec::new(),
        }
    }

    #[test]
    fn it_survives_its_encoding() {
        let json = serde_json::to_vec(&manifest()).unwrap();
        assert_eq!(Manifest::parse(&json), Ok(manifest()));
    }

    #[test]
    fn which_surfaces_have_a_source_is_told_or_left_out() {
        let mut manifest = manifest();
        let silent = serde_json::to_string(&manifest).unwrap();
        assert!(!silent.contains("surfaces"), "as before there were several");
        manifest.surfaces = vec!["one".to_owned(), "other".to_owned()];
        let json = serde_json::to_string(&manifest).unwrap();
        assert!(json.ends_with(r#","surfaces":["one","other"]}"#), "{json}");
        assert_eq!(Manifest::parse(json.as_bytes()), Ok(manifest));
    }

    #[test]
    fn another_format_is_refused() {
        let mut other = manifest();
        other.format = 2;
        let json = serde_json::to_vec(&other).unwrap();
        assert_eq!(Manifest::parse(&json), Err(ManifestError::Format(2)));
        other.format = FORMAT;
        other.pages.clear();
        let json = serde_json::to_vec(&other).unwrap();
        assert_eq!(Manifest::parse(&json), Err(ManifestError::Pages(0)));
        assert!(matches!(
            Manifest::parse(b"\xff"),
            Err(ManifestError::Malformed(_))
        ));
    }

    #[test]
    fn a_page_is_known_by_its_digest() {
        let page = page::split([]).remove(0);
        let digest = PageDigest::of(&page);
        assert!(digest.matches(&page.bytes));
        assert!(!digest.matches(b"FDP2"));
        assert!(!digest.matches(b""));
    }
}
