//! Which version of a tenant is current, and so when a 304 is right. All surfaces ask here.
//!
//! Two sources know. The publisher says which version it published, and a watermark as of when nothing newer was
//! ([`Published`]). A callout says what Redis held when it was sent ([`Confirmed`]). Either counts for [`Rule::max_age`], and
//! no longer than since [`Rule::since`]. Where they differ, the callout is right only if it was sent after the publisher
//! could have seen a change: [`Rule::poll_takes`] after the version was published, and after the watermark.
//!
//! | | watermark | callout | client holds | answer | cost |
//! |---|---|---|---|---|---|
//! | 1 | fresh, of A | not looked at | A | A is current: 304 | this worker's memory |
//! | 2 | fresh, of A | none, or too old | B, or nothing | A is current: 200 | + a look at shared data |
//! | 3 | fresh, of A | B, sent after A could have been seen | B, or nothing | B is current | + a look at shared data |
//! | 4 | fresh, of A | B, sent before that | B, or nothing | A is current | + a look at shared data |
//! | 5 | too old, of A | A, fresh | any | A is current | + a look at shared data |
//! | 6 | too old, of A | B, fresh, sent after A could have been seen | any | B is current | + a look at shared data |
//! | 7 | too old, of A | B, fresh, sent before that | any | not known: ask Redis | + a callout |
//! | 8 | too old, or none | none, or too old | any | not known: ask Redis | + a callout |
//! | 9 | none | B, fresh | any | B is current | + a look at shared data |
//!
//! In row 3 the clocks of two processes meet: "A was published at 10.000 s" is the publisher's clock, told in this one's
//! time by the watermark. A callout of 10.300 s that found B may still be older than A, because reading the changes may take
//! 0.5 s: A stays current. A callout of 10.600 s is not: B is.

use std::time::Duration;

use super::confirmed::Confirmed;
use crate::http::{ETag, IfNoneMatch};
use crate::time::Monotonic;

/// The version that the publisher published last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its entity tag.
    pub etag: ETag,
    /// When it was published, in time of this clock.
    pub at: Monotonic,
    /// As of when a watermark says that nothing newer was published.
    pub confirmed_at: Monotonic,
}

/// What may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For how long a source counts.
    pub max_age: Duration,
    /// How long reading what was published takes at most.
    pub poll_takes: Duration,
    /// What was confirmed before then does not count.
    pub since: Option<Monotonic>,
    /// The time.
    pub now: Monotonic,
}

impl Rule {
    /// Whether what was confirmed then still counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flag_definitions_filter::{documents::current::Rule, time::Monotonic};
    /// let rule = Rule {
    ///     max_age: Duration::from_secs(2),
    ///     poll_takes: Duration::from_millis(500),
    ///     since: Some(Monotonic::from_millis(9_000)),
    ///     now: Monotonic::from_millis(10_000),
    /// };
    /// assert!(rule.counts(Monotonic::from_millis(9_000)));
    /// assert!(!rule.counts(Monotonic::from_millis(8_999)), "of before");
    /// ```
    pub fn counts(&self, at: Monotonic) -> bool {
        self.now.since(at) < self.max_age && Some(at) >= self.since
    }
}

/// What reading the changes takes at least: Redis may have looked at them that long after it was asked, from when on the
/// moments of the stream count. A longer timeout of theirs counts instead.
pub const POLL_TAKES: Duration = Duration::from_millis(500);

/// What is known of a tenant's current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// This is it.
    Known(ETag),
    /// Only Redis knows.
    Ask,
}

