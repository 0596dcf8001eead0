//! The environments of a Flagsmith, followed as they change.
//!
//! | room | job |
//! |---|---|
//! | [`config`] | the configuration file of Flagsmith's Edge Proxy |
//! | [`options`] | the options on the command line |
//! | [`upstream`] | requests to Flagsmith |
//! | [`document`] | a document, checked and in canonical form |
//! | [`list`] | Flagsmith's list of environments and keys |
//! | [`keys`] | who may read which environment now |
//! | [`tenants`] | which number each environment has |
//! | [`environments`] | what is polled when, and what came of it |
//! | [`follower`] | the threads |
//! | [`usage`] | what is reported of requests served |
//!
//! [`pace`] says when a poll is due, [`fields`] takes JSON apart, [`moments`] reads dates, [`secret`] keeps keys out of logs.
//!
//! Whatever Flagsmith does, what was read last stays: a failed poll changes no record but the state of its environment.

pub mod config;
pub mod document;
pub mod environments;
mod fields;
pub mod follower;
pub mod keys;
pub mod list;
pub mod moments;
pub mod options;
mod pace;
pub mod secret;
pub mod tenants;
pub mod upstream;
pub mod usage;
