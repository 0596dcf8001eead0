//! What would change if these records took the place of the published ones. ETags are left out: they come from
//! PostHog's cache, not from documents or databases.

use std::collections::BTreeMap;
use std::fmt;

use flag_definitions_filter::hash::Sha256Hash;

use super::describe::{Kind, SourcedRecord, short};
use crate::redis::published::RecordMap;

/// How many records of one kind differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// Not published yet.
    pub added: u64,
    /// Published with another content.
    pub changed: u64,
    /// PublishedSnapshot, and gone.
    pub removed: u64,
    /// Published as they are.
    pub unchanged: u64,
}

/// The difference.
#[derive(Debug, Default)]
pub struct Comparison {
    counts: BTreeMap<Kind, KindCounts>,
    /// The first differences, in hash order, as lines.
    examples: Vec<String>,
}

impl Comparison {
    /// Compares; `examples` is how many differences are kept to be shown.
    pub fn of(published: &RecordMap, wanted: &RecordMap, examples: usize) -> Self {
        let mut comparison = Self::default();
        for kind in [
            Kind::Team,
            Kind::TeamSecret,
            Kind::ProjectSecret,
            Kind::Personal,
        ] {
            comparison.counts.insert(kind, KindCounts::default());
        }
        // Both are in hash order.
        let mut before = published.iter().peekable();
        for (hash, new) in wanted {
            while let Some((hash, old)) = before.next_if(|(old, _)| *old < hash) {
                comparison.note(examples, hash, Some(old.as_ref()), None);
            }
            let old = before.next_if(|(old, _)| *old == hash);
            comparison.note(
                examples,
                hash,
                old.map(|(_, record)| record.as_ref()),
                Some(new.as_ref()),
            );
        }
        for (hash, old) in before {
            comparison.note(examples, hash, Some(old.as_ref()), None);
        }
        comparison
    }

    fn note(&mut self, examples: usize, hash: &Sha256Hash, old: Option<&[u8]>, new: Option<&[u8]>) {
        let decode = |bytes: Option<&[u8]>| SourcedRecord::decode(bytes?);
        let (before, after) = (decode(old), decode(new));
        let Some(kind) = after.as_ref().or(before.as_ref()).map(SourcedRecord::kind) else {
            return;
        };
        let counts = match kind {
            // They have no row.
            Kind::ETag | Kind::Tombstone => return,
            kind => self.counts.entry(kind).or_default(),
        };
        let short = short(hash);
        let line = match (&before, &after) {
            (None, None) => return,
            (Some(_), Some(_)) if old == new => {
                counts.unchanged += 1;
                return;
            }
            (None, Some(record)) => {
                counts.added += 1;
                format!("+ {short} {record}")
            }
            (Some(record), None) => {
                counts.removed += 1;
                format!("- {short} {record}")
            }
            (Some(before), Some(after)) => {
                counts.changed += 1;
                let width = short.chars().count();
                format!("~ {short} {before}\n  {:>width$} {after}", "→")
            }
        };
        if self.examples.len() < examples {
            self.examples.push(line);
        }
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.differences() == 0
    }

    fn differences(&self) -> u64 {
        let counts = self.counts.values();
        counts.map(|c| c.added + c.changed + c.removed).sum()
    }

    /// How many would be removed.
    pub fn removals(&self) -> u64 {
        self.counts.values().map(|counts| counts.removed).sum()
    }

    /// Whether no team would be left, or there.
    pub fn leaves_no_team(&self) -> bool {
        let teams = self.counts.get(&Kind::Team);
        teams.is_none_or(|c| c.added + c.changed + c.unchanged == 0)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20}{:>10}{:>10}{:>10}{:>11}",
            "", "added", "changed", "removed", "unchanged"
        )?;
        for (kind, counts) in &self.counts {
            let KindCounts {
                added,
                changed,
                removed,
                unchanged,
            } = counts;
            let name = format!("{}s", kind.name());
            write!(
                f,
                "\n{name:<20}{added:>10}{changed:>10}{removed:>10}{unchanged:>11}"
            )?;
        }
        for example in &self.examples {
            write!(f, "\n{example}")?;
        }
        let more = self.differences() - self.examples.len() as u64;
        if more > 0 && !self.examples.is_empty() {
            write!(f, "\nand {more} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag_definitions_filter::http::ETag;
    use flag_definitions_filter::surfaces::ofrep::records::{OfrepRecord, selection_hash};
    use flag_definitions_filter::surfaces::posthog::directory::{Record, Team, etag_hash};
    use flag_definitions_filter::tenant::Tenant;

    fn records(list: &[(&str, Record)]) -> RecordMap {
        let encode = |record: &Record| record.encode().unwrap().into();
        list.iter()
            .map(|(token, record)| (Sha256Hash::of(token.as_bytes()), encode(record)))
            .collect()
    }

    fn team(id: u32) -> Record {
        Record::Team(Team {
            id: Tenant(id),
            organization: None,
        })
    }

    #[test]
    fn what_differs_is_counted_by_kind_and_shown_by_hash() {
        let secret = |id| Record::TeamSecret(Tenant(id));
        let mut published = records(&[
            ("phc_a", team(1)),
            ("phc_b", team(2)),
            ("phs_a", secret(1)),
            ("phs_b", secret(2)),
        ]);
        let etag = Record::ETag(ETag::new(b"ab").unwrap());
        published.insert(etag_hash(Tenant(1)), etag.encode().unwrap().into());
        let wanted = records(&[
            ("phc_a", team(1)),
            ("phc_c", team(3)),
            ("phs_a", secret(3)),
            ("phs_b", secret(2)),
        ]);
        let comparison = Comparison::of(&published, &wanted, 2);
        assert!(!comparison.is_empty());
        assert_eq!(comparison.removals(), 1);
        let text = comparison.to_string();
        for line in [
            "                         added   changed   removed  unchanged\n",
            "teams                        1         0         1          1\n",
            "team secrets                 0         1         0          1\n",
            "personal keys                0         0         0          0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("\nand 1 more"), "{text}");
        let all = Comparison::of(&published, &wanted, 10).to_string();
        for (sign, token, after) in [("+", "phc_c", " team 3"), ("-", "phc_b", " team 2")] {
            let hash = Sha256Hash::of(token.as_bytes());
            let line = format!("\n{sign} {hash:?}{after}, no organization");
            assert!(all.contains(&line), "{all}");
        }
        assert!(all.contains("→ team secret of team 3"), "{all}");
        assert!(!all.contains("ph"), "{all}");
    }

    #[test]
    fn keys_of_ofrep_are_compared_and_have_a_row_where_there_are_some() {
        let key = |bound: Option<&str>| OfrepRecord::Key(bound.map(selection_hash)).encode();
        let of = |bound| RecordMap::from([(Sha256Hash::of(b"key"), key(bound).into())]);
        let text = Comparison::of(&of(None), &of(Some("source=a")), 9).to_string();
        let row = "\nOFREP keys                   0         1         0          0\n";
        assert!(text.contains(row), "{text}");
        let (before, after) = ("OFREP key, every selection", "→ OFREP key, selection ");
        assert!(text.contains(before) && text.contains(after), "{text}");
    }

    #[test]
    fn equal_records_make_no_difference() {
        let both = records(&[("phc_a", team(1)), ("phc_b", team(2))]);
        let comparison = Comparison::of(&both, &both, 10);
        assert!(comparison.is_empty());
        assert_eq!(comparison.to_string().lines().count(), 5);
    }
}