/// The version that is current. `callout` looks for what a callout brought; it is not called in row 1.
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use flag_definitions_filter::documents::{Confirmed, current::{Current, Published, Rule, current}};
/// use flag_definitions_filter::http::{ETag, IfNoneMatch};
/// use flag_definitions_filter::time::Monotonic;
/// let (a, b) = (ETag::new(b"a").unwrap(), ETag::new(b"b").unwrap());
/// let at = Monotonic::from_millis;
/// // Published at 10.000 s by the publisher's clock, and a watermark of that moment.
/// let published = Published { etag: a.clone(), at: at(10_000), confirmed_at: at(10_000) };
/// let (max_age, poll_takes) = (Duration::from_secs(2), Duration::from_millis(500));
/// let rule = Rule { max_age, poll_takes, since: None, now: at(11_000) };
/// let after_callout = |millis| {
///     let callout = || Ok::<_, Infallible>(Some(Confirmed { etag: b.clone(), at: at(millis) }));
///     current(&IfNoneMatch::default(), Some(&published), callout, &rule)
/// };
/// assert_eq!(after_callout(10_300), Ok(Current::Known(a.clone())), "may be older than a");
/// assert_eq!(after_callout(10_600), Ok(Current::Known(b.clone())));
/// ```
///
/// # Errors
/// Those of `callout`.
pub fn current<E>(
    held: &IfNoneMatch<'_>,
    published: Option<&Published>,
    callout: impl FnOnce() -> Result<Option<Confirmed>, E>,
    rule: &Rule,
) -> Result<Current, E> {
    if let Some(published) = published
        && held.matches(&published.etag)
        && rule.counts(published.confirmed_at)
    {
        return Ok(Current::Known(published.etag.clone()));
    }
    let asked = callout()?.filter(|asked| rule.counts(asked.at));
    let known = match (published, asked) {
        (Some(published), asked) => {
            let seen_at = published
                .confirmed_at
                .max(published.at.plus(rule.poll_takes));
            match asked {
                Some(asked) if asked.etag == published.etag || asked.at >= seen_at => {
                    Some(asked.etag)
                }
                _ => rule
                    .counts(published.confirmed_at)
                    .then(|| published.etag.clone()),
            }
        }
        (None, asked) => asked.map(|asked| asked.etag),
    };
    Ok(known.map_or(Current::Ask, Current::Known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 100_000;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn tag(text: &str) -> ETag {
        ETag::new(text.as_bytes()).unwrap()
    }

    fn holds(text: &str) -> IfNoneMatch<'static> {
        let mut held = IfNoneMatch::default();
        if !text.is_empty() {
            let field = format!("\"{text}\"");
            held.add(field.leak().as_bytes());
        }
        held
    }

    fn rule() -> Rule {
        Rule {
            max_age: Duration::from_secs(2),
            poll_takes: Duration::from_millis(500),
            since: None,
            now: at(NOW),
        }
    }

    /// A was published long ago, and a watermark of then says so.
    fn watermark(confirmed_at: u64) -> Option<Published> {
        Some(Published {
            etag: tag("A"),
            at: at(1_000),
            confirmed_at: at(confirmed_at),
        })
    }

    fn callout(text: &str, sent_at: u64) -> Option<Confirmed> {
        Some(Confirmed {
            etag: tag(text),
            at: at(sent_at),
        })
    }

    /// What is current, `-` when Redis has to be asked; and whether callouts were looked at.
    fn answer(
        held: &str,
        published: &Option<Published>,
        asked: &Option<Confirmed>,
        rule: &Rule,
    ) -> (String, bool) {
        let looked = Cell::new(false);
        let asked = || {
            looked.set(true);
            Ok::<_, Infallible>(asked.clone())
        };
        let known = match current(&holds(held), published.as_ref(), asked, rule) {
            Ok(Current::Known(etag)) => String::from_utf8(etag.as_bytes().to_vec()).unwrap(),
            Ok(Current::Ask) => "-".to_owned(),
            Err(never) => match never {},
        };
        (known, looked.get())
    }

    fn expect(
        row: u32,
        published: Option<Published>,
        asked: Option<Confirmed>,
        held: &[&str],
        expected: &str,
    ) {
        for held in held {
            let found = answer(held, &published, &asked, &rule());
            assert_eq!(found, (expected.to_owned(), true), "row {row}, {held:?}");
        }
    }

    const FRESH: u64 = NOW - 100;
    const OLD: u64 = NOW - 2_000;

    #[test]
    fn row_1_who_holds_what_a_fresh_watermark_confirms_needs_no_look_at_callouts() {
        let found = answer("A", &watermark(FRESH), &callout("B", NOW), &rule());
        assert_eq!(found, ("A".to_owned(), false));
    }

    #[test]
    fn row_2_without_a_fresh_callout_the_watermark_is_right() {
        expect(2, watermark(FRESH), None, &["", "B"], "A");
        expect(2, watermark(FRESH), callout("B", OLD), &["", "B"], "A");
    }

    #[test]
    fn row_3_a_callout_that_was_sent_after_the_watermark_knows_better() {
        expect(3, watermark(FRESH), callout("B", FRESH), &["", "B"], "B");
    }

    #[test]
    fn row_4_a_callout_of_before_the_watermark_does_not() {
        expect(
            4,
            watermark(FRESH),
            callout("B", FRESH - 1),
            &["", "B"],
            "A",
        );
    }

    #[test]
    fn rows_3_and_4_reading_what_was_published_takes_its_time() {
        let published = Some(Published {
            etag: tag("A"),
            at: at(NOW - 1_000),
            confirmed_at: at(NOW - 1_000),
        });
        for (sent_at, expected) in [(NOW - 501, "A"), (NOW - 500, "B")] {
            expect(
                3,
                published.clone(),
                callout("B", sent_at),
                &["", "B"],
                expected,
            );
        }
    }

    #[test]
    fn row_5_a_callout_confirms_what_an_old_watermark_said() {
        expect(5, watermark(OLD), callout("A", FRESH), &["", "A", "B"], "A");
    }

    #[test]
    fn row_6_and_overrules_it_when_it_was_sent_later() {
        expect(
            6,
            watermark(OLD),
            callout("B", OLD + 1),
            &["", "A", "B"],
            "B",
        );
    }

    #[test]
    fn row_7_but_one_that_may_be_older_than_what_was_published_is_not_believed() {
        let published = Some(Published {
            etag: tag("A"),
            at: at(NOW - 300),
            confirmed_at: at(OLD),
        });
        expect(7, published, callout("B", FRESH), &["", "A", "B"], "-");
    }

    #[test]
    fn row_8_where_nobody_knows_redis_is_asked() {
        for published in [None, watermark(OLD)] {
            for asked in [None, callout("A", OLD)] {
                expect(8, published.clone(), asked, &["", "A", "B"], "-");
            }
        }
    }

    #[test]
    fn row_9_without_a_publisher_callouts_alone_tell() {
        expect(9, None, callout("B", FRESH), &["", "A", "B"], "B");
    }

    #[test]
    fn what_was_confirmed_before_a_moment_does_not_count() {
        let rule = Rule {
            since: Some(at(FRESH + 1)),
            ..rule()
        };
        let found = answer("A", &watermark(FRESH), &callout("A", FRESH), &rule);
        assert_eq!(found, ("-".to_owned(), true));
        let found = answer("A", &watermark(FRESH), &callout("A", FRESH + 1), &rule);
        assert_eq!(found, ("A".to_owned(), true));
    }

    #[test]
    fn where_the_look_fails_nothing_is_known() {
        let failed = current(&holds("B"), None, || Err("shared data"), &rule());
        assert_eq!(failed, Err("shared data"));
    }
}
