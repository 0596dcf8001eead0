//! The contract of a source that reports to its upstream what was served.
//!
//! Filters add requests to hashes in Redis, one for each hour ([`flag_definitions_filter::usage::UsageKeys::ByField`]). The
//! writer takes counts out of them, under its lock, as a batch with an id, and keeps it in Redis until the source has an answer
//! to it. So a batch is sent as it is and under the same id, whoever sends it. No key of a client is in it: a row says by its hash
//! whose it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;

use super::WriterGone;

/// Most rows of a batch.
pub const MAX_ROWS: usize = 1_000;

/// A source's reports.
pub struct UsageReports {
    /// The name in the keys of the hashes.
    pub name: &'static str,
    /// Time between two reports.
    pub interval: Duration,
    /// Takes a batch that is to be sent. [`UsageNews::Answered`] says what came of it.
    pub send: Sender<UsageBatch>,
}

/// Takes what a source has to say of its reports, from any of its threads.
pub type TellUsage = Arc<dyn Fn(UsageNews) -> Result<(), WriterGone> + Send + Sync>;

/// What a source has to say of its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageNews {
    /// All tenants that are reported from now on, each with the hash of the key that names it to the upstream. Nothing is
    /// reported before this was said. It is said before records make filters count.
    Tenants(BTreeMap<Tenant, Sha256Hash>),
    /// What came of a batch.
    Answered {
        /// Its id.
        id: String,
        /// Requests in it.
        reported: u64,
        /// Requests that were left out, as nobody is known by their hash any more.
        unknown: u64,
        /// What the upstream said.
        answer: UsageAnswer,
    },
}

/// What came of sending a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageAnswer {
    /// It was taken.
    Taken,
    /// It was refused, and sending it again would not help. Why.
    Refused(String),
    /// It is sent again. Why.
    Kept(String),
}

/// Requests for one tenant and resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Hash of the key that names the tenant to the upstream.
    pub reported_as: Sha256Hash,
    /// A code of the surface's.
    pub resource: u8,
    /// How many.
    pub count: u64,
}

/// What is sent by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBatch {
    /// A UUID, the same whenever it is sent.
    pub id: String,
    /// The hour in which its requests were served, since 1970.
    pub hour: u32,
    /// At most [`MAX_ROWS`].
    pub rows: Vec<UsageRow>,
}

impl UsageBatch {
    /// Number of requests in it.
    pub fn requests(&self) -> u64 {
        let counts = self.rows.iter().map(|row| row.count);
        counts.fold(0, u64::saturating_add)
    }

    /// Reads its text in Redis: a line with id and hour, then a line for each row with hash, resource and count.
    ///
    /// ```
    /// use flag_definitions_publisher::sources::usage::UsageBatch;
    /// let hash = "0".repeat(64);
    /// let batch = UsageBatch::parse(&format!("an-id 498000\n{hash} 2 7")).unwrap();
    /// assert_eq!((batch.hour, batch.rows[0].resource, batch.requests()), (498_000, 2, 7));
    /// assert_eq!(UsageBatch::parse("an-id 498000\n0 2 7"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (id, hour) = lines.next()?.split_once(' ')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.is_empty() || !id.bytes().all(is_plain) {
            return None;
        }
        let row = |line: &str| {
            let mut words = line.split(' ');
            let row = UsageRow {
                reported_as: Sha256Hash::from_hex(words.next()?)?,
                resource: words.next()?.parse().ok()?,
                count: words.next()?.parse().ok()?,
            };
            words.next().is_none().then_some(row)
        };
        Some(Self {
            id: id.to_owned(),
            hour: hour.parse().ok()?,
            rows: lines.map(row).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_batch_whole_or_none() {
        let hash = Sha256Hash::of(b"client").to_hex();
        let batch = UsageBatch::parse(&format!("id 7\n{hash} 0 1\n{hash} 1 2")).unwrap();
        assert_eq!((batch.rows.len(), batch.requests()), (2, 3));
        for text in [
            String::new(),
            "id".to_owned(),
            "id x".to_owned(),
            " 7".to_owned(),
            "i\td 7".to_owned(),
            format!("id 7\n{hash} 0"),
            format!("id 7\n{hash} 0 -1"),
            format!("id 7\n{hash} 0 1 1"),
            format!("id 7\n{hash} 256 1"),
            "id 7\nclient 0 1".to_owned(),
        ] {
            assert_eq!(UsageBatch::parse(&text), None, "{text}");
        }
    }
}
