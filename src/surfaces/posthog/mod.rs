//! PostHog's `/flags/definitions`.
//!
//! | room | job |
//! |---|---|
//! | [`surface`] | the contract, as a worker drives it: what one worker knows, and the rules that need a second look |
//! | [`request`] | what a request asks: route, token, credential, validators |
//! | [`pipeline`] | the order of checks; the only place that knows it |
//! | [`answers`] | every answer that is given, as one table |
//! | [`directory`] | who may read what: kinds of records, access rules |
//! | [`document`] | the source document: what a person writes |
//! | [`definitions`] | the payload: encodings, the (ETag, payload) pair, the quota latch, the object store |
//! | [`read_through`] | PostHog's own cache of teams and checked credentials |
//! | [`quota`] | whose quota is used up |
//! | [`billing`] | what is billed, and the names of its counts |
//! | [`rebuild`] | asks for a rebuild of a payload that is missing |
//! | [`reads`] | what is read from Redis and the object store, and what that teaches |
//! | [`counts`] | what is counted |
//! | [`settings`] | what a plugin configuration says of all of these |

pub mod answers;
pub mod billing;
pub mod counts;
pub mod definitions;
pub mod directory;
pub mod document;
pub mod pipeline;
pub mod quota;
pub mod read_through;
pub mod reads;
pub mod rebuild;
pub mod request;
pub mod settings;
pub mod surface;

pub use counts::PostHogCount;
pub use surface::PostHog;
