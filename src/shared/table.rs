//! A fixed number of numbered entries.

use super::{Scope, numbered};

/// The names of a table's entries in shared data. However much is stored, there are never more of them.
///
/// ```
/// use flag_definitions_filter::shared::{Scope, Table};
///
/// let scope = Scope::new("", &[]);
/// let table = Table::new(&scope, "r:", 4_096);
/// assert_eq!(table.entry(7), scope.name("r:7"));
/// assert_eq!(table.of(4_103), table.entry(7));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    prefix: String,
    count: u32,
}

impl Table {
    /// `count` entries whose names begin with `name`, which nothing else in the scope may begin with. 0 counts as 1.
    pub fn new(scope: &Scope, name: &str, count: u32) -> Self {
        Self {
            prefix: scope.name(name),
            count,
        }
    }

    /// How many entries there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The name of one entry; `index` is below the count.
    pub fn entry(&self, index: u32) -> String {
        numbered(&[&self.prefix], index)
    }

    /// The entry for a number that is handed out in sequence, such as a tenant's: the remainder spreads them evenly.
    pub fn of(&self, number: u32) -> String {
        self.entry(number.checked_rem(self.count).unwrap_or(0))
    }
}
