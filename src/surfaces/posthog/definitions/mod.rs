//! The payload: a team's flag definitions as PostHog's own cache keeps them.
//!
//! [`pair`] reads ETag and payload as one atomic pair, [`encoding`] makes text of
//! what is stored, [`flags`] says whether that is a payload and counts as usage, by the grammar in [`syntax`],
//! [`confirmed`] remembers for a short time which ETag is current, [`bodies`] keeps what was read, [`gzip`] makes it
//! shorter, [`proof`] tells an ETag from that of another text, [`outflow`] bounds how fast large bodies leave.

pub mod bodies;
pub mod confirmed;
pub mod encoding;
pub mod flags;
pub mod gzip;
pub mod latch;
pub mod object;
pub mod outcome;
pub mod outflow;
pub mod pair;
pub mod proof;
pub mod settings;
pub mod syntax;

pub use bodies::Bodies;
pub use object::Object;
pub use outcome::{Absent, Full, Outcome, Pending};
pub use outflow::Outflow;
pub use pair::Need;
