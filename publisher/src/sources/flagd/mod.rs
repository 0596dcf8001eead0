//! flagd's definitions, followed as they change.
//!
//! | room | job |
//! |---|---|
//! | [`uri`] | where the definitions of a source are |
//! | [`http`] | definitions that are read from a URL |
//! | [`text`] | JSON, and YAML as JSON |
//! | [`problem`] | why definitions are not taken |
//! | [`selections`] | what all sources say together, and what is told of it |
//! | [`follower`] | the threads |
//! | [`options`] | the options on the command line |
//!
//! Whatever becomes of a source, the definitions that it gave last stay.

pub mod follower;
pub mod http;
pub mod options;
pub mod problem;
pub mod selections;
pub mod text;
pub mod uri;
