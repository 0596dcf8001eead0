//! Traps on purpose, in test builds only (feature `fault-injection`): they prove what a bug in the filter
//! would do to the requests around it. In every other build these functions are empty.

use crate::hash::Sha256Hash;

/// The token whose record makes a test build trap while it loads.
pub const RECORD: &str = "trap_on_load";

/// The header whose presence makes a test build trap.
pub const HEADER: &str = "x-flag-definitions-trap";

/// Traps on the record of [`RECORD`].
pub fn on_record(hash: &Sha256Hash) {
    if cfg!(feature = "fault-injection") && *hash == Sha256Hash::of(RECORD.as_bytes()) {
        std::process::abort();
    }
}

/// Traps on a header named [`HEADER`].
pub fn on_header(name: &[u8]) {
    if cfg!(feature = "fault-injection") && name == HEADER.as_bytes() {
        std::process::abort();
    }
}
