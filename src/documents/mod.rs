//! Documents: what each tenant's flags are, in one version. They are read, confirmed, kept, compressed and proven here,
//! whatever surface serves them.
//!
//! [`current`] says when a version is known to be current, so that a 304 is right, for all surfaces. [`confirmed`] remembers
//! for a short time which version a callout brought, [`kept`] keeps the documents that were read last, [`gzip`] makes their
//! texts shorter, [`proof`] tells an ETag from that of another text, and [`outflow`] bounds how fast large bodies leave.

use std::rc::Rc;
use std::time::Duration;

use crate::http::ETag;

pub mod confirmed;
pub mod current;
pub mod gzip;
pub mod kept;
pub mod outflow;
pub mod proof;

pub use confirmed::{Confirmations, Confirmed};
pub use kept::Kept;
pub use outflow::Outflow;

/// One version of what a tenant's flags are.
pub trait Document {
    /// Its entity tag. Another version has another one.
    fn etag(&self) -> &ETag;

    /// Whether the tag was stored beside the text, and may be that of another; otherwise it was computed from the text.
    fn etag_is_stored(&self) -> bool;

    /// The text that clients get.
    fn text(&self) -> &Rc<Vec<u8>>;

    /// Bytes that keeping it takes, beyond a fixed overhead.
    fn weight(&self) -> usize {
        self.text().len()
    }
}

/// What a worker keeps of a surface's documents, for the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The surface, as labels name it.
    pub surface: &'static str,
    /// How many are kept.
    pub kept: usize,
    /// How long ago the source of each of them had been read. `None`: that is not known yet.
    pub age: Option<Duration>,
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A document that is nothing but its text.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Plain {
        pub etag: ETag,
        pub etag_stored: bool,
        pub text: Rc<Vec<u8>>,
    }

    impl Document for Plain {
        fn etag(&self) -> &ETag {
            &self.etag
        }

        fn etag_is_stored(&self) -> bool {
            self.etag_stored
        }

        fn text(&self) -> &Rc<Vec<u8>> {
            &self.text
        }
    }
}
