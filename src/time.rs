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

impl UnixMillis {
    /// The moment in UTC, with its milliseconds written as nanoseconds (RFC 3339).
    ///
    /// ```
    /// use flag_definitions_filter::time::UnixMillis;
    /// let moment = UnixMillis::from_millis(1_782_873_006_676);
    /// assert_eq!(moment.rfc3339(), "2026-07-01T02:30:06.676000000Z");
    /// ```
    pub fn rfc3339(self) -> String {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}000000Z"
        )
    }
}

/// Year, month and day of a day since 1970-01-01, by the Gregorian calendar. Years begin in March here, so that a leap day
/// is the last of its year.
const fn date_of(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01, of which 146 097 are 400 years.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day) = (month, day - (153 * month + 2) / 5 + 1);
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
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
    fn days_have_the_dates_of_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (20_787, (2026, 11, 30)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date_of(days), date, "{days}");
        }
        // Each day is followed by the next one.
        for days in 0..200_000 {
            let (before, after) = (date_of(days), date_of(days + 1));
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            assert!([next_day, next_month, (before.0 + 1, 1, 1)].contains(&after));
        }
        // Nothing overflows.
        UnixMillis::from_millis(u64::MAX).rfc3339();
    }

    #[test]
    fn a_wall_clock_moment_is_whole_milliseconds() {
        let moment = UnixMillis::from_nanos(1_700_000_000_123_999_999);
        assert_eq!(moment, UnixMillis::from_millis(1_700_000_000_123));
        assert_eq!(moment.as_millis(), 1_700_000_000_123);
    }
}
