//! Work that takes longer than a callback may, done in slices: requests come in between.

use std::time::Duration;

use crate::shared::Ambient;

/// No further slice is begun in a callback when those before it took so long. One takes about a millisecond, but a text of 1 MB,
/// which is read and hashed as a whole, two.
const SLICES_TAKE: Duration = Duration::from_millis(2);

/// Most slices of one callback.
const SLICES_PER_TICK: usize = 8;

/// The slices of one callback.
pub struct Slices<'a> {
    ambient: &'a dyn Ambient,
    began: Option<Duration>,
    left: usize,
}

impl<'a> Slices<'a> {
    /// None is done yet.
    pub fn new(ambient: &'a dyn Ambient) -> Self {
        Self {
            began: ambient.clock(),
            ambient,
            left: SLICES_PER_TICK,
        }
    }

    /// After a slice: whether there is time for another one. Without a clock one is all that is known to be short.
    pub fn goes_on(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        let passed = self.ambient.clock().zip(self.began);
        self.left > 0 && passed.is_some_and(|(now, began)| now.saturating_sub(began) < SLICES_TAKE)
    }
}
