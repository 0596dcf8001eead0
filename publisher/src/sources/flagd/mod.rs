//! flagd's definitions, followed as they change.
//!
//! | room | job |
//! |---|---|
//! | [`uri`] | where the definitions of a source are |
//! | [`text`] | JSON, and YAML as JSON |

pub mod text;
pub mod uri;
