//! Reports of what was served: counts that filters left in Redis, taken out in batches, sent by their source, and forgotten when
//! the upstream has them.
//!
//! Only who holds the lock takes a batch or forgets one. A batch stays in Redis until it is answered, so whoever holds the lock
//! next sends it again, under the same id. What Redis or the upstream refuse holds nothing else up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::tenant::Tenant;
use tracing::{error, info, warn};

use super::status::WatchStatus;
use crate::redis::error::SnapshotStoreError;
use crate::redis::store::SnapshotStore;
use crate::redis::usage::{Allowed, REPORTED_HOURS};
use crate::sources::kinds::RecordOwner;
use crate::sources::usage::{MAX_ROWS, UsageAnswer, UsageBatch, UsageNews, UsageReports};

/// Wait after the first failure. It doubles with each further one, up to the interval.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// After so long without an answer a batch is sent again: its source must have lost it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(900);

const HOUR_MILLIS: u64 = 3_600_000;

/// The reports of one source.
pub struct Reporter {
    owner: RecordOwner,
    reports: UsageReports,
    /// `None`: not said yet.
    tenants: Option<BTreeMap<Tenant, Sha256Hash>>,
    /// In which session and for which hour Redis was told of them.
    named: Option<(u64, u32)>,
    due: Instant,
    /// Id of the batch that the source has, and since when.
    sent: Option<(String, Instant)>,
    failures: u32,
    /// What was logged last.
    problem: Option<String>,
}

impl Reporter {
    /// Of a surface's source.
    pub fn new(owner: RecordOwner, reports: UsageReports) -> Self {
        Self {
            owner,
            reports,
            tenants: None,
            named: None,
            due: Instant::now(),
            sent: None,
            failures: 0,
            problem: None,
        }
    }

    /// Whose reports these are.
    pub const fn owner(&self) -> RecordOwner {
        self.owner
    }

