//! OFREP as flagd speaks it: flags evaluated here, for any OpenFeature client.
//!
//! | room | job |
//! |---|---|
//! | [`surface`] | the surface as a worker drives it |
//! | [`pipeline`] | the order of checks; the only place that knows it |
//! | `steps` | what is decided of a request, as the worker takes it |
//! | [`request`], [`answers`] | what is asked; every answer, as one table |
//! | [`records`] | selections, keys and versions, as the publisher puts them into the snapshot |
//! | `admission`, [`keys`] | who is admitted; what a selector selects, and when one selects nothing |
//! | [`document`] | a selection's definitions; what becomes of them is shared ([`super::evaluated`]) |
//! | [`flagd`] | flags as flagd defines and evaluates them |
//! | [`long`] | what takes longer than a callback may: long bodies, all flags of long selections |
//! | [`added`] | what the plugin configuration adds to contexts |
//! | [`repeated`] | requests that were made before |
//! | [`health`] | how the definitions are |
//! | [`settings`], [`counts`] | the section of the plugin configuration; what is counted |

pub mod added;
mod admission;
pub mod answers;
pub mod counts;
pub mod document;
pub mod flagd;
pub mod health;
pub mod keys;
pub mod long;
mod pipeline;
pub mod records;
pub mod repeated;
pub mod request;
pub mod settings;
mod steps;
pub mod surface;

pub use counts::OfrepCount;
pub use surface::Ofrep;
