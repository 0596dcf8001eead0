//! The generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), pure.
//!
//! A state is its [`Debt`]: how far the theoretical arrival time lies ahead of the clock. Each cell adds one
//! increment (period / count), time takes debt away, and a cell is free while the debt stays within count
//! increments. Storing debt and the clock's reading apart, instead of their sum, is what makes a step of the
//! clock harmless: a step backwards adds no debt, a step forwards only forgives some.
//!
//! Debt counts in 1/65 536 ns, so that an increment of the fastest rate (2^32 a second) is still more than
//! 15 000 units: exact to 1 in 10 000 there, and to 1 in 10^8 at a million a second. A day fits into 63 bits.

use std::num::NonZeroU32;
use std::time::Duration;

use super::rate::Rate;
use crate::time::Monotonic;

/// Units of debt in a nanosecond.
const UNITS_PER_NANO: u64 = 1 << 16;
const UNITS_PER_MILLI: u64 = 1_000_000 * UNITS_PER_NANO;
const UNITS_PER_SECOND: u64 = 1_000 * UNITS_PER_MILLI;

/// By how much the clock readings of two workers may be out of order when they reach the state: each reads
/// the clock before it reads the state, and may be held up in between. More than that is a step.
const DISORDER: Duration = Duration::from_millis(100);

/// When one cell will be free: whole seconds, rounded up, at least 1 (RFC 9110 §10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryAfter(NonZeroU32);

impl RetryAfter {
    fn from_units(units: u64) -> Self {
        let seconds = u32::try_from(units.div_ceil(UNITS_PER_SECOND)).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN))
    }

    /// Seconds, 1 to 86 400.
    pub const fn seconds(self) -> u32 {
        self.0.get()
    }
}

/// What a budget owes to time. More than a period cannot be and counts as none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Debt(u64);

impl Debt {
    /// A full budget.
    pub const NONE: Self = Self(0);

    /// Debt as it was stored.
    pub const fn from_units(units: u64) -> Self {
        Self(units)
    }

    /// For storing.
    pub const fn as_units(self) -> u64 {
        self.0
    }

    /// What is left of it `elapsed` later.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        Self(self.0.saturating_sub(units(elapsed)))
    }

    /// Takes as many as are free of `wanted` cells (0 counts as 1): the new debt, and how many.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flag_definitions_filter::limits::gcra::Debt;
    /// let two_a_minute = "2/minute".parse().unwrap();
    /// let (debt, taken) = Debt::NONE.take(two_a_minute, 5).unwrap();
    /// assert_eq!(taken, 2, "as many as are free");
    /// let refused = debt.after(Duration::from_secs(10)).take(two_a_minute, 1);
    /// assert_eq!(refused.unwrap_err().seconds(), 20, "one is free every 30 s");
    /// assert!(debt.after(Duration::from_secs(30)).take(two_a_minute, 1).is_ok());
    /// ```
    ///
    /// # Errors
    /// When not one is free: nothing is owed for the attempt, and one will be free after [`RetryAfter`],
    /// which is never more than a period.
    pub fn take(self, rate: Rate, wanted: u32) -> Result<(Self, u32), RetryAfter> {
        let cell = increment(rate);
        // Not the period: what is lost in rounding the increment would cost a cell of the burst.
        let tolerance = cell.saturating_mul(u64::from(rate.count()));
        let debt = self.possible(rate).0;
        let free = tolerance.saturating_sub(debt) / cell;
        if free == 0 {
            let next = debt.saturating_add(cell).saturating_sub(tolerance);
            return Err(RetryAfter::from_units(next.min(units(rate.period()))));
        }
        let granted = wanted.max(1).min(u32::try_from(free).unwrap_or(u32::MAX));
        let owed = cell.saturating_mul(u64::from(granted));
        Ok((Self(debt.saturating_add(owed)), granted))
    }

    /// Gives back cells that were taken and not used.
    ///
    /// ```
    /// use flag_definitions_filter::limits::gcra::Debt;
    /// let rate = "600/minute".parse().unwrap();
    /// let (debt, _) = Debt::NONE.take(rate, 10).unwrap();
    /// let (of_seven, _) = Debt::NONE.take(rate, 7).unwrap();
    /// assert_eq!(debt.give_back(rate, 3), of_seven);
    /// ```
    #[must_use]
    pub fn give_back(self, rate: Rate, cells: u32) -> Self {
        let credit = increment(rate).saturating_mul(u64::from(cells));
        Self(self.possible(rate).0.saturating_sub(credit))
    }

    /// Debt of a longer period than the rate's is of another rate, or of no rate at all.
    fn possible(self, rate: Rate) -> Self {
        if self.0 > units(rate.period()) {
            Self::NONE
        } else {
            self
        }
    }
}

/// Brings a state's clock up to date: its new reading, and for how long debt was worked off since `at`.
///
/// A reading a little behind (a worker that was held up) leaves the state's clock where it is, or the time
/// between the two would be worked off twice. One far behind is a step backwards, and the state follows.
///
/// ```
/// use std::time::Duration;
/// use flag_definitions_filter::{limits::gcra::advance, time::Monotonic};
/// let at = Monotonic::from_millis;
/// assert_eq!(advance(at(5_000), at(5_250)), (at(5_250), Duration::from_millis(250)));
/// assert_eq!(advance(at(5_000), at(4_990)), (at(5_000), Duration::ZERO), "held up");
/// assert_eq!(advance(at(5_000), at(1_000)), (at(1_000), Duration::ZERO), "a step");
/// ```
pub fn advance(at: Monotonic, now: Monotonic) -> (Monotonic, Duration) {
    if now < at && at.since(now) <= DISORDER {
        return (at, Duration::ZERO);
    }
    (now, now.since(at))
}

