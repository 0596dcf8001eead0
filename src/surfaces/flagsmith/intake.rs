//! What becomes of documents that were read: compiled or inflated in slices, kept, or remembered as of no use.

use std::time::Duration;

use super::counts::FlagsmithCount;
use super::document::{Begun, Compiled, Unusable};
use super::reads::{FlagsmithLanded, FlagsmithRead};
use super::surface::Flagsmith;
use crate::http::ETag;
use crate::redis::Failure;
use crate::shared::{Machinery, Store};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// No further slice of a document is begun on a tick when those before it took so long. One takes about a millisecond.
const SLICES_TAKE: Duration = Duration::from_millis(3);

/// Most slices of one tick.
const SLICES_PER_TICK: usize = 8;

/// Tick while there are slices to do: requests come in between.
pub(super) const WORKING: Duration = Duration::from_millis(2);

/// For how long a version that was of no use is not read again.
pub(super) const UNUSABLE: Duration = Duration::from_secs(10);

/// For how long it is remembered what was told of a version.
pub(super) const TOLD: Duration = Duration::from_secs(3_600);

impl Flagsmith {
    /// Takes a document that was read.
    pub(super) fn take_in<S: Store>(
        &mut self,
        environment: Tenant,
        version: ETag,
        gzip: &[u8],
        machinery: &Machinery<'_, S, FlagsmithCount>,
    ) -> FlagsmithLanded {
        let max_bytes = self.settings.max_document_bytes as usize;
        let begun = self.workshop.begin(environment, &version, gzip, max_bytes);
        self.taken_in(environment, &version, begun, machinery.now)
    }

    /// What came of the first slices of this version.
    pub(super) fn taken_in(
        &mut self,
        environment: Tenant,
        version: &ETag,
        begun: Begun,
        now: Monotonic,
    ) -> FlagsmithLanded {
        let landed = match begun {
            Begun::Done(compiled) => self.keep(environment, version, compiled, now),
            Begun::Queued => FlagsmithLanded::Compiling(version.clone()),
            Begun::Full => FlagsmithLanded::Failed(Failure::TooBig),
        };
        // Who waited for an older version goes on with this one.
        for version in self.workshop.take_dropped() {
            let read = FlagsmithRead::Compiled {
                environment,
                version,
            };
            self.finished.push((read, landed.clone()));
        }
        landed
    }

    /// The version of an environment that was read a short time ago and is of no use.
    pub(super) fn unusable(&self, environment: Tenant, now: Monotonic) -> Option<&ETag> {
        self.unusable.get(&environment, now)
    }

    fn keep(
        &mut self,
        environment: Tenant,
        version: &ETag,
        compiled: Compiled,
        now: Monotonic,
    ) -> FlagsmithLanded {
        match compiled {
            Ok(document) => {
                // A text for which there is no room is inflated anew; the rest of the document stays.
                if self.kept.etag(environment) != Some(version) || self.kept.has_room(&document) {
                    self.kept.put(environment, &document);
                }
                FlagsmithLanded::Read(document)
            }
            Err(problem) => {
                self.unusable.note(environment, version.clone(), now);
                if self.problems.admits(now) {
                    let problem = match problem {
                        Unusable::TooLong => "is longer than flagsmith.max_document_bytes",
                        Unusable::Unreadable => "cannot be read",
                    };
                    log::warn!("environment {environment}: the document {problem}");
                }
                FlagsmithLanded::Missing
            }
        }
    }

    /// Tells of a version, once, that an evaluation left conditions out.
    pub(super) fn tell_cut_short(&mut self, environment: Tenant, version: &ETag, now: Monotonic) {
        if self.cut_short.get(&environment, now) != Some(version) {
            self.cut_short.note(environment, version.clone(), now);
            log::warn!(
                "environment {environment}: the document takes more work than one evaluation may: conditions that came later matched nothing"
            );
        }
    }

    /// Does the next slices of documents, as many as there is time for.
    pub(super) fn work<S: Store>(&mut self, machinery: &Machinery<'_, S, FlagsmithCount>) {
        // Without a clock a slice is all that is known to be short.
        let began = machinery.ambient.clock();
        let goes_on = || {
            let passed = machinery.ambient.clock().zip(began);
            passed.is_some_and(|(now, began)| now.saturating_sub(began) < SLICES_TAKE)
        };
        for _ in 0..SLICES_PER_TICK {
            if let Some((environment, version, compiled)) = self.workshop.work() {
                let landed = self.keep(environment, &version, compiled, machinery.now);
                let read = FlagsmithRead::Compiled {
                    environment,
                    version,
                };
                self.finished.push((read, landed));
            }
            if self.workshop.is_empty() || !goes_on() {
                break;
            }
        }
    }
}
