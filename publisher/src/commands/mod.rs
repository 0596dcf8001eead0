//! What the program does, one room a command.
//!
//! | room | job |
//! |---|---|
//! | [`publish`] | the order in which a document becomes the snapshot |
//! | [`diff`], [`comparison`] | what a publish or a full read would change |
//! | [`inspect`] | what a filter would decide, and why |
//! | [`watch`] | keeps the snapshot up to date with its sources |
//! | [`hash`] | a token's SHA-256, as source documents want it |
//! | [`describe`] | records in words |
//! | `document` | the source document that a command is given |
//! | `input` | tokens on standard input |

pub mod comparison;
pub mod describe;
pub mod diff;
mod document;
pub mod hash;
mod input;
pub mod inspect;
pub mod publish;
pub mod watch;

/// Exit code when what was compared differs, or what was asked for is not found or refused.
pub const DIFFERENT: u8 = 3;

/// What a command came to.
#[derive(Debug, Default)]
pub struct Done {
    /// For standard output; empty: nothing.
    pub text: String,
    /// The program's exit code.
    pub code: u8,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}
