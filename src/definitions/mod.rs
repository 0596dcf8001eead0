//! The payload: a team's flag definitions as PostHog's own cache keeps them.
//!
//! [`etag`] compares validators, [`pair`] reads ETag and payload as one atomic pair, [`confirmed`]
//! remembers for a short time which ETag is current.

pub mod confirmed;
pub mod etag;
pub mod pair;

pub use etag::{ETag, IfNoneMatch};
pub use pair::{Need, Outcome};