/// Units of debt for one cell; at least 1.
fn increment(rate: Rate) -> u64 {
    let count = u64::from(rate.count()).max(1);
    (units(rate.period()) / count).max(1)
}

fn units(time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(UNITS_PER_MILLI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::Period;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PERIODS: [Period; 4] = [Period::Second, Period::Minute, Period::Hour, Period::Day];

    fn ms(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn the_burst_is_the_count_exactly_for_every_rate() {
        for period in PERIODS {
            for count in [1, 2, 3, 7, 600, 6_000, 999_999_937, 1_000_000_000, u32::MAX] {
                let rate = Rate::per(count, period);
                let (debt, granted) = Debt::NONE.take(rate, u32::MAX).unwrap();
                assert_eq!(granted, count, "{rate}");
                assert!(debt.take(rate, 1).is_err(), "{rate}");
                // One cell more after one increment, not earlier.
                let cell = increment(rate);
                assert!(Debt(debt.0 - cell).take(rate, 1).is_ok(), "{rate}");
                assert!(Debt(debt.0 - cell + 1).take(rate, 1).is_err(), "{rate}");
            }
        }
    }

    #[test]
    fn a_billion_a_second_refill_a_million_in_a_millisecond() {
        let rate = Rate::per(1_000_000_000, Period::Second);
        let (debt, _) = Debt::NONE.take(rate, u32::MAX).unwrap();
        let (_, granted) = debt
            .after(Duration::from_millis(1))
            .take(rate, u32::MAX)
            .unwrap();
        assert_eq!(granted, 1_000_000);
    }

    #[test]
    fn retry_after_is_rounded_up_and_at_least_a_second() {
        let spent = |text: &str| {
            let rate: Rate = text.parse().unwrap();
            let (debt, _) = Debt::NONE.take(rate, u32::MAX).unwrap();
            (debt, rate)
        };
        let seconds = |debt: Debt, rate| debt.take(rate, 1).unwrap_err().seconds();
        for (text, expected) in [
            ("600/minute", 1),
            ("1/second", 1),
            ("40/minute", 2),
            ("1/minute", 60),
            ("1/day", 86_400),
        ] {
            let (debt, rate) = spent(text);
            assert_eq!(seconds(debt, rate), expected, "{text}");
        }
        let (debt, rate) = spent("1/minute");
        assert_eq!(seconds(debt.after(Duration::from_millis(1_000)), rate), 59);
        assert_eq!(seconds(debt.after(Duration::from_millis(58_999)), rate), 2);
        assert_eq!(seconds(debt.after(Duration::from_millis(59_999)), rate), 1);
    }

    #[test]
    fn debt_that_cannot_be_refuses_nobody() {
        let rate = Rate::per(10, Period::Second);
        for units in [UNITS_PER_SECOND + 1, u64::MAX] {
            let (_, granted) = Debt(units).take(rate, 10).unwrap();
            assert_eq!(granted, 10);
        }
    }

    #[test]
    fn a_reading_a_little_behind_is_not_worked_off_twice_and_a_step_is_followed() {
        let second = Duration::from_secs(1);
        assert_eq!(advance(ms(1_000), ms(2_000)), (ms(2_000), second));
        assert_eq!(advance(ms(1_000), ms(900)), (ms(1_000), Duration::ZERO));
        assert_eq!(advance(ms(1_000), ms(899)), (ms(899), Duration::ZERO));
        assert_eq!(advance(ms(u64::MAX), ms(0)), (ms(0), Duration::ZERO));
    }

    proptest! {
        #[test]
        fn a_refusal_owes_nothing_lasts_a_period_at_most_and_ends_when_it_says(
            count in 1u32.., period in 0usize..4, units in any::<u64>(), wanted in any::<u32>()
        ) {
            let rate = Rate::per(count, PERIODS[period]);
            match Debt(units).take(rate, wanted) {
                Ok((debt, granted)) => {
                    prop_assert!(granted >= 1 && granted <= wanted.max(1) && granted <= count);
                    prop_assert!(debt.0 <= super::units(rate.period()));
                }
                Err(retry) => {
                    let wait = Duration::from_secs(u64::from(retry.seconds()));
                    prop_assert!(wait <= rate.period());
                    prop_assert!(Debt(units).after(wait).take(rate, 1).is_ok());
                }
            }
        }

        #[test]
        fn what_is_given_back_is_as_if_never_taken(
            count in 1u32.., period in 0usize..4, used in any::<u32>(), reserved in 1u32..64
        ) {
            let rate = Rate::per(count, PERIODS[period]);
            let (debt, _) = Debt::NONE.take(rate, used).unwrap();
            if let Ok((more, granted)) = debt.take(rate, reserved) {
                prop_assert_eq!(more.give_back(rate, granted), debt);
            }
        }
    }
}
