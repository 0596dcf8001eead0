//! Flagsmith's Edge Proxy API: flags, identities, and the environment document, evaluated here.
//!
//! | room | job |
//! |---|---|
//! | [`surface`] | the surface as a worker drives it |
//! | [`pipeline`] | the order of checks; the only place that knows it |
//! | `steps` | what is decided of a request, as the worker takes it |
//! | [`request`], [`answers`] | what is asked; every answer, as one table |
//! | [`records`] | keys, versions and states, as the publisher puts them into the snapshot; where documents are in Redis |
//! | [`admission`] | who is admitted |
//! | [`keys`] | who a key is, and when an unknown one may be refused |
//! | [`document`] | an environment's document; what becomes of it is shared ([`super::evaluated`]) |
//! | [`question`] | what is asked of rules |
//! | [`engine`] | the rules |
//! | [`health`] | how its environments are |
//! | [`usage`] | which requests are reported to Flagsmith |
//! | [`settings`], [`counts`] | the section of the plugin configuration; what is counted |

mod admission;
pub mod answers;
pub mod counts;
pub mod document;
pub mod engine;
pub mod health;
pub mod keys;
mod pipeline;
pub mod question;
pub mod records;
pub mod request;
pub mod settings;
mod steps;
pub mod surface;
pub mod usage;

pub use counts::FlagsmithCount;
pub use surface::Flagsmith;
