//! Who may write: one publisher at a time, by a lock in Redis that the others wait for.
//!
//! The lock alone stops nobody who was paused while it expired. So every write is a script that begins with
//! `guard.lua`, which checks the holder's token in the same atomic step.

use std::fmt;
use std::time::Duration;

use super::error::SnapshotStoreError;

/// For how long the lock holds without being renewed.
pub const TTL: Duration = Duration::from_secs(5);

/// What tells the holder of the lock from all others. A new one for each run of the program.
#[derive(Clone, PartialEq, Eq)]
pub struct LockToken(String);

impl LockToken {
    /// 128 random bits.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, SnapshotStoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(SnapshotStoreError::Random)?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whoever knows the token can write.
impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockToken(…)")
    }
}

/// The answer to a wish for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours. Each taking has a higher fencing number.
    Fence(u64),
    /// Somebody else holds it.
    Held,
}

/// The lock's key.
pub fn key(prefix: &str) -> String {
    format!("{prefix}lock")
}

/// The key of the counter of fencing numbers.
pub fn fence_key(prefix: &str) -> String {
    format!("{prefix}fence")
}
