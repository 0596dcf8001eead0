//! Whose flags are asked for, as a number.

use std::fmt;

use serde::Deserialize;

/// A number that one surface gives to each owner of a document. Numbers of two surfaces have nothing to do with each
/// other: every surface keeps its own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Tenant(pub u32);

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
