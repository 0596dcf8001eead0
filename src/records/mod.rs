//! Records, and as of when they are true. No product is known here.

mod reader;
mod stream_id;

pub use reader::CorruptRecord;
pub(crate) use reader::Reader;
pub use stream_id::StreamId;
