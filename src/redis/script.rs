//! Lua scripts, in the form in which they are sent.

use std::fmt;
use std::sync::OnceLock;

use super::{tag, webdis};

/// A Lua script. It is put into webdis' words once, not for each command: it is nearly all of what is sent.
///
/// It must return an array of strings: webdis leaves nil and nested elements out.
pub struct Script {
    text: &'static str,
    for_webdis: OnceLock<Vec<u8>>,
}

impl Script {
    /// A script of this text.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            for_webdis: OnceLock::new(),
        }
    }

    /// What it does, as it was written.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// The same, returning its tag as well ([`super::Tag`]).
    pub(super) fn tagged(&self) -> String {
        [tag::BEFORE, self.text, tag::AFTER].concat()
    }

    /// [`Script::tagged`], percent-encoded.
    pub(super) fn for_webdis(&self) -> &[u8] {
        self.for_webdis
            .get_or_init(|| webdis::percent_encoded(self.tagged().as_bytes()))
    }
}

impl PartialEq for Script {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Script {}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.text).finish()
    }
}
