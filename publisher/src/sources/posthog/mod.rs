//! PostHog as a source.
//!
//! | room | job |
//! |---|---|
//! | [`options`] | what `watch` is told of it |
//! | [`database`] | teams and credentials, in PostHog's Postgres |
//! | [`etags`] | the ETags of all teams, in the Redis that holds PostHog's cache of flag definitions |

pub mod database;
pub mod etags;
pub mod options;

pub use options::PostHogOptions;
