//! Flagsmith's Edge Proxy API: flags, identities, and the environment document.
//!
//! | room | job |
//! |---|---|
//! | [`records`] | keys, versions and states, as the publisher puts them into the snapshot; where documents are in Redis |

pub mod records;
