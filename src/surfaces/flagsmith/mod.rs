//! Flagsmith's Edge API: flags of an environment, and of an identity in it.
//!
//! | room | job |
//! |---|---|
//! | [`engine`] | one environment document, compiled, and what a client or an identity gets of it |

pub mod engine;
