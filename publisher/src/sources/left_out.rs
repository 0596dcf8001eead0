//! Rows that did not become records: how many, why, and which.

use std::collections::BTreeMap;
use std::fmt;

/// Rows, or parts of them, that did not become records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Personal keys hashed with PBKDF2, which PostHog's service refuses as well.
    pub pbkdf2: u64,
    /// Rows that are not as PostHog writes them: no token, no SHA-256, an id out of range.
    pub malformed: u64,
    /// Records whose hash another row has with another meaning. The first one counts: teams, then project secret
    /// keys, then personal keys, each in the order of their ids.
    pub conflicting: u64,
    /// Personal keys with so many teams or organizations that the record exceeds 64 KiB.
    pub oversized: u64,
}

/// Why rows are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOutReason {
    /// [`Skipped::pbkdf2`].
    Pbkdf2,
    /// [`Skipped::malformed`].
    Malformed,
    /// [`Skipped::conflicting`].
    Conflicting,
    /// [`Skipped::oversized`].
    Oversized,
}

impl LeftOutReason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Pbkdf2,
        Self::Malformed,
        Self::Conflicting,
        Self::Oversized,
    ];

    /// As metrics have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pbkdf2 => "pbkdf2",
            Self::Malformed => "malformed",
            Self::Conflicting => "conflicting",
            Self::Oversized => "oversized",
        }
    }

    /// What is the matter with such rows.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pbkdf2 => "hashed with PBKDF2",
            Self::Malformed => "not as PostHog writes them",
            Self::Conflicting => "with the hash of another row",
            Self::Oversized => "with too many teams or organizations",
        }
    }
}

impl Skipped {
    /// How many for this reason.
    pub const fn of(&self, reason: LeftOutReason) -> u64 {
        match reason {
            LeftOutReason::Pbkdf2 => self.pbkdf2,
            LeftOutReason::Malformed => self.malformed,
            LeftOutReason::Conflicting => self.conflicting,
            LeftOutReason::Oversized => self.oversized,
        }
    }
}

/// Which rows are named; the others are counted.
const NAMED: usize = 10;

/// Most of an id that is shown, in characters. PostHog's have 50 at most.
const SHOWN: usize = 64;

/// Which rows were left out: by table and primary key, which is no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    counts: Skipped,
    /// The first of each reason, in the order in which they were read.
    rows: BTreeMap<LeftOutReason, Vec<String>>,
}

impl LeftOut {
    /// Notes a row of a table after which the counts are `counts`.
    pub(super) fn note(&mut self, table: &str, id: &str, counts: Skipped) {
        for reason in LeftOutReason::ALL {
            let is_new = counts.of(reason) > self.counts.of(reason);
            let rows = self.rows.entry(reason).or_default();
            if is_new && rows.len() < NAMED {
                let id: String = id
                    .chars()
                    .take(SHOWN)
                    .flat_map(char::escape_debug)
                    .collect();
                rows.push(format!("{table} {id}"));
            }
        }
        self.counts = counts;
    }

    /// What was left out for this reason; `None`: nothing.
    pub fn of(&self, reason: LeftOutReason) -> Option<Rows<'_>> {
        let count = self.counts.of(reason);
        let named = self.rows.get(&reason).filter(|_| count > 0)?;
        Some(Rows { count, named })
    }
}

/// What was left out for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// How many rows, or parts of them.
    pub count: u64,
    named: &'a [String],
}

impl fmt::Display for Rows<'_> {
    /// `posthog_team 7, posthog_team 8 and 3 more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join(", "))?;
        match self.count.saturating_sub(self.named.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rows_of_each_reason_are_named() {
        let (mut left_out, mut counts) = (LeftOut::default(), Skipped::default());
        for id in 1..=12 {
            counts.malformed += 1;
            left_out.note("posthog_team", &id.to_string(), counts);
        }
        counts.conflicting += 2;
        left_out.note("posthog_personalapikey", "a\nb", counts);
        let text = |reason| {
            left_out
                .of(reason)
                .map(|rows| (rows.count, rows.to_string()))
        };
        let (count, named) = text(LeftOutReason::Malformed).unwrap();
        assert_eq!(count, 12);
        assert!(
            named.starts_with("posthog_team 1, posthog_team 2, "),
            "{named}"
        );
        assert!(named.ends_with(", posthog_team 10 and 2 more"), "{named}");
        // A row of two records that contradict is named once; no line of a log ends in an id.
        let expected = (2, "posthog_personalapikey a\\nb and 1 more".to_owned());
        assert_eq!(text(LeftOutReason::Conflicting), Some(expected));
        assert_eq!(text(LeftOutReason::Pbkdf2), None);
    }
}