    /// Sends the next batch, when it is time. `epoch` tells sessions apart.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn advance(
        &mut self,
        store: &mut SnapshotStore<'_>,
        epoch: u64,
        status: &WatchStatus,
        now: Instant,
    ) -> Result<(), SnapshotStoreError> {
        let Some(tenants) = &self.tenants else {
            return Ok(());
        };
        let is_lost = |sent_at: Instant| now.saturating_duration_since(sent_at) > ANSWER_DEADLINE;
        let has_sent = self.sent.as_ref().is_some_and(|(_, at)| !is_lost(*at));
        if has_sent || now < self.due {
            return Ok(());
        }
        self.due = now + self.reports.interval;
        let name = self.reports.name;
        let hour = u32::try_from(store.now()? / HOUR_MILLIS).unwrap_or(u32::MAX);
        if self.named != Some((epoch, hour)) {
            if let Err(problem) = store.name_reported(name, hour, tenants.iter())? {
                self.redis_refused(problem, status);
                return Ok(());
            }
            self.named = Some((epoch, hour));
        }
        let taken = match store.take_usage(name, hour, MAX_ROWS)? {
            Ok(taken) => taken,
            Err(problem) => {
                self.redis_refused(problem, status);
                return Ok(());
            }
        };
        status.update(|figures| {
            figures.usage.expired += taken.old;
            figures.usage.unknown += taken.unknown;
        });
        if taken.old > 0 {
            self.too_old(taken.old);
        }
        if taken.unknown > 0 {
            let (surface, requests) = (self.owner.name(), taken.unknown);
            warn!(
                surface,
                requests, "usage of tenants that are not reported any more is dropped"
            );
        }
        if taken.is_unnamed {
            self.named = None;
            self.due = now;
        }
        if taken.batch.is_empty() {
            return Ok(());
        }
        let Some(batch) = UsageBatch::parse(&taken.batch) else {
            self.redis_refused(
                "its batch cannot be read, so it is dropped".to_owned(),
                status,
            );
            let id = taken.batch.split(' ').next().unwrap_or_default();
            self.end(store, id, status)?;
            return Ok(());
        };
        if batch.hour < hour.saturating_sub(REPORTED_HOURS) {
            if self.end(store, &batch.id, status)? {
                let requests = batch.requests();
                status.update(|figures| figures.usage.expired += requests);
                self.too_old(requests);
            }
            self.due = now;
            return Ok(());
        }
        let id = batch.id.clone();
        if self.reports.send.send(batch).is_ok() {
            self.sent = Some((id, now));
        }
        Ok(())
    }

    /// Takes what the source says. Without `store` the lock is not held: then an answered batch stays, and is sent again.
    ///
    /// # Errors
    /// When Redis fails, or another publisher holds the lock.
    pub fn handle(
        &mut self,
        news: UsageNews,
        store: Option<&mut SnapshotStore<'_>>,
        status: &WatchStatus,
    ) -> Result<(), SnapshotStoreError> {
        let now = Instant::now();
        let (id, reported, unknown, answer) = match news {
            UsageNews::Tenants(tenants) => {
                self.tenants = Some(tenants);
                self.named = None;
                return Ok(());
            }
            UsageNews::Answered {
                id,
                reported,
                unknown,
                answer,
            } => (id, reported, unknown, answer),
        };
        if self.sent.as_ref().is_some_and(|(sent, _)| *sent == id) {
            self.sent = None;
        }
        let is_taken = match answer {
            UsageAnswer::Kept(problem) => {
                let wait = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
                self.due = now + wait.min(self.reports.interval);
                self.failures = self.failures.saturating_add(1);
                if self.is_new(&problem) {
                    let surface = self.owner.name();
                    warn!(
                        surface,
                        problem, "a report of usage is not taken; it is sent again as it is"
                    );
                }
                return Ok(());
            }
            UsageAnswer::Taken => {
                if self.problem.take().is_some() {
                    info!(
                        surface = self.owner.name(),
                        "reports of usage are taken again"
                    );
                }
                true
            }
            UsageAnswer::Refused(problem) => {
                if self.is_new(&problem) {
                    let (surface, requests) = (self.owner.name(), reported);
                    error!(
                        surface,
                        problem,
                        requests,
                        "a report of usage is refused, so its requests are dropped"
                    );
                }
                false
            }
        };
        self.failures = 0;
        // There may be more.
        self.due = now;
        if let Some(store) = store
            && self.end(store, &id, status)?
        {
            status.update(|figures| {
                let usage = &mut figures.usage;
                let state = if is_taken {
                    &mut usage.sent
                } else {
                    &mut usage.refused
                };
                *state += reported;
                usage.unknown += unknown;
            });
        }
        Ok(())
    }

    /// Forgets a batch: whether it was there.
    fn end(
        &mut self,
        store: &mut SnapshotStore<'_>,
        id: &str,
        status: &WatchStatus,
    ) -> Result<bool, SnapshotStoreError> {
        let ended: Allowed<bool> = store.end_usage(self.reports.name, id)?;
        Ok(ended.unwrap_or_else(|problem| {
            self.redis_refused(problem, status);
            false
        }))
    }

    fn too_old(&self, requests: u64) {
        let surface = self.owner.name();
        warn!(
            surface,
            requests, "usage that could not be reported for a day is dropped"
        );
    }

    fn redis_refused(&mut self, problem: String, status: &WatchStatus) {
        self.due = Instant::now() + self.reports.interval;
        status.update(|figures| figures.errors.redis += 1);
        if self.is_new(&problem) {
            error!(
                problem,
                "Redis refuses to hand over counts of usage, so they are not reported; the publisher's user needs +hget, \
                 +hset, +hgetall and +hdel"
            );
        }
    }

    /// Whether this problem is another one than the last; it is the last from now on.
    fn is_new(&mut self, problem: &str) -> bool {
        let is_new = self.problem.as_deref() != Some(problem);
        self.problem = Some(problem.to_owned());
        is_new
    }
}
