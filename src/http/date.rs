//! Dates of requests and of documents, as whole seconds since 1970.

/// Days before each month of a year that is no leap year.
const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// An HTTP date in its preferred form (RFC 9110 §5.6.7). The two obsolete forms are none: nobody has sent them for long.
///
/// ```
/// use flag_definitions_filter::http::imf_fixdate;
/// assert_eq!(imf_fixdate(b"Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
/// assert_eq!(imf_fixdate(b"Sunday, 06-Nov-94 08:49:37 GMT"), None);
/// ```
pub fn imf_fixdate(field: &[u8]) -> Option<u64> {
    let [
        _,
        _,
        _,
        b',',
        b' ',
        d1,
        d2,
        b' ',
        m1,
        m2,
        m3,
        b' ',
        y1,
        y2,
        y3,
        y4,
        b' ',
        time @ ..,
        b' ',
        b'G',
        b'M',
        b'T',
    ] = field
    else {
        return None;
    };
    let month = MONTHS.iter().position(|month| **month == [*m1, *m2, *m3])?;
    let date = (number(&[*y1, *y2, *y3, *y4])?, month, number(&[*d1, *d2])?);
    Some(days_of(date)? * 86_400 + second_of(time)?)
}

/// The first whole second at or after a moment (RFC 3339, with any offset): who holds what was then, holds it as of that
/// second.
///
/// ```
/// use flag_definitions_filter::http::rfc3339_rounded_up;
/// assert_eq!(rfc3339_rounded_up(b"1994-11-06T08:49:36.5Z"), Some(784_111_777));
/// assert_eq!(rfc3339_rounded_up(b"1994-11-06T09:49:37+01:00"), Some(784_111_777));
/// assert_eq!(rfc3339_rounded_up(b"yesterday"), None);
/// ```
pub fn rfc3339_rounded_up(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else {
        return None;
    };
    let month = usize::try_from(number(&[*m1, *m2])?.checked_sub(1)?).ok()?;
    let days = days_of((number(&[*y1, *y2, *y3, *y4])?, month, number(&[*d1, *d2])?))?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else {
        return None;
    };
    let (time, rest) = rest.split_at_checked(8)?;
    let seconds = days * 86_400 + second_of(time)?;
    let (fraction, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, offset) = rest.split_at_checked(digits)?;
            if fraction.is_empty() {
                return None;
            }
            (fraction, offset)
        }
        offset => (&[][..], offset),
    };
    let is_between = fraction.iter().any(|digit| *digit != b'0');
    let seconds = seconds + u64::from(is_between);
    match offset {
        [b'Z' | b'z'] => Some(seconds),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let offset = hours * 3_600 + minutes * 60;
            if hours > 23 || minutes > 59 {
                return None;
            }
            match sign {
                b'+' => seconds.checked_sub(offset),
                _ => seconds.checked_add(offset),
            }
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for digit in digits {
        value = value * 10 + u64::from(char::from(*digit).to_digit(10)?);
    }
    Some(value)
}

/// `HH:MM:SS`, as a second of its day. A leap second counts as the one before it.
fn second_of(time: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else {
        return None;
    };
    let (hour, minute) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let second = number(&[*s1, *s2])?;
    let fits = hour < 24 && minute < 60 && second <= 60;
    fits.then(|| hour * 3_600 + minute * 60 + second.min(59))
}

/// Days since 1970 of a year, a month from 0 on, and a day from 1 on.
fn days_of((year, month, day): (u64, usize, u64)) -> Option<u64> {
    let is_leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let before = *BEFORE_MONTH.get(month)?;
    let length = BEFORE_MONTH.get(month + 1).map_or(31, |next| next - before)
        + u64::from(month == 1 && is_leap(year));
    if year < 1970 || day == 0 || day > length {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(years + before + u64::from(month > 1 && is_leap(year)) + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;
    use proptest::prelude::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_no_date_is_none() {
        for field in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Mon, 4 May 2026 03:02:01 +0000",
        ] {
            assert_eq!(imf_fixdate(field.as_bytes()), None, "{field}");
        }
        for text in [
            "1994-11-06",
            "1994-11-06T08:49:37",
            "1994-13-06T08:49:37Z",
            "1994-00-06T08:49:37Z",
            "1994-02-29T08:49:37Z",
            "1994-11-06T08:49:37.Z",
            "1994-11-06T08:49:37+1:00",
            "1994-11-06T08:49:37+24:00",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert_eq!(rfc3339_rounded_up(text.as_bytes()), None, "{text}");
        }
        let leap = rfc3339_rounded_up(b"2024-02-29T23:59:60Z");
        assert_eq!(leap, Some(1_709_251_199));
    }

    proptest! {
        #[test]
        fn a_moment_that_is_written_is_read_again(millis in 0u64..250_000_000_000_000) {
            let text = UnixMillis::from_millis(millis).rfc3339();
            prop_assert_eq!(rfc3339_rounded_up(text.as_bytes()), Some(millis.div_ceil(1_000)));
        }

        #[test]
        fn any_bytes_are_a_date_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (imf_fixdate(&bytes), rfc3339_rounded_up(&bytes));
        }

        #[test]
        fn digits_in_any_places_do_no_harm(text in "[0-9TZ:.+ -]{0,40}") {
            let _ = rfc3339_rounded_up(text.as_bytes());
            let _ = imf_fixdate(format!("Sun, {text} GMT").as_bytes());
        }
    }
}
