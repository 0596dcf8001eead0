//! flagd's definitions, followed as they change.
//!
//! | room | job |
//! |---|---|
//! | [`uri`] | where the definitions of a source are |
//! | [`http`] | definitions that are read from a URL |
//! | [`text`] | JSON, and YAML as JSON |

pub mod http;
pub mod text;
pub mod uri;
