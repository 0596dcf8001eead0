//! Moments as Flagsmith writes them, and as headers have them.

use std::time::{Duration, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Unix seconds of the first moment that a header cannot say: the year 10000.
const YEAR_10000: u64 = 253_402_300_800;

/// Unix milliseconds of a moment of RFC 3339; `None` when it is none, or before 1970. A moment without a zone is none.
pub fn unix_millis(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()
}

/// The date of a header (RFC 9110 §5.6.7, IMF-fixdate), whole seconds; `None` when it has none.
pub fn http_date(millis: u64) -> Option<String> {
    let seconds = Some(millis / 1_000).filter(|seconds| *seconds < YEAR_10000)?;
    let moment = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(httpdate::fmt_http_date(moment))
}

/// Unix milliseconds of a header's date; `None` when it is none, or before 1970.
pub fn of_http_date(text: &str) -> Option<u64> {
    let moment = httpdate::parse_http_date(text).ok()?;
    u64::try_from(moment.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_a_header_has_two_digits_of_the_day_and_gmt() {
        for (text, date) in [
            (
                "2026-05-04T03:02:01.654321+00:00",
                Some("Mon, 04 May 2026 03:02:01 GMT"),
            ),
            (
                "2026-05-04T05:02:01+02:00",
                Some("Mon, 04 May 2026 03:02:01 GMT"),
            ),
            (
                "2026-05-04T03:02:01Z",
                Some("Mon, 04 May 2026 03:02:01 GMT"),
            ),
            (
                "1970-01-01T00:00:00Z",
                Some("Thu, 01 Jan 1970 00:00:00 GMT"),
            ),
            (
                "9999-12-31T23:59:59Z",
                Some("Fri, 31 Dec 9999 23:59:59 GMT"),
            ),
            ("9999-12-31T23:59:59-10:00", None),
            ("1969-12-31T23:59:58Z", None),
            ("2026-05-04T03:02:01", None),
            ("2026-05-04", None),
            ("", None),
        ] {
            let shown = unix_millis(text).and_then(http_date);
            assert_eq!(shown.as_deref(), date, "{text}");
        }
    }

    #[test]
    fn a_date_of_a_header_is_read_back() {
        let date = http_date(1_777_863_721_654).unwrap();
        assert_eq!(of_http_date(&date), Some(1_777_863_721_000));
        assert_eq!(of_http_date("Mon, 4 May 2026 03:02:01 +0000"), None);
    }
}
