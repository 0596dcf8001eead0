//! The contract of a source that brings documents: who may read which, and their texts.
//!
//! Such a source looks at its upstream by itself and tells what it saw, in any order. The writer keeps what was told last, so that
//! whoever takes the lock later publishes all of it, and puts a document into Redis before the record of its version. Until a
//! source has told its first records, what is published of its surface stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::tenant::Tenant;

use super::WriterGone;
use super::polls::Polls;
use super::usage::{TellUsage, UsageReports};

/// A source of documents.
pub trait DocumentSource: Send {
    /// Which surface its records are of, as the manifest names it: one of [`super::kinds`] whose documents are the publisher's. One
    /// source of a surface at most.
    fn surface(&self) -> &'static str;

    /// What it wants to be given of the requests that were served, if it reports them. Asked once, before it is started; `tell`
    /// takes what it has to say of its reports.
    fn reports(&mut self, tell: TellUsage) -> Option<UsageReports> {
        drop(tell);
        None
    }

    /// What it wants to be kept of its upstreams, for a publisher that starts while one of them is away.
    fn keeps(&mut self) -> Option<KeptTexts> {
        None
    }

    /// What comes of its polls.
    fn polls(&self) -> Option<Arc<Polls>> {
        None
    }

    /// Starts the threads that look at the upstream. They end soon after `stop` is set, or when nobody listens any more.
    fn start(self: Box<Self>, tell: TellDocuments, stop: &Arc<AtomicBool>);
}

/// Takes what a [`DocumentSource`] has to say, from any of its threads.
pub type TellDocuments = Arc<dyn Fn(DocumentNews) -> Result<(), WriterGone> + Send + Sync>;

/// What a [`DocumentSource`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentNews {
    /// All of its records but those of versions, encoded, as they are from now on: what is not among them goes out at once.
    /// Whether so many may go is the source's to doubt. Records of other kinds than the surface's own are left out. A tenant that
    /// none of them names any more, and whose document was not told, is gone as well: nobody else removes what an earlier
    /// publisher left of it.
    Records(BTreeMap<Sha256Hash, Box<[u8]>>),
    /// The same of a source that does not know all of its own yet. They are published where nothing of the surface is: what an
    /// earlier publisher left stays until the source has told records for good.
    FirstRecords(BTreeMap<Sha256Hash, Box<[u8]>>),
    /// A document that was read.
    Document(SourcedDocument),
    /// A tenant that is no more: its document and version go, once no record names it.
    Gone(Tenant),
    /// A text of an upstream that was taken, as [`DocumentSource::keeps`] wants it to be kept.
    Kept {
        /// What it is found by.
        name: Sha256Hash,
        /// In gzip form; `None`: it is the one that was told last.
        gzip: Option<Arc<[u8]>>,
        /// When it was read: Unix milliseconds.
        at: u64,
    },
}

/// Takes a text in gzip form, by what it is found by, and when it was read in Unix milliseconds.
pub type RecallText = Box<dyn Fn(Sha256Hash, Arc<[u8]>, u64) + Send>;

/// Texts of upstreams that Redis keeps for a source, in a hash of the publisher's own.
pub struct KeptTexts {
    /// The key of the hash, behind the prefix.
    pub key: &'static str,
    /// What the texts are found by. No others stay.
    pub names: Vec<Sha256Hash>,
    /// Takes a text in gzip form that another publisher kept, and when that one read it in Unix milliseconds, where this one has
    /// told none since. What was told before is forgotten: all is told anew.
    pub recall: RecallText,
}

impl std::fmt::Debug for KeptTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptTexts")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A document that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct SourcedDocument {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its version: the entity tag of the text.
    pub version: ETag,
    /// The text in gzip form (RFC 1952).
    pub gzip: Arc<[u8]>,
    /// Whether filters can use it. One that does not fit is published only where none was before: its text can be handed
    /// out as it is.
    pub fits: bool,
}

impl std::fmt::Debug for SourcedDocument {
    /// Without the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourcedDocument")
            .field("tenant", &self.tenant)
            .field("version", &self.version)
            .field("bytes", &self.gzip.len())
            .field("fits", &self.fits)
            .finish()
    }
}
