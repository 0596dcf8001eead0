//! Names of entries in shared data.

use super::FORMAT;
use crate::hash::Sha256Hash;

/// What the names of one kind of entries begin with: [`FORMAT`] and a digest of the settings that decide what is in them.
/// So another listener, Redis or prefix in the same `vm_id` never reads or leases them. Each room puts the names of its
/// own entries behind it.
///
/// ```
/// use flag_definitions_filter::shared::Scope;
///
/// let scope = Scope::new("", &["redis", "flag_definitions:"]);
/// assert_eq!(scope.name("lease"), format!("{}lease", scope.as_str()));
/// assert_ne!(scope, Scope::new("", &["redis", "other:"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// A scope of the kind `kind`, which may be empty, for settings with these texts.
    pub fn new(kind: &str, settings: &[&str]) -> Self {
        let digest = Sha256Hash::of(settings.join("\n").as_bytes()).to_hex();
        let digest = digest.get(..12).unwrap_or(&digest);
        Self(format!("fd{FORMAT}{kind}:{digest}:"))
    }

    /// What all names begin with.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one entry, or what the names of a table's entries begin with.
    pub fn name(&self, entry: &str) -> String {
        [&self.0, entry].concat()
    }
}
