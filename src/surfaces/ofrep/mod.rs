//! OFREP as flagd speaks it: flags evaluated here, for any OpenFeature client.
//!
//! | room | job |
//! |---|---|
//! | [`request`], [`answers`] | what is asked; every answer, as one table |
//! | [`records`] | selections, keys and versions, as the publisher puts them into the snapshot |
//! | [`flagd`] | flags as flagd defines and evaluates them |
//! | [`settings`] | the section of the plugin configuration |

pub mod answers;
pub mod flagd;
pub mod records;
pub mod request;
pub mod settings;
