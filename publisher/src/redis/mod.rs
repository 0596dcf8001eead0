//! The Redis that holds the snapshot.
//!
//! | room | job |
//! |---|---|
//! | [`options`] | what commands are told of it |
//! | [`server`] | the URL, the connection, and what Redis says when it refuses |
//! | [`store`] | the commands that are sent |
//! | [`documents`] | documents beside the snapshot |
//! | [`usage`] | counts that filters left, and the batch of them that is being reported |
//! | [`lock`] | one publisher at a time |
//! | [`published`] | what is there: manifest, pages, and the changes after them |
//! | [`error`] | what can go wrong between this program and Redis |

pub mod documents;
pub mod error;
pub mod lock;
pub mod options;
pub mod published;
pub mod server;
pub mod store;
pub mod usage;
