//! What is reported to Flagsmith of requests that were served.
//!
//! `POST {api_url}/proxy/usage/` with `X-Proxy-Key` and `Idempotency-Key`, a list of `{client_side_key, resource, count}`, at
//! most 1000 a request, as `src/services/usage.rs` of edge-proxy-rs has it. A batch that was perhaps taken is sent again as it
//! is and under the same key, so nothing is counted twice.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::flagsmith::usage::UsageResource;
use serde::Serialize;

use super::secret::FlagsmithKey;
use super::upstream::UpstreamProblem;
use crate::redis::usage::REPORTED_HOURS;
use crate::sources::usage::{UsageAnswer, UsageBatch};

/// A batch as it is sent. `Debug` shows no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The `Idempotency-Key`: a UUID.
    pub id: String,
    /// JSON; empty when there is nothing to send.
    pub body: Vec<u8>,
    /// Requests in it.
    pub reported: u64,
    /// Requests that are left out: of an environment that is not known here.
    pub unknown: u64,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("id", &self.id)
            .field("reported", &self.reported)
            .finish_non_exhaustive()
    }
}

/// For how long what was served for an environment may still come when the environment is not listed any more.
const STILL_COMES: Duration = Duration::from_secs(3_600 * (REPORTED_HOURS as u64 + 1));

/// Makes batches into reports.
#[derive(Debug, Default)]
pub struct Reports {
    /// It stays as it was sent first, whatever becomes of its environments. A Redis that fell back may give its id to other rows.
    last: Option<(UsageBatch, Report)>,
    /// Client-side keys of the environments that are or were listed, by their hashes, and since when one is not any more.
    keys: BTreeMap<Sha256Hash, (FlagsmithKey, Option<Instant>)>,
}

#[derive(Serialize)]
struct Row<'a> {
    client_side_key: &'a str,
    resource: &'static str,
    count: u64,
}

impl Reports {
    /// Says which environments are listed from now on, by their client-side keys. What was served for others while they were is
    /// reported all the same, as the Edge Proxy does it.
    pub fn list<'k>(&mut self, client_keys: impl Iterator<Item = &'k FlagsmithKey>, now: Instant) {
        let age = |since| now.saturating_duration_since(since);
        self.keys
            .retain(|_, (_, since)| age(*since.get_or_insert(now)) < STILL_COMES);
        let listed = client_keys.map(|key| (key.hash(), (key.clone(), None)));
        self.keys.extend(listed);
    }

    /// A batch as it is sent.
    pub fn report(&mut self, batch: &UsageBatch) -> Report {
        if let Some((last, report)) = &self.last
            && last == batch
        {
            return report.clone();
        }
        let report = self.of(batch);
        self.last = Some((batch.clone(), report.clone()));
        report
    }

    fn of(&self, batch: &UsageBatch) -> Report {
        let mut report = Report {
            id: batch.id.clone(),
            ..Report::default()
        };
        let mut rows = Vec::with_capacity(batch.rows.len());
        for row in &batch.rows {
            let client_key = self.keys.get(&row.reported_as).map(|(key, _)| key);
            match client_key.zip(UsageResource::from_code(row.resource)) {
                Some((client_key, resource)) => {
                    report.reported = report.reported.saturating_add(row.count);
                    rows.push(Row {
                        client_side_key: client_key.text(),
                        resource: resource.label(),
                        count: row.count,
                    });
                }
                None => report.unknown = report.unknown.saturating_add(row.count),
            }
        }
        if !rows.is_empty() {
            // Text and numbers always are JSON.
            report.body = serde_json::to_vec(&rows).unwrap_or_default();
        }
        report
    }
}

/// What came of sending a report: only a status of success takes it, and a refusal drops it. 408, 425 and 429 refuse nothing: they
/// ask for the same once more, later (RFC 9110 section 15.5.9, RFC 8470 section 5.2, RFC 6585 section 4).
pub fn answer(answer: Result<(), UpstreamProblem>) -> UsageAnswer {
    match answer {
        Ok(()) => UsageAnswer::Taken,
        Err(problem @ UpstreamProblem::Status(408 | 425 | 429)) => {
            UsageAnswer::Kept(problem.to_string())
        }
        Err(problem @ UpstreamProblem::Status(400..=499)) => {
            UsageAnswer::Refused(problem.to_string())
        }
        Err(problem) => UsageAnswer::Kept(problem.to_string()),
    }
}

#[cfg(test)]
mod tests;
