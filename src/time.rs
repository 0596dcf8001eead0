//! Two clocks that are never mixed: [`Monotonic`] for ages, leases and deadlines, [`UnixMillis`] for what other
//! programs read.
//!
//! Wall-clock time steps, and a step must never make a snapshot look fresh: there is no way from one to the other.

use std::time::Duration;

/// Milliseconds of the host's monotonic clock. All VMs of one Envoy process read the same clock, so
/// instants may be compared across workers, but never across processes or restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(u64);

impl Monotonic {
    /// An instant, from milliseconds since the clock's own start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// An instant, from nanoseconds since the clock's own start; the rest of a millisecond is dropped.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos / 1_000_000)
    }

    /// Milliseconds since the clock's own start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flag_definitions_filter::time::Monotonic;
    /// let (early, late) = (Monotonic::from_millis(1_000), Monotonic::from_millis(1_250));
    /// assert_eq!(late.since(early), Duration::from_millis(250));
    /// assert_eq!(early.since(late), Duration::ZERO);
    /// ```
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The instant `later` from now; saturates.
    pub fn plus(self, later: Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Milliseconds since 1970-01-01 UTC by the host's wall clock: names a moment for other programs (usage
/// buckets, scores in Redis). It may step back, so no age or deadline is made of it.
///
/// ```
/// use flag_definitions_filter::time::UnixMillis;
/// let moment = UnixMillis::from_nanos(1_700_000_000_123_999_999);
/// assert_eq!(moment.as_millis(), 1_700_000_000_123);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// A moment, from milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A moment, from nanoseconds since 1970; the rest of a millisecond is dropped.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos / 1_000_000)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `later` from this one; saturates.
    pub fn plus(self, later: Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn an_instant_ahead_has_no_age() {
        let (early, late) = (Monotonic::from_millis(5), Monotonic::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::MAX), Monotonic::from_millis(u64::MAX));
    }

    #[test]
    fn a_wall_clock_moment_is_whole_milliseconds() {
        let moment = UnixMillis::from_nanos(1_700_000_000_123_999_999);
        assert_eq!(moment, UnixMillis::from_millis(1_700_000_000_123));
        assert_eq!(moment.as_millis(), 1_700_000_000_123);
    }
}
