//! What is reported to Flagsmith of requests that were served.
//!
//! `POST {api_url}/proxy/usage/` with `X-Proxy-Key` and `Idempotency-Key`, a list of `{client_side_key, resource, count}`, at
//! most 1000 a request, as `src/services/usage.rs` of edge-proxy-rs has it. A batch that was perhaps taken is sent again as it
//! is and under the same key, so nothing is counted twice. Nothing here sends: a batch is given out, and its answer taken.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::Serialize;

use super::secret::FlagsmithKey;

/// Most rows of a batch, `MAX_USAGE_ROWS` of Flagsmith.
const MAX_ROWS: usize = 1_000;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsageResource {
    /// `/flags`
    Flags,
    /// `/identities`
    Identities,
    /// `/environment-document`
    EnvironmentDocument,
}

/// Counts that were not taken yet.
#[derive(Debug, Default)]
pub struct UsageReport {
    counts: BTreeMap<(FlagsmithKey, UsageResource), u64>,
    /// Batches that were made and not taken, the oldest first.
    batches: VecDeque<UsageBatch>,
}

/// What is sent by one request. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct UsageBatch {
    /// The `Idempotency-Key`: a UUID.
    pub id: String,
    /// The body, JSON.
    pub body: Vec<u8>,
    /// How many counts it has.
    pub rows: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageAnswer {
    /// It was taken.
    Taken,
    /// It was refused, and sending it again would not help: its counts are lost.
    Dropped,
    /// It is sent again.
    Kept,
}

/// A batch cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageProblem {
    /// The system has no randomness.
    Randomness,
    /// A fault of this program: no JSON.
    Encoding,
}

impl fmt::Debug for UsageBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageBatch")
            .field("id", &self.id)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Row<'a> {
    client_side_key: &'a str,
    resource: UsageResource,
    count: u64,
}

impl UsageReport {
    /// Adds requests that were served for an environment.
    pub fn add(&mut self, client_key: &FlagsmithKey, resource: UsageResource, count: u64) {
        if count > 0 {
            let sum = self
                .counts
                .entry((client_key.clone(), resource))
                .or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// The batch that is to be sent now; `None`: nothing is to be sent. It is the same one until its answer is known. New
    /// counts wait until all batches are through, so they are never more than one for each environment and resource.
    ///
    /// # Errors
    /// When a batch cannot be made. The counts stay.
    pub fn batch(&mut self) -> Result<Option<&UsageBatch>, UsageProblem> {
        if self.batches.is_empty() {
            let rows: Vec<_> = self.counts.iter().collect();
            let batches = rows.chunks(MAX_ROWS).map(UsageBatch::of);
            self.batches = batches.collect::<Result<_, _>>()?;
            self.counts.clear();
        }
        Ok(self.batches.front())
    }

    /// What came of sending the batch with this id; `None`: no answer came. The next one comes first then.
    pub fn answered(&mut self, id: &str, status: Option<u16>) -> UsageAnswer {
        let answer = match status {
            Some(200..=299) => UsageAnswer::Taken,
            Some(400..=499) => UsageAnswer::Dropped,
            _ => UsageAnswer::Kept,
        };
        if answer != UsageAnswer::Kept {
            self.batches.retain(|batch| batch.id != id);
        } else if self.batches.front().is_some_and(|batch| batch.id == id) {
            self.batches.rotate_left(1);
        }
        answer
    }
}

impl UsageBatch {
    fn of(rows: &[(&(FlagsmithKey, UsageResource), &u64)]) -> Result<Self, UsageProblem> {
        let sent: Vec<_> = rows
            .iter()
            .map(|((client_key, resource), count)| Row {
                client_side_key: client_key.text(),
                resource: *resource,
                count: **count,
            })
            .collect();
        Ok(Self {
            id: uuid()?,
            body: serde_json::to_vec(&sent).map_err(|_| UsageProblem::Encoding)?,
            rows: rows.len(),
        })
    }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid() -> Result<String, UsageProblem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| UsageProblem::Randomness)?;
    let version_and_variant = (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let random = u128::from_be_bytes(bytes) & !((0xf000_u128 << 64) | (0xc000_u128 << 48));
    let digits = format!("{:032x}", random | version_and_variant);
    let mut parts = Vec::new();
    let mut rest = digits.as_str();
    for length in [8, 4, 4, 4, 12] {
        let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        parts.push(part);
        rest = behind;
    }
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests;
