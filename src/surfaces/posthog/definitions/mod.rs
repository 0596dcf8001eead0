//! The payload: a team's flag definitions as PostHog's own cache keeps them.
//!
//! [`pair`] reads ETag and payload as one atomic pair, [`encoding`] makes text of what is stored, [`flags`] says whether that
//! is a payload and counts as usage, by the grammar in [`syntax`], [`checked`] remembers which
//! texts were found to be one, [`latch`] gives the ETag another suffix after a quota period, [`object`] asks the object store.

pub mod checked;
pub mod encoding;
pub mod flags;
pub mod latch;
pub mod object;
pub mod outcome;
pub mod pair;
pub mod settings;
pub mod syntax;

pub use object::Object;
pub use outcome::{Absent, Outcome, Payload, Pending};
pub use pair::Need;
